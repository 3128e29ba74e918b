"""Damaged data files of every format: each opens and reads, or is one error that names it."""

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import decode, open_source
from tests.pipeline.test_sources import write_idx, write_parquet, write_records

Mutate = Callable[[bytes], bytes]


@st.composite
def mutations(draw: st.DrawFn) -> Mutate:
    """Ways to damage a file: some bytes replaced, a part cut out, doubled, or the end lost.

    Headers stand at the beginning or the end, so places are drawn from there half of the time.
    """
    kind = draw(st.sampled_from(["bytes", "bytes", "cut", "double", "truncate"]))
    shares = st.floats(0, 1, exclude_max=True)
    near = st.integers(0, 600)
    places = draw(st.lists(st.tuples(st.sampled_from(["start", "end", "any"]), near, shares), min_size=1, max_size=4))
    # Of digits and marks, too: they change what a header says, and leave it one.
    values = draw(
        st.lists(st.one_of(st.integers(0, 255), st.sampled_from(b"09(){}'|<>-,:$ \xff\x80\0")), min_size=4, max_size=4)
    )
    length = draw(st.integers(1, 64))

    def mutate(data: bytes) -> bytes:
        at = []
        for where, offset, share in places:
            place = {"start": offset, "end": len(data) - 1 - offset, "any": int(share * len(data))}[where]
            at.append(min(max(place, 0), len(data) - 1))
        changed = bytearray(data)
        if kind == "bytes":
            for place, value in zip(at, values, strict=False):
                changed[place] = value
        elif kind == "cut":
            del changed[at[0] : at[0] + length]
        elif kind == "double":
            changed[at[0] : at[0]] = data[at[0] : at[0] + length]
        else:
            del changed[at[0] :]
        return bytes(changed)

    return mutate


def inside_npz(data: bytes, mutate: Mutate) -> bytes:
    """The arrays are damaged, and the zip file around them is whole; else its checksums would catch everything."""
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutate(content[:160]) + content[160:], zipfile.ZIP_DEFLATED)
    return changed.getvalue()


def inside_tar(data: bytes, mutate: Mutate) -> bytes:
    """What is still at the place of a header gets the checksum of one."""
    changed = bytearray(mutate(data))
    for start in range(0, len(changed) - 511, 512):
        if changed[start + 257 : start + 262] == b"ustar":
            header = changed[start : start + 512]
            header[148:156] = b" " * 8
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(header)
    return bytes(changed)


def inside_gzip(data: bytes, mutate: Mutate) -> bytes:
    return gzip.compress(mutate(gzip.decompress(data)), 1)


def outside(data: bytes, mutate: Mutate) -> bytes:
    return mutate(data)


def make_npz(folder: Path, jpegs: list[bytes]) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)
    names = np.array(["cat", "dog", "owl"])
    np.savez_compressed(folder / "train.npz", images=images, labels=np.array([0, 1, 2]), classes=names)
    return folder / "train.npz"


def make_tar(folder: Path, jpegs: list[bytes], form: int) -> Path:
    with tarfile.open(folder / "x.tar", "w", format=form) as tar:
        for index in range(3):
            name = f"{'long/' * 30 if index == 1 else ''}photo_{index}"  # of a name that needs a header of its own
            for suffix, data in ((".cls", b"%d" % index), (".jpg", jpegs[index])):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder / "x.tar"


def make_idx(folder: Path, suffix: str) -> Path:
    write_idx(folder / f"train-labels-idx1-ubyte{suffix}", np.arange(3, dtype=np.uint8))
    write_idx(folder / f"train-images-idx3-ubyte{suffix}", np.arange(60, dtype=np.uint8).reshape(3, 5, 4))
    return folder / f"train-images-idx3-ubyte{suffix}"


def make_parquet(folder: Path, jpegs: list[bytes]) -> Path:
    write_parquet(folder / "x.parquet", jpegs[:3], [0, 1, 2], names=["cat", "dog", "owl"])
    return folder / "x.parquet"


def make_records(folder: Path, jpegs: list[bytes]) -> Path:
    write_records(folder / "x.array_record", jpegs[:3], [0, 1, 2])
    return folder / "x.array_record"


def read_all(folder: Path) -> None:
    """Open a folder and look at every image; an `InputError` is as good."""
    try:
        source = open_source(folder, "train")
    except InputError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
        return
    assert source.num_classes >= 1
    for index in range(len(source)):
        try:
            example = source[index]
            assert 0 <= example.label < source.num_classes
            decode(example)
        except InputError as error:
            assert str(folder) in str(error)


def tar_of(form: int) -> Callable[[Path, list[bytes]], Path]:
    return lambda folder, jpegs: make_tar(folder, jpegs, form)


def idx_of(suffix: str) -> Callable[[Path, list[bytes]], Path]:
    return lambda folder, jpegs: make_idx(folder, suffix)


# How each is written, how it is damaged, and how often.
FORMATS: dict[str, tuple[Callable[[Path, list[bytes]], Path], Callable[[bytes, Mutate], bytes], int]] = {
    "npz": (make_npz, outside, 200),
    "arrays of an npz": (make_npz, inside_npz, 300),
    "ustar": (tar_of(tarfile.USTAR_FORMAT), inside_tar, 150),
    "gnu tar": (tar_of(tarfile.GNU_FORMAT), inside_tar, 150),
    "pax tar": (tar_of(tarfile.PAX_FORMAT), inside_tar, 150),
    "idx": (idx_of(""), outside, 100),
    "idx.gz": (idx_of(".gz"), outside, 100),
    "idx in gz": (idx_of(".gz"), inside_gzip, 100),
    "parquet": (make_parquet, outside, 40),
    "array_record": (make_records, outside, 60),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused_by_name(name: str, tmp_path: Path, jpegs: list[bytes]):
    make, apply, examples = FORMATS[name]
    path = make(tmp_path, jpegs)
    whole = path.read_bytes()
    read_all(tmp_path)

    @settings(max_examples=int(os.environ.get("FUZZ", examples)), suppress_health_check=list(HealthCheck))
    @given(mutations())
    def damage(mutate: Mutate):
        path.write_bytes(apply(whole, mutate))
        read_all(tmp_path)

    damage()
