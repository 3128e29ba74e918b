"""The folder of a run: `run.json` says what runs there, so that nothing else is resumed in it by mistake."""

import contextlib
import importlib.metadata
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing, write_json
from nfnet_eqx.checkpoints import RUN_NAME, STATES_NAME, Run, read_run, saved_steps
from nfnet_eqx.data import Source
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._lock import LOCK_NAME, locked
from nfnet_eqx.train._start import Start

CURVES_NAME = "curves.png"

# What may differ when a run is resumed: where files are, what is logged, kept and exported, and how the same sums are
# divided.
_MAY_CHANGE = {
    "data", "eval_data", "out", "micro_batches", "remat", "fsdp", "eval_every_epochs", "checkpoint_every_steps", "keep",
    "export", "log_every_steps", "num_threads", "num_workers", "tensorboard",
}  # fmt: skip

# What may lie in a folder that is nobody's: from a file manager, or from a run that was killed before it had a record.
_NOBODYS = re.compile(
    r"\.DS_Store|Thumbs\.db|desktop\.ini"
    rf"|{re.escape(LOCK_NAME)}|\.{re.escape(LOCK_NAME)}\.[0-9a-f]{{8}}|\.{re.escape(RUN_NAME)}\.[0-9a-f]{{8}}\.tmp"
)


def find_run(out: Path) -> Run | None:
    """What runs in a folder, if it has saved a state; until then the folder is free for other settings.

    Raises:
        InputError: the folder has states, and nothing that says of what.
    """
    if not saved_steps(out):
        return None
    return read_run(out)


def resumed_start(run: Run) -> Start:
    """What the run started from, without opening that again."""
    classes = tuple(run.settings["class_indices"])
    return Start(run.network, run.preprocess, run.architecture, run.base_model, run.labels, classes)


def run_settings(config: TrainConfig, recipe: str, start: Start, source: Source) -> dict[str, Any]:
    """What `run.json` says.

    Args:
        config: the resolved configuration.
        recipe: the recipe that it came from.
        start: the network that is trained.
        source: the training images; where they are may change from call to call, but not how many or of what.
    """
    return {
        "recipe": recipe,
        "config": config.to_dict(),
        "architecture": start.architecture,
        "base_model": start.base_model,
        "network": start.config.to_dict(),
        "preprocess": start.preprocess.to_timm() | {"resize": start.preprocess.resize},
        "labels": None if start.labels is None else list(start.labels),
        "class_indices": list(start.classes),
        "data": {"pictures": len(source), "classes": None if source.classes is None else list(source.classes)},
        "versions": {name: importlib.metadata.version(name) for name in ("nfnet-eqx", "jax", "equinox", "optax")},
    }


def check_same(out: Path, run: Run, settings: dict[str, Any]) -> None:
    """Refuses to resume a run where something that decides its result differs.

    Raises:
        InputError: naming every difference.
    """
    changes = changed_settings(run.settings["config"], settings["config"])
    remedy = "choose another folder"
    if not changes and run.settings["data"] != settings["data"]:
        changes = ["data (was other pictures or classes, now these)"]
        remedy += (
            "; if only names of classes have changed, this gives a trained network the new ones: "
            f"nfnet-eqx convert {out / STATES_NAME / 'STEP'} OUT --labels FILE"
        )
    if changes:
        raise InputError(f"{out}: holds a run with other settings: {', '.join(changes)}; {remedy}")


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides the result of a run, and differs between two of `TrainConfig.to_dict`.

    A field that the older one lacks, written before there was such a field, had its default.
    """
    defaults = _flat(TrainConfig(model="", data=Path(), out=Path()).to_dict())
    old, new = _flat(before), _flat(now)
    old |= {name: value for name, value in defaults.items() if name not in old and name in new}
    names = dict.fromkeys([*new, *old])
    differ = [n for n in names if old.get(n) != new.get(n) and n.split(".")[0] not in _MAY_CHANGE]
    return [f"{name} (was {old.get(name)}, now {new.get(name)})" for name in differ]


@contextlib.contextmanager
def holding(out: Path, settings: dict[str, Any], *, found: Run | None, bytes_needed: int) -> Iterator[None]:
    """Makes `out` the folder of this run alone, for as long as the block runs.

    Args:
        out: the folder.
        settings: for `run.json`.
        found: what `find_run` found in the folder, when these settings were made from it or checked against it.
        bytes_needed: for all states that the run keeps.

    Raises:
        InputError: the folder holds other files, another process trains there or has trained there since `found`, or
            the disk is too small.
    """
    with contextlib.ExitStack() as stack:

        def take() -> None:
            _check_folder(out)
            _check_space(out, bytes_needed)
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out))
            if find_run(out) != found:
                raise InputError(f"out (={out}): another process has trained there just now; start this run again")
            if found is None:
                with replacing(out / RUN_NAME) as unfinished:
                    write_json(unfinished, settings)

        on_first_process(take)
        yield


def on_first_process(work: Callable[[], object]) -> None:
    """Lets one process do something for all; the others wait, and fail when it fails instead of waiting for ever.

    Raises:
        BaseException: whatever was raised there; elsewhere an `InputError`, that it was.
    """
    fault = None
    if jax.process_index() == 0:
        try:
            work()
        except BaseException as error:  # also Ctrl-C: whatever it is, the others must be told
            fault = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(fault is not None)) and not fault:
        fault = InputError("process 0 cannot go on, and says why")
    if fault:
        raise fault


def first_process_says(value: int) -> int:
    """The same number in all processes, where each of them has looked into files on its own."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _check_folder(out: Path) -> None:
    if not out.exists() or (out / RUN_NAME).exists():
        return
    if not out.is_dir() or not all(_NOBODYS.fullmatch(entry.name) for entry in out.iterdir()):
        raise InputError(f"out (={out}) exists and holds no run ({RUN_NAME} is missing); choose another folder")


def _check_space(out: Path, needed: int) -> None:
    written = sum(entry.stat().st_size for entry in (out / STATES_NAME).rglob("*") if entry.is_file())
    needed = max(needed - written, 0)
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"out (={out}): {free / 1e9:.1f} GB are free, and the checkpoints of this run need {needed / 1e9:.1f} GB; "
            "make room, or choose another disk"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
