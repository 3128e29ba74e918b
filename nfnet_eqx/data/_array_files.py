"""Data sets that are arrays in a file, read into memory: npz, and IDX as MNIST has it.

Both may be compressed, so a small file can claim any size. What an array needs is known before memory is taken for it,
from the header; it is refused where the file does not hold so much, and where the compression is no plausible one.
"""

import gzip
import math
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_eqx._errors import InputError, first
from nfnet_eqx.data._sources import MAX_CLASSES, Arrays, one_line

# A compressed array may always take half a gigabyte, and more where the file is that large: photos shrink to a half,
# MNIST to a fifth, drawings in black and white to a twentieth.
_FREE_BYTES = 2**29
_RATIO = 32

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def open_npz(paths: Sequence[Path], name: str) -> Arrays:
    """The images, labels and perhaps class names of an `.npz` file.

    Raises:
        InputError: it is damaged, lacks an array, or holds other than plain ones.
    """
    path = paths[0]
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            missing = [key for key in ("images", "labels") if key not in members]
            if missing:
                raise InputError(f"{path}: has no array {' and no '.join(missing)}; there are {first(list(members))}")
            images, labels = (_read_array(archive, members[key]) for key in ("images", "labels"))
            classes = _as_names(_read_array(archive, members["classes"])) if "classes" in members else None
    except InputError:
        raise
    except Exception as error:  # of a damaged file, zipfile and numpy raise anything: TokenError, KeyError, ...
        reason = one_line(error)
        raise InputError(f"{path}: is no npz file of plain arrays, or damaged ({reason}); write it again") from None
    return Arrays(images, labels, classes, str(path))


def open_idx(paths: Sequence[Path], name: str) -> Arrays:
    """The images of an IDX file, and the labels in the one that belongs to it.

    Raises:
        InputError: one is missing, damaged, or of another rank.
    """
    images = paths[0]
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    return Arrays(_read_idx(images, 3), _read_idx(labels, 1), None, f"{images} and {labels.name}")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # what numpy writes; others need memory
        raise ValueError(f"{member.filename!r} is compressed by method {member.compress_type}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{member.filename!r} has the header of version {version}")
        shape, _, dtype = _HEADERS[version](file)
        size, held = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"{member.filename!r} holds {dtype}, which is no plain array")
    if min(shape, default=1) < 0 or size != held:
        raise ValueError(f"{member.filename!r} holds {held} bytes where {dtype} of shape {shape} needs {size}")
    _check_ratio(size, member.compress_size)
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _as_names(array: np.ndarray) -> list[Any]:
    if array.ndim != 1 or array.dtype.kind not in "USiu" or len(array) > MAX_CLASSES:
        raise ValueError(f"classes are {array.dtype} of shape {array.shape}; they must be text, one a class")
    if array.dtype.kind == "S":
        return np.strings.decode(array, "utf-8").tolist()
    native = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "U" and np.frombuffer(native, np.uint32).max(initial=0) > sys.maxunicode:
        raise ValueError("classes hold what is no character")  # numpy would make strings of it that Python cannot read
    return native.astype(str).tolist()


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """Bytes in the layout of MNIST: 0, 0, 8 (for bytes), the rank, the sizes as big-endian integers, the data."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * rank)
            if header[:4] != bytes((0, 0, 8, rank)) or len(header) < 4 + 4 * rank:
                raise InputError(f"{path}: is no IDX file of bytes with {rank} axes (starts with {header[:4]!r})")
            shape = struct.unpack(f">{rank}I", header[4:])
            needed, on_disk = math.prod(shape), path.stat().st_size
            _check_ratio(needed, on_disk)
            data = file.read(needed)
            more = len(file.read(2**20)) if len(data) == needed else 0
    except InputError:
        raise
    except Exception as error:  # gzip has many words for damage
        raise InputError(f"{path}: is missing or damaged ({one_line(error)}); fetch it again") from None
    if len(data) + more != needed:
        held = f"{len(data) + more}{' or more' if more == 2**20 else ''}"
        raise InputError(f"{path}: holds {held} bytes where shape {shape} needs {needed}; fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _check_ratio(size: int, on_disk: int) -> None:
    if size > max(_FREE_BYTES, _RATIO * on_disk):
        raise ValueError(f"it claims {size:,} bytes in {on_disk:,}, more than {_RATIO} times as many")
