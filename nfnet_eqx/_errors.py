"""The one exception that means: what the user gave cannot be used."""


class InputError(ValueError):
    """A name, value or file that the user gave cannot be used; the message says which, why, and what to do.

    Everything that nfnet_eqx refuses on purpose is one of these. The command line prints it as one line and exits
    with 2; any other exception is our fault and exits with 1.
    """
