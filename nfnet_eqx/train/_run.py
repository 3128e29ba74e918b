"""The folder of a run: `run.json` says what runs there, so that nothing else is continued in it by mistake."""

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nfnet_eqx._config import NFNetConfig
from nfnet_eqx._errors import InputError
from nfnet_eqx.convert._files import read_json, replacing, write_json
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


def claim(config: TrainConfig, recipe: str, network: NFNetConfig, *, bytes_needed: int) -> None:
    """Makes `config.out` the folder of this run, or finds that it is.

    Args:
        config: the resolved configuration; it is written to `run.json`.
        recipe: the recipe that it came from.
        network: the network that is trained.
        bytes_needed: by one checkpoint; the disk must hold as many as the run keeps, and one that is being written.

    Raises:
        InputError: the folder holds another run (every difference is named) or other files, or the disk is too small.
    """
    settings = {"recipe": recipe, "config": config.to_dict(), "network": network.to_dict()}
    fault = None
    if jax.process_index() == 0:
        try:
            _claim(config.out, settings, bytes_needed * (config.keep + 2))
        except InputError as error:
            fault = error
    # The others wait for the first one's answer, or they would wait for its first step, and for ever.
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(fault is not None)) and not fault:
        fault = InputError(f"out (={config.out}): process 0 refuses it, and says why")
    if fault:
        raise fault


def _claim(out: Path, settings: dict[str, Any], bytes_needed: int) -> None:
    file = out / RUN_NAME
    if file.exists():
        _compare(file, settings)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out (={out}) exists and holds no run ({RUN_NAME} is missing); choose another folder")
    _check_space(out, bytes_needed)
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
    if not differ and before.get("network") != settings["network"]:
        differ, old, new = ["network"], {"network": "another network"}, {"network": "this one"}
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
