"""`nfnet-eqx scaling`: sweeps, fits, plots, plans and comparisons; each is a file beside this one."""

import difflib
import importlib
import inspect
from collections.abc import Sequence

import tyro

from nfnet_eqx._errors import InputError

# Each is the function of its own name in `_scaling_NAME.py`.
COMMANDS = {
    "sweep": "train models x epoch budgets x learning rates, into one file of results",
    "fit": "scaling laws with intervals, of such a file or of any table",
    "plot": "loss against compute, best learning rates, isoFLOP curves",
    "plan": "which model, how long, at which learning rate, for a budget",
    "compare": "two families at equal compute",
}


def scaling(arguments: Sequence[str]) -> None:
    """Run one of the subcommands.

    Args:
        arguments: its name, and its arguments.

    Raises:
        InputError: there is no such subcommand, or what it raises.
    """
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
        raise SystemExit(0)  # as tyro does after a help
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        raise InputError(f"unknown command 'scaling {name}'; {hint}")
    function = getattr(importlib.import_module(f"nfnet_eqx.cli._scaling_{name}"), name)
    # tyro would show the summary and drop the docstring's example.
    description = (inspect.getdoc(function) or "").split("\n\nArgs:\n")[0]
    config = (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName)
    tyro.cli(function, prog=f"nfnet-eqx scaling {name}", description=description, args=rest, config=config)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    return (
        "usage: nfnet-eqx scaling COMMAND ...\n\n"
        "Scaling laws: measured, fitted, drawn, used.\n\n"
        "commands:\n"
        + "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
        + "\n\nExample:\n    nfnet-eqx scaling sweep study.toml --plan\n"
        + "\nnfnet-eqx scaling COMMAND --help shows a command's arguments and an example."
    )
