"""Hostile data files: small ones that claim much memory, and tars whose members are no plain files of plain names."""

import gzip
import io
import os
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Augment, _array_files, open_source, train_stream
from tests.pipeline.test_fuzz import inside_tar, make_records

# --- bombs, made small by a small bound ---


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_array_files, "_FREE_BYTES", 2**20)


def peak_mib(folder: Path) -> tuple[float, str]:
    """What opening a folder takes in memory, and what it is refused with."""
    refusal = ""
    tracemalloc.start()
    try:
        open_source(folder, "train")
    except InputError as error:
        refusal = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / 2**20, refusal


@pytest.mark.parametrize("key", ["images", "labels", "classes"])
def test_a_small_npz_cannot_take_much_memory(key: str, tmp_path: Path, little_memory: None):
    arrays = {"images": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(3, int), "classes": np.array(["a"])}
    large = {"images": (16_000, 32, 32), "labels": 2_000_000, "classes": 4_000_000}[key]
    np.savez_compressed(tmp_path / "train.npz", **arrays | {key: np.zeros(large, arrays[key].dtype)})
    peak, refusal = peak_mib(tmp_path)
    assert peak < 2
    assert f"{tmp_path / 'train.npz'}: is no npz file" in refusal and "it claims 16," in refusal


def test_names_of_classes_in_an_npz_may_be_bytes_and_must_be_characters(tmp_path: Path):
    arrays = {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.arange(2)}
    for names in (["Löwe", "b"], ["Löwe".encode(), b"b"], np.array(["Löwe", "b"], ">U4")):
        np.savez(tmp_path / "train.npz", **arrays, classes=names)
        assert open_source(tmp_path, "train").classes == ("Löwe", "b")
    beyond = np.array([[1, 0x7FFFFFFF]], np.uint32).view("<U2")[0]  # of such a string, Python itself breaks
    for names in (
        [b"L\xf6we", b"b"],
        beyond,
        np.zeros((2, 1), "<U1"),
        np.array([0.5, 1.5]),
        np.zeros(2**20 + 1, "<U1"),
    ):
        np.savez(tmp_path / "train.npz", **arrays, classes=names)
        assert f"{tmp_path / 'train.npz'}: is no npz file of plain arrays" in peak_mib(tmp_path)[1]


def test_a_large_npz_that_is_not_compressed_is_no_bomb(tmp_path: Path, little_memory: None):
    np.savez(tmp_path / "train.npz", images=np.zeros((4_000, 32, 32), np.uint8), labels=np.zeros(4_000, int))
    assert len(open_source(tmp_path, "train")) == 4_000


def test_a_small_gz_cannot_take_much_memory(tmp_path: Path, little_memory: None):
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", 16_000, 32, 32)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(header + bytes(16_000 * 32 * 32), 1))
    peak, refusal = peak_mib(tmp_path)
    assert peak < 2 and f"{path}: is missing or damaged (it claims 16,384,000 bytes" in refusal
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 1, 4, 4) + bytes(2**24), 1))
    peak, refusal = peak_mib(tmp_path)  # more than it says
    assert peak < 4 and "holds 1048592 or more bytes where shape (1, 4, 4) needs 16" in refusal


def test_one_long_name_is_as_long_as_it_is(tmp_path: Path, write_tar: Callable[..., Path]):
    members = {f"{i}{suffix}": b"0" for i in range(2_000) for suffix in (".cls", ".jpg")}
    long = "x" * 100_000
    write_tar(tmp_path / "x.tar", members | {f"{long}.cls": b"1", f"{long}.jpg": b"0"})
    peak, refusal = peak_mib(tmp_path)
    assert (refusal, peak < 20) == ("", True)  # of fixed width, the names alone would be 190
    source = open_source(tmp_path, "train")
    assert [source[i].name for i in (0, 1_999, 2_000)] == [f"{tmp_path}/x.tar:{n}.jpg" for n in (0, 1_999, long)]


def test_parquet_of_more_rows_than_bytes_is_refused(tmp_path: Path):
    pytest.importorskip("datasets")
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": [b"x"] * 100_000, "label": [0] * 100_000})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert "x.parquet claims 100,000 rows" in peak_mib(tmp_path)[1]


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path, class_folder: Path):
    path = class_folder / "a" / "0.jpg"
    os.truncate(path, 2**40)  # holes take no room
    with pytest.raises(InputError, match=r"a/0\.jpg: is too large for an image"):
        _ = open_source(class_folder, "train")[0]


