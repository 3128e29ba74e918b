"""Parameter trees in true npz files, with keys `module|name`: written, and read with suspicion.

References:
    NumPy's npy format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

import errno
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_eqx._errors import InputError, first
from nfnet_eqx._files import replacing
from nfnet_eqx.convert._pickle import FLOATS

SEPARATOR = "|"
# The directory of NFNet-F7 takes a quarter of a MiB; one of these makes some 100 MiB of objects.
MAX_DIRECTORY_BYTES = 8 * 2**20
# Trained float32 weights shrink by a tenth. A file that says it unpacks to many times its size is a bomb.
MAX_INFLATION = 4
_CHUNK = 2**20

_HEADER = re.compile(
    r"\{'descr': '(?P<dtype>[^']{1,64})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:[1-9]\d{0,9}, ?){0,3}(?:[1-9]\d{0,9},?)?)\), ?\} *\n"
)


def read_npz(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """The parameter tree of an npz file.

    Args:
        path: a file whose arrays are called `module|name`.

    Returns:
        `{module: {name: array}}`.

    Raises:
        InputError: naming the file and all of its faults.
    """
    path = str(path)
    tree: dict[str, dict[str, np.ndarray]] = {}
    faults: list[str] = []
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            size, unpacked = os.path.getsize(path), sum(member.file_size for member in members)
            if unpacked > MAX_INFLATION * size + _CHUNK:
                raise InputError(f"{path}: {size} bytes that unpack to {unpacked}; no weights shrink so far: refused")
            for member in members:
                try:
                    module, name = _parse_name(member)
                    if name in tree.setdefault(module, {}):
                        raise ValueError("is there twice")
                    tree[module][name] = _read_member(archive, member)
                except (ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as e:
                    faults.append(f"{member.filename[:100]!r} {e}")
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OSError) as error:
        # EINVAL: an offset in the archive points in front of the file. Other OSErrors are not the content's fault.
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        raise InputError(f"{path}: a damaged npz file ({error}); fetch or write it again") from None
    if not faults and not tree:
        faults.append("it holds no arrays")
    if faults and not tree:
        raise InputError(
            f"{path}: is no npz file of DeepMind's NFNets, whose arrays are called module{SEPARATOR}name: "
            f"{first(faults)}. Other codes' files (big_vision's ViTs, say) are not read; nfnet-eqx list --pretrained "
            "names what is"
        )
    if faults:
        raise InputError(f"{path}: an npz file with {len(faults)} faults: {first(faults)}")
    return tree


def write_npz(path: str | os.PathLike[str], tree: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a parameter tree to an npz file, which appears whole or not at all.

    Args:
        path: the file; one that exists is replaced.
        tree: `{module: {name: array}}`.
    """
    with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "x") as archive:
        for module, leaves in tree.items():
            for name, array in leaves.items():
                # Without the time of day in it, the same tree is the same file.
                member = zipfile.ZipInfo(f"{module}{SEPARATOR}{name}.npy")
                with archive.open(member, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


class _Bounded(io.FileIO):
    """A file of which nobody reads much at once: zipfile reads the whole directory, whatever its size."""

    def read(self, size: int | None = -1, /) -> bytes:
        rest = os.fstat(self.fileno()).st_size - self.tell()
        wanted = rest if size is None or size < 0 else min(size, rest)
        if wanted > MAX_DIRECTORY_BYTES:
            raise ValueError(f"its directory has {wanted} bytes")
        return super().read(wanted) or b""


def _parse_name(member: zipfile.ZipInfo) -> tuple[str, str]:
    stem, dot_npy = member.filename[:-4], member.filename[-4:]
    module, bar, name = stem.partition(SEPARATOR)
    if dot_npy != ".npy" or not (module and bar and name) or SEPARATOR in name or len(stem) > 256:
        raise ValueError(f"is no array called module{SEPARATOR}name")
    return module, name


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    # The other methods of zip files decompress without bound.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("is compressed in a way that NumPy does not use")
    with archive.open(member) as file:
        start = file.read(10)
        if start[:6] != b"\x93NUMPY" or len(start) < 10:
            raise ValueError("is no npy file")
        # Version 1 has two bytes of header length, the others four; no float array needs them.
        if start[6:8] != b"\1\0":
            raise ValueError(f"has version {start[6]}.{start[7]} of the npy format; 1.0 holds every array of floats")
        header = file.read(int.from_bytes(start[8:10], "little"))
        match = _HEADER.fullmatch(header.decode("latin-1"))
        if not match:
            raise ValueError(f"has an impossible header {header[:100]!r}")
        if match["dtype"][1:] not in FLOATS or match["dtype"][0] not in "<>=|":
            raise ValueError(f"has dtype {match['dtype']!r}; weights are {', '.join(FLOATS)}")
        dtype = np.dtype(match["dtype"])
        shape = tuple(int(n) for n in match["shape"].split(",") if n.strip())
        count = math.prod(shape) * dtype.itemsize
        if 10 + len(header) + count != member.file_size:
            raise ValueError(f"has shape {shape}, {count} bytes, but {member.file_size - 10 - len(header)} are there")
        data = bytearray()
        while len(data) < count:
            chunk = file.read(min(_CHUNK, count - len(data)))
            if not chunk:
                raise ValueError(f"ends after {len(data)} of {count} bytes")
            data += chunk
    array = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    return array.reshape(shape[::-1]).T if match["fortran"] == "True" else array.reshape(shape)
