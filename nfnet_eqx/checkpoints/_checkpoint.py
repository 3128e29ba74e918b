"""`Checkpoint`: a network with all that is needed to use it, and the folder it is kept in.

A folder holds `config.json` and `model.safetensors`, both as timm reads and writes them: its tensor names, its layout,
its keys. What timm has no key for stands under `"nfnet_eqx"`, which timm passes over.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.typing import DTypeLike

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError, first
from nfnet_eqx._files import digest, parse_json, read_bounded
from nfnet_eqx.checkpoints._classify import Prediction, classify
from nfnet_eqx.checkpoints._tensors import (
    INDEX_SUFFIX,
    Placement,
    TensorFile,
    load_tensors,
    open_safetensors,
    read_index,
)
from nfnet_eqx.checkpoints._timm import config_from_timm, pretrained_cfg_from_timm
from nfnet_eqx.images import ImageLike, Preprocess, imagenet1k
from nfnet_eqx.models import (
    Network,
    NetworkConfig,
    config_from_dict,
    is_below,
    named_parameters,
    replace_head,
    replace_in_channels,
    skeleton,
    with_parameters,
)

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model" + INDEX_SUFFIX

# What timm's pretrained_cfg says about a checkpoint's origin; it must survive loading and saving.
_ABOUT = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes", "label_descriptions")

# Of weights in other formats, which hold code, or may.
FOREIGN_SUFFIXES = (".bin", ".ckpt", ".h5", ".msgpack", ".npz", ".pickle", ".pkl", ".pt", ".pth")

# How often a folder is opened anew that is replaced again and again while it is read.
_TRIES = 20

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

    model: Network
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
    def config(self) -> NetworkConfig:
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
    for tries_left in reversed(range(_TRIES)):
        before = _identity(folder)
        try:
            return _load(folder, num_classes, in_channels, dtype=dtype, device=device, name=name, commit=commit)
        except (InputError, FileNotFoundError):
            # What is replaced while it is read looks broken. The next try meets the new files, whole.
            if not tries_left or _identity(folder) == before:
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _load(
    folder: Path,
    num_classes: int | None,
    in_channels: int | None,
    *,
    dtype: DTypeLike | None,
    device: Placement | None,
    name: str | None,
    commit: str | None,
) -> Checkpoint:
    with open_checkpoint(folder, name=name, commit=commit) as opened:
        try:
            model = load_tensors(
                opened.ckpt.config, opened.tensors, source=str(_find_weights(folder)), dtype=dtype, device=device
            )
        except InputError:
            opened.verified()  # weights that are not the config's: that says more than what does not fit
            raise
        ckpt = dataclasses.replace(opened.verified(), model=model)
    return adapt(ckpt, num_classes, in_channels)


class Opened(NamedTuple):
    """A checkpoint whose parameters have not been read.

    Attributes:
        ckpt: its model is a `skeleton`: shapes in place of parameters.
        tensors: the parameters by name, each read when it is asked for.
        verified: waits for the digests of the files, which are computed in the meantime, and gives `ckpt` with them;
            raises `InputError` where the weights are not those that the config names.
    """

    ckpt: Checkpoint
    tensors: Mapping[str, Any]
    verified: Callable[[], Checkpoint]


@contextlib.contextmanager
def open_checkpoint(
    folder: str | os.PathLike[str], *, name: str | None = None, commit: str | None = None
) -> Iterator[Opened]:
    """The checkpoint in a folder, ours or timm's, without its parameters in memory; see `load_checkpoint`.

    Raises:
        InputError: the folder holds no checkpoint, or one that is broken; the message says in what.
    """
    folder = Path(folder)
    before = _identity(folder)
    weights = _find_weights(folder)
    config_file = weights.parent / CONFIG_NAME
    content = read_bounded(config_file)
    settings = parse_json(content, str(config_file))
    try:
        architecture, config = _read_config(settings)
        pretrained_cfg = pretrained_cfg_from_timm(settings)
        ours = settings.get("nfnet_eqx") or {}
        preprocess = Preprocess.from_timm(pretrained_cfg, resize=ours.get("resize", "timm"))
        labels = _read_labels(pretrained_cfg.get("label_names"), config.num_classes)
        named = _read_digests(ours.get("sha256"))
    except InputError as error:
        raise InputError(f"{config_file}: {error}") from None
    # The digests take as long as the arrays, and a thread of their own.
    with open_safetensors(weights) as tensors, ThreadPoolExecutor(1) as beside:
        if _identity(folder) != before:
            raise InputError(f"{folder}: was replaced while it was opened; try again")
        config = _with_channels_of(tensors, config, weights)
        ckpt = Checkpoint(
            model=skeleton(config),
            preprocess=preprocess,
            labels=labels,
            architecture=architecture,
            source=Origin(name or str(folder), commit),
            about={key: pretrained_cfg[key] for key in _ABOUT if pretrained_cfg.get(key) is not None},
        )
        index = sha256([weights]) if weights.name.endswith(INDEX_SUFFIX) else {}
        digests = beside.submit(tensors.sha256)

        def verified() -> Checkpoint:
            found = {CONFIG_NAME: hashlib.sha256(content).hexdigest()} | index | digests.result()
            if strange := [file for file in named if found.get(file, named[file]) != named[file]]:
                raise InputError(
                    f"{weights.parent / strange[0]}: is not the file that {CONFIG_NAME} beside it was written for (its "
                    f"sha256 is {found[strange[0]]}, not {named[strange[0]]}): one of them was replaced or damaged, or "
                    "a save was interrupted; write the checkpoint again, or fetch it again. If the weights were "
                    f'changed on purpose, take "sha256" out of "nfnet_eqx" in {CONFIG_NAME}'
                )
            return dataclasses.replace(ckpt, source=dataclasses.replace(ckpt.source, sha256=found))

        yield Opened(ckpt, tensors, verified)


def adapt(ckpt: Checkpoint, num_classes: int | None, in_channels: int | None) -> Checkpoint:
    """The checkpoint for another number of classes or input channels; `None` leaves it as it is."""
    if num_classes is not None and num_classes != ckpt.config.num_classes:
        ckpt = _with_new_head(ckpt, num_classes)
    if in_channels is not None and in_channels != ckpt.config.in_channels:
        ckpt = dataclasses.replace(ckpt, model=replace_in_channels(ckpt.model, in_channels))
    return ckpt


def version() -> str:
    """The version of this package, as files and cards state it."""
    try:
        return importlib.metadata.version("nfnet-eqx")
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"


def _identity(path: Path) -> list[tuple[int, ...] | None]:
    """What changes when one of a checkpoint's files is replaced."""

    def identity(file: Path) -> tuple[int, ...] | None:
        try:
            info = file.stat()
        except OSError:
            return None
        return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns

    folder = path if path.is_dir() else path.parent
    return [identity(file) for file in (path, *(folder / name for name in (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME)))]


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
    digests = {}
    for path in files:
        with path.open("rb", buffering=0) as file:
            digests[path.name] = digest(file)
    return digests