# --- members of tars that are no plain files or have no plain names ---


def sparse(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member as `tar --sparse` writes it: in the old GNU format, with a terabyte of nothing after the content."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(content)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(content))  # one piece: offset and size
    header[483:495] = b"%011o\0" % 2**32  # the real size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert tar.fileobj is not None
    tar.fileobj.write(bytes(header) + content + bytes(-len(content) % 512))
    tar.offset += 512 + len(content) + -len(content) % 512


def test_a_sparse_member_is_a_broken_picture_and_the_others_are_read(tmp_path: Path, jpegs: list[bytes]):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, content in (("a.cls", b"0"), ("b.cls", b"1"), ("b.jpg", jpegs[1])):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        sparse(tar, "a.jpg", jpegs[0])
    source = open_source(tmp_path, "train")
    with pytest.raises(InputError, match=r"x\.tar:a\.jpg: is stored sparse"):
        _ = [source[i] for i in range(2) if source[i].label == 0]
    batches = train_stream(source, Augment(), image_size=8, batch_size=2, seed=0)
    assert next(batches).label.tolist() == [1, 1]
    batches.close()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files_are_named(kind: bytes, tmp_path: Path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = kind, "b.jpg"
        tar.addfile(link)
    assert "x.tar:a.jpg: is a link or device" in peak_mib(tmp_path)[1]


def test_members_with_names_of_other_systems_are_read(
    tmp_path: Path, write_tar: Callable[..., Path], jpegs: list[bytes]
):
    latin = os.fsdecode("Löwe".encode("latin-1"))
    members = {f"{latin}.jpg": jpegs[0], f"{latin}.cls": b"0", f"._{latin}.jpg": b"of a Mac", ".DS_Store": b""}
    write_tar(tmp_path / "x.tar", members)
    source = open_source(tmp_path, "train")
    assert len(source) == 1 and source[0].name == f"{tmp_path}/x.tar:{latin}.jpg"


def test_a_label_too_large_for_a_class_is_refused(tmp_path: Path, write_tar: Callable[..., Path]):
    write_tar(tmp_path / "x.tar", {"a.jpg": b"", "a.cls": b"9" * 30})
    assert "x.tar:a.cls: b'999" in peak_mib(tmp_path)[1]
    np.savez(tmp_path / "train.npz", images=np.zeros((1, 4, 4), np.uint8), labels=np.array([2**62]))
    (tmp_path / "x.tar").unlink()
    assert "train.npz: label 4611686018427387904 (of picture 0) is no class" in peak_mib(tmp_path)[1]


def test_a_member_that_claims_more_than_the_tar_holds_is_refused(tmp_path: Path, write_tar: Callable[..., Path]):
    path = write_tar(tmp_path / "x.tar", {"a.cls": b"0", "a.jpg": b"0"})
    data = bytearray(path.read_bytes())
    for size in (b"77777777777\0", b"\xff" * 10 + b"\xfc\0"):  # eight gigabytes; a negative number
        data[1024 + 124 : 1024 + 136] = size
        path.write_bytes(inside_tar(bytes(data), lambda same: same))
        peak, refusal = peak_mib(tmp_path)
        assert peak < 2 and f"{path}: is no tar archive, or damaged" in refusal


def test_names_of_classes_that_are_no_text_are_refused(tmp_path: Path, jpegs: list[bytes]):
    make_records(tmp_path, jpegs)
    (tmp_path / "label.labels.txt").write_bytes(b"cat\nd\xf6g\nowl\n")
    assert "label.labels.txt: cannot be read as UTF-8" in peak_mib(tmp_path)[1]
    (tmp_path / "label.labels.txt").write_bytes(b"cat\nd\x1bg\nowl\n")
    assert "label.labels.txt: the name of class 1 must be plain text" in peak_mib(tmp_path)[1]
    (tmp_path / "label.labels.txt").write_bytes(b"a\n" * 2**22)
    assert "label.labels.txt: is larger than" in peak_mib(tmp_path)[1]
    (tmp_path / "label.labels.txt").write_text("cat\nd\u2028g\r\n\nowl", "utf-8")
    assert open_source(tmp_path, "train").classes == ("cat", "d\u2028g", "owl")
