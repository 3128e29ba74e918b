"""The one exception that means: what the user gave cannot be used; and many faults in one line of its text."""

from collections.abc import Mapping


class InputError(ValueError):
    """A name, value or file that the user gave cannot be used; the message says which, why, and what to do.

    Everything that nfnet_eqx refuses on purpose is one of these. The command line prints it as one line and exits
    with 2; any other exception is our fault and exits with 1.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a machine or a device had no more memory: Python's and NumPy's own error, or XLA's, told by its text."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error))


def first(items: list[str], most: int = 8) -> str:
    """The first few of `items`, each cut where it is endless, and how many more there are."""
    shown = [item if len(item) <= 200 else item[:200] + "..." for item in items[:most]]
    return ", ".join(shown) + (f" and {len(items) - most} more" if len(items) > most else "")


def by_kind(faults: Mapping[str, list[str]], most: int = 3) -> str:
    """`{kind: items}` as "2 missing (a, b); 1 unexpected (c)"; kinds without items are left out."""
    return "; ".join(f"{len(items)} {kind} ({first(items, most)})" for kind, items in faults.items() if items)
