"""`nfnet-eqx train`: a recipe, with anything in it changed on the command line."""

import argparse
import contextlib
import dataclasses
import difflib
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tyro
from tqdm import tqdm
from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

from nfnet_eqx._errors import InputError
from nfnet_eqx.cli._process import sigterm
from nfnet_eqx.models import NetworkConfig
from nfnet_eqx.train import RUN_NAME, TrainConfig
from nfnet_eqx.train import train as run
from nfnet_eqx.train.recipes import RECIPES

USAGE = """usage: nfnet-eqx train --recipe NAME [--model MODEL] [--data DATA] [--out DIR] [--no-resume] [--FIELD ...]

Train or fine-tune a network. DIR keeps the run: settings, metrics, curves, states, and in the end its checkpoint.
The same command resumes a run that was stopped.

recipes:
{recipes}

DATA is a folder of class folders, or of .tar, .parquet or .array_record files, CIFAR-like .npz or IDX files, with a
part for training and one for validation; or the word digits, for scikit-learn's small images of them.
`nfnet-eqx train --recipe NAME --help` lists every field of a recipe.

Example (a few pictures want larger steps than the recipe's, which is for ImageNet):
    nfnet-eqx train --recipe finetune --model nfnet_cifar10 --data digits --out runs/digits \\
        --image-size 32 --eval-size 32 --epochs 3 --batch-size 64 --augment.crop padded --augment.no-flip \\
        --optimizer.learning-rate 0.4 --optimizer.clipping 0.1 --optimizer.clipping-eps 1 --optimizer.ema-decay None"""


def train(arguments: Sequence[str]) -> None:
    """Train a network by a recipe.

    Args:
        arguments: `--recipe`, and what it is given or changed.

    Raises:
        InputError: there is no such recipe, or something of the run cannot be used.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe")
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
    try:
        first, changes = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from None
    wants_help = "-h" in changes or "--help" in changes
    if first.recipe is None:
        if not wants_help and arguments:
            raise InputError(f"--recipe is needed: one of {', '.join(RECIPES)}")
        print(USAGE.format(recipes="\n".join(f"  {name:9} {_summary(name)}" for name in RECIPES)))
        raise SystemExit(0)  # as tyro does after a help
    if first.recipe not in RECIPES:
        raise InputError(f"--recipe {first.recipe}: there are {', '.join(RECIPES)}")
    config = _resolve(first, changes, wants_help)
    if not first.resume and (config.out / RUN_NAME).exists():
        raise InputError(f"--out {config.out}: holds a run, and --no-resume was given; choose another folder")
    with progress_shown(), sigterm() as stop:
        result = run(config, recipe=first.recipe, stop=stop)
    if result.evaluation is not None:
        low, high = result.evaluation.interval("top1")
        print(
            f"{result.checkpoint}: top-1 {result.evaluation.top1:.2f} % ({low:.2f}-{high:.2f}) on "
            f"{len(result.evaluation.labels):,} pictures after {result.exported_step:,} of {result.total_steps:,} steps"
        )


def _resolve(first: argparse.Namespace, changes: list[str], wants_help: bool) -> TrainConfig:
    """The recipe's configuration with the changes; `--help` prints it instead."""
    recipe = RECIPES[first.recipe]
    given: dict[str, Any] = {name: getattr(first, name) for name in ("model", "data", "out")}
    given = {name: value for name, value in given.items() if value is not None}
    needed = [name for name, p in inspect.signature(recipe).parameters.items() if p.default is p.empty]
    missing = [name for name in needed if name not in given]
    if missing and not wants_help:
        raise InputError(f"--recipe {first.recipe} needs {' and '.join('--' + name for name in missing)}")
    examples = {"model": "nfnet_cifar10", "data": Path("DATA"), "out": Path("DIR")}
    config = recipe(**{name: examples[name] for name in missing} | given)
    for name in missing:  # in the help, as a field without a default: `replace` would check the value
        object.__setattr__(config, name, tyro.MISSING)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_model_rule)
    resolved, unknown = tyro.cli(
        TrainConfig,
        default=config,
        registry=registry,
        args=changes,
        prog=f"nfnet-eqx train --recipe {first.recipe}",
        description=inspect.getdoc(recipe),
        # What may be None, as `preprocess`, would become a subcommand.
        config=(tyro.conf.AvoidSubcommands,),
        return_unknown_args=True,
    )
    if unknown:
        fields = [word for word in unknown if word.startswith("--")]
        if not fields:
            raise InputError(
                f"unexpected {' '.join(unknown)!r}; a value stands behind the field's name, as in --epochs 5"
            )
        known = ["recipe", "resume", "no-resume", *_options(resolved)]
        raise InputError("; ".join(_unknown(word, known) for word in fields))
    return resolved


def _unknown(option: str, known: Sequence[str]) -> str:
    """That a recipe has no such field, and which were meant: by the same last name, initials (`lr`), or a like name."""
    name = option.lstrip("-").partition("=")[0].replace("_", "-")
    short = name.rpartition(".")[2]
    by_short = {field: field.rpartition(".")[2] for field in known}
    meant = [field for field, last in by_short.items() if short in (last, "".join(word[0] for word in last.split("-")))]
    if not meant:
        near = difflib.get_close_matches(short, by_short.values(), n=2, cutoff=0.7)
        meant = [field for field, last in by_short.items() if last in near]
    return f"{option}: there is no such field; " + (
        f"did you mean {' or '.join('--' + field for field in meant)}?" if meant else "--help lists them all"
    )


def _options(part: Any, prefix: str = "") -> Iterator[str]:
    """The fields of a configuration as they are written on the command line, without the dashes in front."""
    for field in dataclasses.fields(part):
        value, name = getattr(part, field.name), field.name.replace("_", "-")
        if dataclasses.is_dataclass(value) and field.name != "model":
            yield from _options(value, f"{prefix}{name}.")
            continue
        yield prefix + name
        if isinstance(value, bool):
            yield f"{prefix}no-{name}"


def _model_rule(field: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[str | NetworkConfig] | None:
    """`--model` is a name; a recipe's own architecture is shown as one, and not field by field."""
    if field.type != str | NetworkConfig:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="MODEL",
        instance_from_str=lambda names: names[0],
        is_instance=lambda value: isinstance(value, str | NetworkConfig),
        str_from_instance=lambda model: [model if isinstance(model, str) else "the recipe's own architecture"],
    )


def _summary(name: str) -> str:
    return (inspect.getdoc(RECIPES[name]) or "").splitlines()[0]


class _AboveTheBar(logging.Handler):
    """Lines that do not tear a progress bar apart."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


@contextlib.contextmanager
def progress_shown(others: int = logging.INFO) -> Iterator[None]:
    """What the library logs goes to the terminal; other packages' information does not.

    Args:
        others: from which level on, where it does not come from a sweep.
    """
    logger, handler = logging.getLogger("nfnet_eqx"), _AboveTheBar()
    handler.addFilter(lambda record: record.levelno >= others or record.name.startswith("nfnet_eqx.scaling."))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # Orbax gives the root logger a handler of its own
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
