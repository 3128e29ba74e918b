"""From `nfnet-eqx NAME ...` to the function behind it, and from its exceptions to an exit status."""

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nfnet_eqx._errors import InputError, is_out_of_memory
from nfnet_eqx.cli._text import printable


class Command(NamedTuple):
    """One subcommand: where its function lives, imported only when it is called, and what it is for."""

    module: str
    function: str
    summary: str
    own_parser: bool = False  # its arguments depend on each other, so it takes them as they are


COMMANDS = {
    "list": Command("nfnet_eqx.cli.list", "list_", "the architectures: parameters, multiply-adds, FLOPs, image sizes"),
    "info": Command("nfnet_eqx.cli.info", "info", "everything about one architecture or checkpoint"),
    "classify": Command("nfnet_eqx.cli.classify", "classify", "say what is on pictures"),
    "convert": Command("nfnet_eqx.cli.convert", "convert", "checkpoints of timm and DeepMind to native ones, and back"),
    "verify": Command("nfnet_eqx.cli.verify", "verify", "compare two checkpoints, tensor by tensor, stage by stage"),
    "pull": Command("nfnet_eqx.cli.pull", "pull", "fetch a checkpoint from the Hub; lock it to its bytes"),
    "push": Command("nfnet_eqx.cli.push", "push", "publish a checkpoint on the Hub, with its card"),
    "train": Command("nfnet_eqx.cli.train", "train", "train or fine-tune a network by a recipe", own_parser=True),
    "evaluate": Command("nfnet_eqx.cli.evaluate", "evaluate", "accuracy of a checkpoint on labelled pictures"),
    "scaling": Command(
        "nfnet_eqx.cli.scaling", "scaling", "scaling laws: sweep, fit, plot, plan, compare", own_parser=True
    ),
}

OK, OUR_FAULT, USER_FAULT = 0, 1, 2
_LONGEST_LINE = 4_000
_LESS_MEMORY = "use a smaller batch or image size, end other programs, or take a larger machine"

INTERRUPTED = 130  # a shell's own status after Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand, as a program may: nothing of its process is changed.

    Args:
        argv: the arguments after the program's name; `None` takes them from `sys.argv`.

    Returns:
        The exit status: 0; 2 where the user's input is at fault (one line on stderr says what, why, and the remedy); 1
        where we are (the traceback, and a line that asks for a report).
    """
    try:
        call(sys.argv[1:] if argv is None else argv, when_loaded=lambda: None)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return OK


def call(argv: Sequence[str], *, when_loaded: Callable[[], object]) -> None:
    """Run one subcommand, and `when_loaded` between loading its modules and calling it.

    Raises:
        Exception: whatever ended it, for `report`.
    """
    name, *arguments = argv or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
    elif name == "--version":
        import importlib.metadata

        print("nfnet-eqx", importlib.metadata.version("nfnet-eqx"))
    elif name in COMMANDS:
        _call(name, arguments, when_loaded)
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise InputError(
            f"unknown command {name!r}; " + (f"did you mean {near[0]}?" if near else "see nfnet-eqx --help")
        )
    print(end="", flush=True)  # here, where a full disk is still ours to report


def report(error: BaseException) -> int:
    """Say on stderr what ended a subcommand, and give its exit status."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, InputError):
        _say(str(error))
    elif isinstance(error, OSError):
        _say(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    elif is_out_of_memory(error):
        _say(f"not enough memory ({error}); {_LESS_MEMORY}")
    else:
        traceback.print_exception(error)
        _say("this is a fault of nfnet-eqx, not of your input; please report it with the lines above.")
        return OUR_FAULT
    return USER_FAULT


def _call(name: str, arguments: Sequence[str], when_loaded: Callable[[], object]) -> None:
    """Let tyro turn the arguments into those of the command's function; it prints its own errors and exits with 2."""
    import inspect

    import tyro

    command = COMMANDS[name]
    try:
        function = getattr(importlib.import_module(command.module), command.function)
    except ModuleNotFoundError as error:
        # Only what the extra brings; a module of our own that is missing is our fault.
        if error.name is None or error.name.split(".")[0] not in ("cv2", "grain", "matplotlib", "orbax"):
            raise
        raise InputError(f"{name} needs {error.name}: pip install 'nfnet-eqx[train]'") from None
    when_loaded()
    if command.own_parser:
        return function(arguments)
    # tyro would show the summary and drop the docstring's example.
    description = (inspect.getdoc(function) or "").split("\n\nArgs:\n")[0]
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    tyro.cli(function, prog=f"nfnet-eqx {name}", description=description, args=arguments, config=config)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: nfnet-eqx COMMAND ...\n\n"
        "Normalizer-free networks (NFNets), and the vision transformers they compare with, in JAX and Equinox.\n\n"
        f"commands:\n{commands}\n\n"
        "nfnet-eqx COMMAND --help shows a command's arguments and an example; nfnet-eqx --version the version.\n"
        "Exit status: 0; 2 if the input cannot be used; 1 if nfnet-eqx is at fault."
    )


def _say(message: str) -> None:
    # A stranger's file can hold a name of a megabyte, or a hundred thousand faults.
    line = printable(message)
    print(f"nfnet-eqx: {line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + ' ...'}", file=sys.stderr)
