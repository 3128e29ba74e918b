"""`Checkpoint`: a network with all that is needed to use it, and the folder it is kept in.

A folder holds `config.json` and `model.safetensors`, both as timm reads and writes them: its tensor names, its layout,
its keys. What timm has no key for stands under `"nfnet_eqx"`, which timm passes over.
"""

import dataclasses
import hashlib
import importlib.metadata
import logging
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jax.typing import DTypeLike

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError, first
from nfnet_eqx._files import read_json, replacing, write_json
from nfnet_eqx.checkpoints._classify import Prediction, classify
from nfnet_eqx.checkpoints._tensors import (
    INDEX_SUFFIX,
    Placement,
    load_tensors,
    open_safetensors,
    read_index,
    write_safetensors,
)
from nfnet_eqx.checkpoints._timm import TIMM_ARCHITECTURES, config_from_timm, config_to_timm, pretrained_cfg_from_timm
from nfnet_eqx.images import ImageLike, Preprocess, imagenet1k
from nfnet_eqx.models import NFNet, NFNetConfig, named_parameters, replace_head, replace_in_channels, skeleton

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model" + INDEX_SUFFIX

# What timm's pretrained_cfg says about a checkpoint's origin; it must survive loading and saving.
_ABOUT = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes", "label_descriptions")

# Of weights in other formats, which hold code, or may.
FOREIGN_SUFFIXES = (".bin", ".ckpt", ".h5", ".msgpack", ".npz", ".pickle", ".pkl", ".pt", ".pth")

# Bytes that are hashed at a time.
_PIECE = 2**23

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a checkpoint came from, to the byte; as text, `"timm/dm_nfnet_f0.dm_in1k@<commit>"` or a folder.

    Attributes:
        name: the id of a repository on the Hub, a folder or file, or the name of a bundled checkpoint; empty for one
            that was made here.
        commit: what the revision of a repository resolved to: 40 hexadecimal digits.
        sha256: the digest of each file that was read, by its name.
    """

    name: str = ""
    commit: str | None = None
    sha256: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}" if self.commit else self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network with its parameters, and what is needed to use it.

    Attributes:
        model: the network.
        preprocess: how a picture becomes its input.
        labels: the name of each class, where known.
        architecture: what the network is called, e.g. `"dm_nfnet_f0"`.
        source: where it came from, with the commit and the sha256 of its files.
        about: what its file says about its origin, under timm's keys (`license`, `tag`, `origin_url`, ...).
    """

    model: NFNet
    preprocess: Preprocess
    labels: tuple[str, ...] | None = None
    architecture: str
    source: Origin = Origin()
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", check_class_names(self.labels, "Checkpoint.labels"))
        if self.labels is not None and len(self.labels) != self.config.num_classes:
            raise InputError(
                f"Checkpoint: {len(self.labels)} labels for {self.config.num_classes} classes; give one each, or None"
            )

    @property
    def config(self) -> NFNetConfig:
        """The configuration of the network."""
        return self.model.config

    def classify(self, image: ImageLike, top: int = 5) -> list[Prediction]:
        """The classes that the network finds most probable in a picture, the best first.

        Args:
            image: a file name, bytes, a binary file, a Pillow image or an array (`nfnet_eqx.images.open_image`).
            top: how many classes; all of them where there are fewer.

        Raises:
            InputError: the picture cannot be read, or the network has no classifier.
        """
        (best,) = classify(self.model, self.preprocess, self.labels, [image], top=top)
        return best


def load_checkpoint(
    folder: str | os.PathLike[str],
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    dtype: DTypeLike | None = None,
    device: Placement | None = None,
    name: str | None = None,
    commit: str | None = None,
) -> Checkpoint:
    """Open the checkpoint in a folder, ours or timm's.

    Args:
        folder: holds `config.json` and `model.safetensors` (or its shards with `model.safetensors.index.json`); or a
            `.safetensors` file with a `config.json` beside it.
        num_classes: another number of classes: the classifier starts afresh, and the log says so.
        in_channels: another number of input channels: the first convolution is adapted by timm's rule.
        dtype: what to keep the parameters in; `None` is float32.
        device: where to put the parameters, one after the other as they are read; by default JAX's default device.
        name: what to call the checkpoint in `Checkpoint.source` and in messages; by default the folder.
        commit: of the repository `name` that the folder is a copy of.

    Raises:
        InputError: the folder holds no checkpoint, or one that is broken; the message says in what.
    """
    folder = Path(folder)
    weights = _find_weights(folder)
    config_file = weights.parent / CONFIG_NAME
    settings = read_json(config_file)
    try:
        architecture, config = _read_config(settings)
        pretrained_cfg = pretrained_cfg_from_timm(settings)
        preprocess = Preprocess.from_timm(
            pretrained_cfg, resize=(settings.get("nfnet_eqx") or {}).get("resize", "timm")
        )
        labels = _read_labels(pretrained_cfg.get("label_names"), config.num_classes)
    except InputError as error:
        raise InputError(f"{config_file}: {error}") from None
    # The digests take as long as the arrays, and a thread of their own.
    with ThreadPoolExecutor(1) as beside, open_safetensors(weights) as tensors:
        digests = beside.submit(sha256, checkpoint_files(folder))
        model = load_tensors(config, tensors, source=str(weights), dtype=dtype, device=device)
    ckpt = Checkpoint(
        model=model,
        preprocess=preprocess,
        labels=labels,
        architecture=architecture,
        source=Origin(name or str(folder), commit, digests.result()),
        about={key: pretrained_cfg[key] for key in _ABOUT if pretrained_cfg.get(key) is not None},
    )
    return adapt(ckpt, num_classes, in_channels)


