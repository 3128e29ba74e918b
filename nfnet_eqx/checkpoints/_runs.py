"""The folder of a training run, read as a checkpoint: its exported network, or any of its saved states.

`run.json` says what is trained there; the states are Orbax's, each in a folder named by its step:

    runs/flowers/run.json
    runs/flowers/checkpoint/        what the run exported; `runs/flowers` opens it
    runs/flowers/checkpoints/700/   the state after 700 steps; opens too, with its averaged parameters where it has them

So any state can be exported anew, under other class names too:

    ckpt = nfx.from_pretrained("runs/flowers/checkpoints/700")
    nfx.save_pretrained(dataclasses.replace(ckpt, labels=("rose", "tulip")), "flowers")
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jax.sharding import Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError, first
from nfnet_eqx._files import read_json
from nfnet_eqx.checkpoints._checkpoint import CONFIG_NAME, Checkpoint, Origin, adapt, load_checkpoint
from nfnet_eqx.checkpoints._tensors import Placement
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NetworkConfig, config_from_dict, is_parameter, skeleton

RUN_NAME = "run.json"
STATES_NAME = "checkpoints"
EXPORT_NAME = "checkpoint"


class Run(NamedTuple):
    """What `run.json` says of a run.

    Attributes:
        network: the configuration of what is trained.
        preprocess: of its images.
        architecture: what it is called.
        labels: the names of its classes, where known.
        base_model: the checkpoint that it started from; `None`: it started from random parameters.
        settings: the file as it is, for what only the training itself reads.
    """

    network: NetworkConfig
    preprocess: Preprocess
    architecture: str
    labels: tuple[str, ...] | None
    base_model: str | None
    settings: Mapping[str, Any]


def run_of(path: str | os.PathLike[str]) -> Path | None:
    """The run's folder that a path belongs to: itself, its folder of states, or one of these; `None`: to none."""
    folder = Path(os.path.abspath(path))
    if not folder.is_dir() or (folder / CONFIG_NAME).exists():
        return None
    candidates = [folder]
    if folder.name == STATES_NAME:
        candidates = [folder.parent]
    elif folder.parent.name == STATES_NAME and folder.name.isdecimal():
        candidates = [folder.parent.parent]
    return next((run for run in candidates if (run / RUN_NAME).is_file()), None)


def exported_by(path: str | os.PathLike[str]) -> Path:
    """The folder of the checkpoint that a run exported, for a run's folder; any other path as it is.

    Raises:
        InputError: the run has exported nothing yet; the message names the states that it has.
    """
    run = run_of(path)
    if run is None or _is_state(Path(path)):
        return Path(path)
    exported = run / EXPORT_NAME
    if Path(os.path.abspath(path)) == run and (exported / CONFIG_NAME).is_file():
        return exported
    steps = saved_steps(run)
    states = [str(Path(path) / ("" if Path(path).name == STATES_NAME else STATES_NAME) / str(step)) for step in steps]
    if Path(os.path.abspath(path)) == run:
        what = "the run has exported no checkpoint yet; resume it to its end"
        remedy = f", or open one of its states: {first(states)}" if states else ""
    else:
        what, remedy = "holds the states of a run", f"; open one of them: {first(states)}" if states else ", none yet"
    raise InputError(f"{path}: {what}{remedy}")


def saved_steps(run: Path) -> list[int]:
    """The steps after which a run saved a state that is whole."""
    folder = run / STATES_NAME
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal() and entry.is_dir())


def load_run(
    path: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: DTypeLike | None = None,
    device: Placement | None = None,
) -> Checkpoint:
    """Open the checkpoint that a run exported, or one of its states.

    Args:
        path: a run's folder, or that of a state, `checkpoints/700` in it.
        num_classes: as in `load_checkpoint`.
        in_channels: as in `load_checkpoint`.
        dtype: as in `load_checkpoint`.
        device: as in `load_checkpoint`.

    Raises:
        InputError: the run has exported nothing yet, or what it has is damaged.
    """
    path = Path(path)
    if not _is_state(path):
        return load_checkpoint(
            exported_by(path), num_classes=num_classes, in_channels=in_channels, dtype=dtype, device=device
        )
    folder = Path(os.path.abspath(path))
    run = read_run(folder.parent.parent)
    ckpt = Checkpoint(
        model=_read_network(folder, run.network, dtype, device),
        preprocess=run.preprocess,
        labels=run.labels,
        architecture=run.architecture,
        source=Origin(str(path)),
    )
    return adapt(ckpt, num_classes, in_channels)


def read_run(folder: Path) -> Run:
    """What `run.json` in a run's folder says.

    Raises:
        InputError: there is none, or it is not the record of a run; an older version's is refused too.
    """
    file = folder / RUN_NAME
    settings = read_json(file)
    expected = {
        "architecture": str, "base_model": str | None, "class_indices": list, "config": dict, "data": dict,
        "labels": list | None, "network": dict, "preprocess": dict, "recipe": str,
    }  # fmt: skip
    missing = [name for name in expected if name not in settings]
    if missing and {"config", "network"} <= settings.keys():
        raise InputError(
            f"{file}: was written by an older nfnet-eqx (without {first(missing)}); finish that run with the version "
            "that began it, or choose another folder"
        )
    faults = [f"{name} is missing" for name in missing]
    for name, kind in expected.items():
        if name in settings and not isinstance(settings[name], kind):
            faults.append(f"{name} is a {type(settings[name]).__name__}")
    indices = settings.get("class_indices")
    if isinstance(indices, list) and not all(type(index) is int and index >= 0 for index in indices):
        faults.append("class_indices are no numbers of classes")
    data = settings.get("data")
    names = data.get("classes") if isinstance(data, dict) else None
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        faults.append("data.classes are no names")
    elif names is not None and isinstance(indices, list) and len(indices) != len(names):
        faults.append(f"class_indices are {len(indices)}, for {len(names)} classes")
    if faults:
        raise InputError(f"{file}: is not the record of a run: {first(faults)}; restore it, or choose another folder")
    try:
        network = config_from_dict(settings["network"])
        resize = str(settings["preprocess"].get("resize", "timm"))
        preprocess = Preprocess.from_timm(settings["preprocess"], resize=resize)
        labels = settings["labels"]
        labels = None if labels is None else check_class_names(labels, "labels")
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if labels is not None and len(labels) != network.num_classes:
        raise InputError(f"{file}: {len(labels)} labels for {network.num_classes} classes; restore the file")
    return Run(network, preprocess, settings["architecture"], labels, settings["base_model"], settings)


def _is_state(path: Path) -> bool:
    folder = Path(os.path.abspath(path))
    return folder.name.isdecimal() and folder.parent.name == STATES_NAME and run_of(folder) is not None


def _read_network(folder: Path, config: NetworkConfig, dtype: DTypeLike | None, device: Placement | None) -> Any:
    """The network of a state: with the averaged parameters, where the run kept an average."""
    from nfnet_eqx._orbax import ocp

    sharding = device if isinstance(device, Sharding) else SingleDeviceSharding(device or jax.local_devices()[0])
    shapes, static = eqx.partition(skeleton(config), is_parameter)
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
    item = folder / "ema" if (folder / "ema").is_dir() else folder / "params"
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(item, wanted)
    except (OSError, ValueError, KeyError) as error:  # what TensorStore and Orbax say of damaged files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{folder}: cannot be read: {reason}; open another state of the run") from error
    if dtype is not None:
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    return eqx.combine(params, static)
