"""A folder of class folders: which of its files are images, and what is left out."""

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from nfnet_eqx._class_names import check_class_names, nfc
from nfnet_eqx._errors import InputError, first
from nfnet_eqx.data._sources import Example, read_image
from nfnet_eqx.images import SUFFIXES

# What disk stations, archivers and file managers leave beside images: thumbnails of them, wastebaskets, notes.
_LITTER = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "@recycle",
        "__macosx",
        "desktop.ini",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)

_Identity = tuple[int, int]  # of a folder, by whatever links it was reached: device and inode


class ImageFolder:
    """A folder that holds a folder of images for each class; their sorted names are the classes.

    All that lies below a class folder belongs to the class, behind links too, and twice where two links lead to it; a
    link back to a folder that it lies in is not followed.

    Attributes:
        left_out: what is no image of a class, by kind and count: files of unknown suffixes, hidden ones, thumbnails,
            links that lead nowhere or back.

    Raises:
        InputError: there is no folder of images in it, a class has none, or a name cannot be that of a class.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.name = os.fspath(folder)
        try:
            images, self.left_out = _search(self.name)
        except OSError as error:
            raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror}); check who may") from None
        names = sorted(images, key=nfc)
        self.classes = check_class_names(names, self.name, "rename the folder")
        self.num_classes = len(names)
        self._files = [f"{name}/{file}" for name in names for file in images[name]]
        self._labels = np.repeat(np.arange(len(names)), [len(images[name]) for name in names])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: SupportsIndex) -> Example:
        path = f"{self.name}/{self._files[index]}"
        return Example(read_image(path, path), int(self._labels[index]), path)


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or what systems and tools leave everywhere."""
    return name.startswith(".") or name.lower() in _LITTER


def kind(name: str) -> str:
    """What to call a file that is left out: its suffix, where it has one."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix[1:].isalnum() else "other files"


def kinds(left_out: Mapping[str, int]) -> str:
    """What was left out in one line, the most frequent first."""
    often = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return first([f"{kind} ({count:,})" for kind, count in often])


def _search(root: str) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The images of each class, and what else there is."""
    above = {_identity(folder) for folder in (Path(root), *Path(root).resolve().parents)}
    images: dict[str, list[str]] = {}
    left_out: Counter[str] = Counter()
    empty: list[str] = []
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            what = _what(entry)
            if what == "file":
                left_out[f"{kind(entry.name)} beside the class folders"] += 1
            elif what not in ("folder", "broken links"):
                left_out[what] += 1
            else:  # a link that leads nowhere may have been a class
                found, others = _images(entry.path, above) if what == "folder" else ([], {what: 1})
                left_out.update(others)
                images[entry.name] = found
                if not found:
                    empty.append(f"{entry.name!r} ({kinds(others) or 'empty'})")
    if len(empty) == len(images):
        why = f" ({first(empty) or kinds(left_out)})" if left_out or empty else ""
        raise InputError(f"{root}: holds no pictures: no folder of them for each class, no archives, no arrays{why}")
    if empty:
        raise InputError(
            f"{root}: class folders without an image of a known format: {first(empty)}; save their images as JPEG or "
            "PNG, mend the links, or take the folders out"
        )
    return images, dict(left_out)


def _images(folder: str, above: set[_Identity]) -> tuple[list[str], Counter[str]]:
    """The images below a folder, relative to it and sorted; and what else there is, by kind and count."""
    images: list[str] = []
    left_out: Counter[str] = Counter()
    waiting = [("", above)]
    while waiting:
        inside, above = waiting.pop()
        path = os.path.join(folder, inside)
        if (here := _identity(path)) in above:
            left_out["links back to a folder above"] += 1
            continue
        with os.scandir(path) as entries:
            for entry in entries:
                what = _what(entry)
                if what == "folder":
                    waiting.append((f"{inside}{entry.name}/", above | {here}))
                elif what == "file" and os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    images.append(inside + entry.name)
                else:
                    left_out[kind(entry.name) if what == "file" else what] += 1
    return sorted(images), left_out


def _what(entry: os.DirEntry[str]) -> str:
    """Whether it is a `"file"` or a `"folder"`, or the kind of what is left out."""
    if is_litter(entry.name):
        return "hidden" if entry.name.startswith(".") else entry.name
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:  # a link to itself
        pass
    return "broken links" if entry.is_symlink() else "devices and pipes"


def _identity(folder: str | Path) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
