"""The folder of a run: `run.json` says what runs there, so that nothing else is continued in it by mistake."""

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import read_json, replacing, write_json
from nfnet_eqx.data import Source
from nfnet_eqx.models import NFNetConfig
from nfnet_eqx.train._config import TrainConfig

RUN_NAME = "run.json"
CHECKPOINTS_NAME = "checkpoints"
EXPORT_NAME = "checkpoint"
CURVES_NAME = "curves.png"

# What may differ when a run goes on: where files are, how much is logged and kept, and how the same sums are divided.
_MAY_CHANGE = {
    "data", "eval_data", "out", "micro_batches", "remat", "fsdp", "eval_every", "checkpoint_every", "keep", "log_every",
    "num_threads", "num_workers", "tensorboard",
}  # fmt: skip


def claim(config: TrainConfig, recipe: str, network: NFNetConfig, source: Source, *, bytes_needed: int) -> None:
    """Makes `config.out` the folder of this run, or finds that it is.

    Args:
        config: the resolved configuration; it is written to `run.json`.
        recipe: the recipe that it came from.
        network: the network that is trained.
        source: the training pictures; where they are may change from call to call, but not how many or of what.
        bytes_needed: by one checkpoint; the disk must hold as many as the run keeps, and one that is being written.

    Raises:
        InputError: the folder holds another run (every difference is named) or other files, or the disk is too small.
    """
    settings = {
        "recipe": recipe,
        "config": config.to_dict(),
        "network": network.to_dict(),
        "data": {"pictures": len(source), "classes": None if source.classes is None else list(source.classes)},
    }
    on_first_process(lambda: _claim(config.out, settings, bytes_needed * (config.keep + 2)))


def on_first_process(work: Callable[[], object]) -> None:
    """Lets one process do something for all; the others wait, and fail when it fails instead of waiting for ever.

    Raises:
        InputError: what was raised there; elsewhere, that it was.
    """
    fault = None
    if jax.process_index() == 0:
        try:
            work()
        except (InputError, OSError) as error:
            fault = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(fault is not None)) and not fault:
        fault = InputError("process 0 cannot go on, and says why")
    if fault:
        raise fault


def _claim(out: Path, settings: dict[str, Any], bytes_needed: int) -> None:
    file = out / RUN_NAME
    if file.exists():
        _compare(file, settings)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out (={out}) exists and holds no run ({RUN_NAME} is missing); choose another folder")
    written = sum(entry.stat().st_size for entry in (out / CHECKPOINTS_NAME).rglob("*") if entry.is_file())
    _check_space(out, max(bytes_needed - written, 0))
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        versions = {name: importlib.metadata.version(name) for name in ("nfnet-eqx", "jax", "equinox", "optax")}
        with replacing(file) as unfinished:
            write_json(unfinished, settings | {"versions": versions})


def _compare(file: Path, settings: dict[str, Any]) -> None:
    """Refuses to go on where something that decides the result differs."""
    before = read_json(file)
    old, new = _flat(before.get("config", {})), _flat(settings["config"])
    differ = [name for name in new if old.get(name) != new[name] and name.split(".")[0] not in _MAY_CHANGE]
    for part, what in (("network", "network"), ("data", "pictures or classes")):
        if not differ and before.get(part) != settings[part]:
            differ, old, new = [part], {part: f"other {what}"}, {part: "these"}
    if differ:
        changes = ", ".join(f"{name} (was {old.get(name)}, now {new[name]})" for name in differ)
        raise InputError(f"{file.parent}: holds a run with other settings: {changes}; choose another folder")


def _check_space(out: Path, needed: int) -> None:
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"out (={out}): {free / 1e9:.1f} GB are free, and the checkpoints of this run need {needed / 1e9:.1f} GB; "
            "make room, or choose another disk"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
