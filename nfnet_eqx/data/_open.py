"""From a path to a source: what is there decides."""

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.data._array_files import open_idx, open_npz
from nfnet_eqx.data._folder import ImageFolder, is_litter, kind, kinds
from nfnet_eqx.data._shards import ArrayRecords, ParquetFiles, TarFiles
from nfnet_eqx.data._sources import Arrays, Source

Split = Literal["train", "validation"]

_log = logging.getLogger(__name__)

# What the splits are called, the best name first: of ImageNet's three splits, "test" has no labels. "t10k" is MNIST's.
_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "test", "t10k"),
}


def open_source(path: str | os.PathLike[str], split: Split, *, whole: bool = False) -> Source:
    """The pictures of one split of a data set on disk.

    A folder named after the split (`train`; `validation`, `valid`, `val` or `test`) is entered first. Then the first of
    these that is there is opened: webdataset `.tar` files, Hugging Face `.parquet` files, `.array_record` files,
    `train.npz` and `test.npz` (`images`, `labels` and perhaps `classes`), IDX files as MNIST's, a folder of pictures
    for each class. Files that carry the name of a split (`train-0001.tar`) are chosen by it, and what carries none is
    for training. `digits`, where nothing of that name exists, is scikit-learn's: every fifth picture is for validation.

    The log says what lies there and is left out, by kind and count (`ImageFolder` says what belongs to a class). A
    compressed array may be 32 times as large as it is in its file, or half a gigabyte.

    Args:
        path: the folder.
        split: which part of it.
        whole: where nothing in the folder carries the name of a split, all of it is meant.

    Raises:
        InputError: the path or the split does not exist, there is nothing to open, a file is damaged or contradicts
            itself, or a class has no images or a name that no checkpoint can hold; the message names it.
    """
    path = Path(path)
    try:
        if str(path) == "digits" and not path.exists():
            return _digits(split)
        if not path.is_dir():
            raise InputError(f"{path}: {_no_folder(path)}")
        source, left_out = _open_folder(path, split, whole)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check who may") from None
    if left_out:
        _log.warning("%s: left out: %s", source.name, kinds(left_out))
    return source


def _no_folder(path: Path) -> str:
    if path.exists():
        return "is a file; name its folder"
    return "does not exist; check it (built in is one data set, `digits`: scikit-learn's 1,797 small images)"


def _open_folder(path: Path, split: Split, whole: bool) -> tuple[Source, Mapping[str, int]]:
    """The source, and what lies beside it and is left out, by kind and count."""
    folder = next((path / name for name in _NAMES[split] if (path / name).is_dir()), path)
    names = sorted(entry.name for entry in folder.iterdir() if not is_litter(entry.name))
    files = [name for name in names if (folder / name).is_file()]
    folders = sorted(set(names) - set(files))
    # In a folder of the split's own name, all is of the split; beside it, the other splits' folders are no classes.
    splits = [name for name in folders if folder == path and any(name in known for known in _NAMES.values())]
    for pattern, opener in _KINDS:
        found = [name for name in files if re.fullmatch(pattern, name)]
        if not found:
            continue
        chosen = found
        if folder == path:
            chosen = _of_split(found, "train" if whole and not _named(found) else split, path)
        classes = sorted(set(folders) - set(splits))
        try:
            source = opener([folder / name for name in chosen], str(folder))
        except InputError as error:
            if not classes:
                raise
            hint = f"or, if the {len(classes)} folders beside {chosen[0]} are the classes, move that away"
            raise InputError(f"{error}; {hint}") from None
        return source, _passed_over(found, chosen, files, classes)
    if splits or (folder == path and folders and split != "train" and not whole):
        raise _no_split(splits or folders, split, path)
    source = ImageFolder(folder)
    return source, source.left_out


def _passed_over(
    found: Sequence[str], chosen: Sequence[str], files: Sequence[str], classes: Sequence[str]
) -> Mapping[str, int]:
    """What could have been meant instead of the files that are opened, or as well."""
    opened = kind(chosen[0])
    others = set(files) - set(found)
    data = [name for name in others if any(re.fullmatch(pattern, name) for pattern, _ in _KINDS)]
    nameless = [name for name in found if name not in chosen and not _named([name])]
    left_out = Counter(f"{kind(name)} beside {opened}" for name in data)
    left_out += Counter(f"{kind(name)} without the name of a split" for name in nameless)
    return left_out + Counter({f"folders beside {opened}": len(classes)})  # a sum keeps what is there


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
    (r"(train|test)\.npz", open_npz),
    (r"(train|t10k)-images-idx3-ubyte(\.gz)?", open_idx),
)