def adapt(ckpt: Checkpoint, num_classes: int | None, in_channels: int | None) -> Checkpoint:
    """The checkpoint for another number of classes or input channels; `None` leaves it as it is."""
    if num_classes is not None and num_classes != ckpt.config.num_classes:
        ckpt = _with_new_head(ckpt, num_classes)
    if in_channels is not None and in_channels != ckpt.config.in_channels:
        ckpt = dataclasses.replace(ckpt, model=replace_in_channels(ckpt.model, in_channels))
    return ckpt


def save_pretrained(ckpt: Checkpoint, folder: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a folder, as `config.json` and `model.safetensors`, for nfnet_eqx and for timm.

    Where timm cannot rebuild the network, or computes another function with it, the log says so; nfnet_eqx reads back
    exactly what was saved in any case.

    Args:
        ckpt: the checkpoint.
        folder: is made where needed; a checkpoint that it holds is replaced.

    Raises:
        InputError: the network was folded, or changed so that its configuration no longer describes it.
    """
    config = ckpt.config
    parameters = named_parameters(ckpt.model)
    shapes = {name: leaf.shape for name, leaf in parameters.items()}
    if shapes != {name: leaf.shape for name, leaf in named_parameters(skeleton(config)).items()}:
        raise InputError(
            "save_pretrained: the parameters are not those of the model's own configuration. A folded network cannot "
            "be saved: save the one it was folded from"
        )
    metadata = {"format": "pt", "architecture": ckpt.architecture, "library": "nfnet-eqx", "library_version": version()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / CONFIG_NAME) as config_file:
        write_json(config_file, _config_json(ckpt))
        write_safetensors(folder / WEIGHTS_NAME, parameters, metadata)


def version() -> str:
    """The version of this package, as files and cards state it."""
    try:
        return importlib.metadata.version("nfnet-eqx")
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"


def _find_weights(path: Path) -> Path:
    if path.is_file():
        if path.name.endswith((".safetensors", INDEX_SUFFIX)):
            return path
        raise InputError(f"{path}: no safetensors file; `nfnet-eqx convert` makes a folder of DeepMind's files")
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    for name in (WEIGHTS_NAME, INDEX_NAME):
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds no {WEIGHTS_NAME} (nor {INDEX_NAME}); {_what_to_do(path)}")


def _what_to_do(folder: Path) -> str:
    """What the user of a folder without weights may have meant."""
    entries = sorted(folder.iterdir())
    checkpoints = [entry for entry in entries if (entry / CONFIG_NAME).is_file()]
    if checkpoints:
        return f"did you mean {checkpoints[0]}?"
    foreign = [entry.name for entry in entries if entry.suffix in FOREIGN_SUFFIXES]
    if foreign:
        return (
            f"other formats ({first(foreign, 3)}), pickles among them, are never read. timm's "
            "save_for_hf(safe_serialization=True) writes one"
        )
    held = first([entry.name for entry in entries], 5) or "nothing"
    return f"it holds {held}; give the folder of a checkpoint, or of a training run"


def checkpoint_files(path: Path) -> list[Path]:
    """The files that a checkpoint in a folder consists of: its config, and its weights in one file or in shards.

    Raises:
        InputError: there are no weights.
    """
    weights = _find_weights(path)
    shards = read_index(weights) if weights.name.endswith(INDEX_SUFFIX) else ()
    return [weights.parent / CONFIG_NAME, weights, *(weights.parent / shard for shard in shards)]


def sha256(files: Iterable[Path]) -> dict[str, str]:
    """The digest of each file, by its name."""
    # In large pieces: `hashlib.file_digest` takes small ones, and between them waits for its turn among the threads.
    digests, piece = {}, memoryview(bytearray(_PIECE))
    for path in files:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(piece):
                digest.update(piece[:count])
        digests[path.name] = digest.hexdigest()
    return digests


def _read_config(settings: dict[str, Any]) -> tuple[str, NFNetConfig]:
    """The network, from our own description where there is one, else from timm's."""
    ours = settings.get("nfnet_eqx")
    if ours is None:
        return config_from_timm(settings)
    if not isinstance(ours, dict) or not isinstance(ours.get("config"), dict):
        raise InputError("nfnet_eqx.config must be an object")
    architecture = ours.get("architecture", settings.get("architecture"))
    if not isinstance(architecture, str) or not architecture.isprintable():
        raise InputError(f"architecture must be a name, got {architecture!r}")
    return architecture, NFNetConfig.from_dict(ours["config"])


def _read_labels(names: Any, num_classes: int) -> tuple[str, ...] | None:
    """Class names from timm's `label_names`: a list, or an object from class index to name."""
    if names is None:
        return imagenet1k() if num_classes == 1000 else None
    if isinstance(names, dict):
        by_index = {str(i): f"class {i}" for i in range(num_classes)}
        strange = [key for key in names if key not in by_index]
        if strange:
            raise InputError(f"label_names has no class {strange[0]!r}: there are {num_classes}")
        names = list((by_index | names).values())
    if not isinstance(names, list | tuple) or len(names) != num_classes:
        raise InputError(f"label_names must name {num_classes} classes, in a list or by class index")
    return check_class_names(names, "label_names")


def _with_new_head(ckpt: Checkpoint, num_classes: int) -> Checkpoint:
    model = replace_head(ckpt.model, num_classes, key=jax.random.key(0))
    if num_classes:
        message = "%s: the classifier for %d classes was replaced by an untrained one for %d"
        _log.warning(message, ckpt.source, ckpt.config.num_classes, num_classes)
    trained = next(iter(named_parameters(model).values()))
    arrays, rest = eqx.partition(model.head, eqx.is_array)
    arrays = jax.tree.map(lambda leaf: jax.device_put(leaf.astype(trained.dtype), trained.sharding), arrays)
    # Neither the names of the old classes nor the name of the published checkpoint, which this is no more.
    about = {key: value for key, value in ckpt.about.items() if key not in ("label_descriptions", "tag")}
    model = eqx.tree_at(lambda m: m.head, model, eqx.combine(arrays, rest))
    return dataclasses.replace(ckpt, model=model, labels=None, about=about)


def _config_json(ckpt: Checkpoint) -> dict[str, Any]:
    """What goes into config.json; see `timm.models._hub.save_config_for_hf` for timm's keys."""
    config = ckpt.config
    # timm has no numerics: it opens either kind, as its own.
    try:
        architecture, model_args = config_to_timm(ckpt.architecture, dataclasses.replace(config, numerics="timm"))
    except InputError as error:
        _log.warning("saved for nfnet_eqx alone: %s", error)
        # A name that timm does not know: it must refuse this network, not build another.
        known = ckpt.architecture in TIMM_ARCHITECTURES
        architecture, model_args = (f"{ckpt.architecture}_nfnet_eqx" if known else ckpt.architecture), {}
    else:
        if config.numerics == "deepmind":
            _log.warning(
                "timm will open this checkpoint with its own numerics, and its outputs will differ slightly; "
                "convert it to numerics='timm' for equal ones"
            )
    first_conv = "stem.conv" if len(config.stem_widths) == 1 else "stem.conv1"
    pretrained_cfg = ckpt.preprocess.to_timm()
    for key in ("input_size", "test_input_size"):
        if pretrained_cfg.get(key):
            pretrained_cfg[key] = [config.in_channels, *pretrained_cfg[key][-2:]]
    pretrained_cfg |= {"num_classes": config.num_classes, "pool_size": None}
    pretrained_cfg |= {"first_conv": first_conv, "classifier": "head.fc", **ckpt.about}
    settings: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.feature_width,
        "global_pool": "avg",
    }
    if ckpt.labels is not None and not (len(ckpt.labels) == 1000 and ckpt.labels == imagenet1k()):
        settings["label_names"] = list(ckpt.labels)
    if model_args:
        settings["model_args"] = model_args
    settings["pretrained_cfg"] = pretrained_cfg
    settings["library"] = {"name": "nfnet-eqx", "version": version()}
    settings["nfnet_eqx"] = {
        "version": version(),
        "architecture": ckpt.architecture,
        "config": config.to_dict(),
        "resize": ckpt.preprocess.resize,
    }
    return settings
