"""From a path to a source: what is there decides."""

import gzip
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.data._shards import ArrayRecords, ParquetFiles, TarFiles
from nfnet_eqx.data._sources import Arrays, ImageFolder, Source

Split = Literal["train", "validation"]

# What the splits are called, the best name first: of ImageNet's three splits, "test" has no labels. "t10k" is MNIST's.
_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "test", "t10k"),
}


def open_source(path: Path, split: Split, *, whole: bool = False) -> Source:
    """The pictures of one split of a data set on disk.

    A folder named after the split (`train`; `validation`, `valid`, `val` or `test`) is entered first. Then the first of
    these that is there is opened: webdataset `.tar` files, Hugging Face `.parquet` files, `.array_record` files,
    `train.npz` and `test.npz` (`images`, `labels` and perhaps `classes`), IDX files as MNIST's, a folder of pictures
    for each class. Files that carry the name of a split (`train-0001.tar`) are chosen by it, and what carries none is
    for training. `digits`, where nothing of that name exists, is scikit-learn's: every fifth picture is for validation.

    Args:
        path: the folder.
        split: which part of it.
        whole: where nothing in the folder carries the name of a split, all of it is meant.

    Raises:
        InputError: the path or the split does not exist, there is nothing to open, or a file is damaged or contradicts
            itself; the message names it.
    """
    if str(path) == "digits" and not path.exists():
        return _digits(split)
    if not path.is_dir():
        raise InputError(f"{path}: " + ("is a file; name its folder" if path.exists() else "does not exist; check it"))
    try:
        folder = next((path / name for name in _NAMES[split] if (path / name).is_dir()), path)
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        files = [name for name in names if (folder / name).is_file()]
        for pattern, opener in _KINDS:
            found = [name for name in files if re.fullmatch(pattern, name)]
            if found:
                chosen = (
                    found
                    if folder != path
                    else _of_split(found, "train" if whole and not _named(found) else split, path)
                )
                return opener([folder / name for name in chosen], str(folder))
        folders = [name for name in names if name not in files]
        others = [name for name in folders if any(name in known for known in _NAMES.values())]  # these are no classes
        if folder == path and (others or (folders and split != "train" and not whole)):
            raise _no_split(others or folders, split, path)
        return ImageFolder(folder)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check who may") from None


def _named(names: Sequence[str]) -> bool:
    """Whether one of the files carries the name of a split."""
    words = {word for name in names for word in re.split(r"[^a-z0-9]+", name.lower())}
    return any(words & set(known) for known in _NAMES.values())


def _of_split(names: Sequence[str], split: Split, path: Path) -> list[str]:
    """The names that carry the best name of the split; those that carry none are for training."""
    words = {name: re.split(r"[^a-z0-9]+", name.lower()) for name in names}
    for word in _NAMES[split]:
        chosen = [name for name in names if word in words[name]]
        if chosen:
            return chosen
    chosen = [name for name in names if not any(set(words[name]) & set(known) for known in _NAMES.values())]
    if split == "train" and chosen:
        return chosen
    raise _no_split(names, split, path)


def _no_split(names: Sequence[str], split: Split, path: Path) -> InputError:
    there = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return InputError(f"{path}: has no {split} split; there is {there}; name a folder or files {_NAMES[split][0]}")


def _open_npz(paths: Sequence[Path], name: str) -> Arrays:
    path = paths[0]
    try:
        # Opened here, since np.load leaves a file open that it cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [key for key in ("images", "labels") if key not in file]
            if missing:
                raise InputError(f"{path}: has no array {' and no '.join(missing)}; there are {', '.join(file)}")
            images, labels = file["images"], file["labels"]
            classes = [str(label) for label in file["classes"]] if "classes" in file else None
    except (zipfile.BadZipFile, zlib.error, ValueError, TypeError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no npz file of plain arrays, or damaged ({error}); write it again") from None
    return Arrays(images, labels, classes, str(path))


def _open_idx(paths: Sequence[Path], name: str) -> Arrays:
    images = paths[0]
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    return Arrays(_read_idx(images, 3), _read_idx(labels, 1), None, f"{images} and {labels.name}")


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """Bytes in the layout of MNIST: 0, 0, 8 (for bytes), the rank, the sizes as big-endian integers, the data."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * rank)
            if header[:4] != bytes((0, 0, 8, rank)) or len(header) < 4 + 4 * rank:
                raise InputError(f"{path}: is no IDX file of bytes with {rank} axes (starts with {header[:4]!r})")
            shape = struct.unpack(f">{rank}I", header[4:])
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is missing or damaged ({error}); fetch it again") from None
    if len(data) != math.prod(shape):
        raise InputError(
            f"{path}: holds {len(data)} bytes where shape {shape} needs {math.prod(shape)}; fetch it again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _digits(split: Split) -> Arrays:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError("digits: needs scikit-learn: pip install scikit-learn") from None
    digits: Any = load_digits()
    chosen = (np.arange(len(digits.images)) % 5 == 4) == (split == "validation")
    images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    return Arrays(images, digits.target[chosen], [str(digit) for digit in digits.target_names], "digits")


# What is opened in a folder, the first that is there; no match: class folders. tfds counts after the suffix.
_KINDS = (
    (r".*\.tar", TarFiles),
    (r".*\.parquet", ParquetFiles),
    (r".*\.array_record(-\d+-of-\d+)?", ArrayRecords),
    (r"(train|test)\.npz", _open_npz),
    (r"(train|t10k)-images-idx3-ubyte(\.gz)?", _open_idx),
)