def _read_config(settings: dict[str, Any]) -> tuple[str, NetworkConfig]:
    """The network, from our own description where there is one, else from timm's."""
    ours = settings.get("nfnet_eqx")
    if ours is None:
        return config_from_timm(settings)
    if not isinstance(ours, dict) or not isinstance(ours.get("config"), dict):
        raise InputError("nfnet_eqx.config must be an object")
    architecture = ours.get("architecture", settings.get("architecture"))
    if not isinstance(architecture, str) or not architecture.isprintable():
        raise InputError(f"architecture must be a name, got {architecture!r}")
    return architecture, config_from_dict(ours["config"])


def _read_digests(digests: Any) -> dict[str, str]:
    """The sha256 of the weights that a config was written for, by the file's name; older ones and timm's name none."""
    if digests is None:
        return {}
    if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
        raise InputError(f"nfnet_eqx.sha256 must be an object from file names to digests, got {digests!r}")
    return digests


def _with_channels_of(tensors: TensorFile, config: NetworkConfig, weights: Path) -> NetworkConfig:
    """The configuration with as many input channels as the weights have: timm's files do not always say how many."""
    spec = tensors.specs.get(f"{config.first_conv}.weight")
    if spec is None or len(spec.shape) != 4 or spec.shape[1] == config.in_channels:
        return config
    try:
        changed = dataclasses.replace(config, in_channels=spec.shape[1])
    except InputError:
        return config
    message = "%s: the weights are for %d input channels, %s says %d; opened for %d"
    _log.warning(message, weights, spec.shape[1], CONFIG_NAME, config.in_channels, spec.shape[1])
    return changed


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
    parameters = named_parameters(model)
    trained = next(iter(parameters.values()))
    for name in parameters:
        if is_below(name, model.config.classifier):
            parameters[name] = jax.device_put(parameters[name].astype(trained.dtype), trained.sharding)
    # Neither the names of the old classes nor the name of the published checkpoint, which this is no more.
    about = {key: value for key, value in ckpt.about.items() if key not in ("label_descriptions", "tag")}
    return dataclasses.replace(ckpt, model=with_parameters(model, parameters), labels=None, about=about)
