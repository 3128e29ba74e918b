"""True npz files: read with suspicion, written whole."""

import io
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.convert._deepmind import read_deepmind, write_deepmind

TREE = {
    "NFNet/~/stem_conv0": {"w": np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2), "bias": np.ones(2, np.float32)},
    "NFNet/~/nf_block": {"skip_gain": np.array(0.5, np.float32)},
}


def same(a: Any, b: Any) -> None:
    assert {m: list(leaves) for m, leaves in a.items()} == {m: list(leaves) for m, leaves in b.items()}
    for module, leaves in a.items():
        for name, leaf in leaves.items():
            np.testing.assert_array_equal(leaf, b[module][name], err_msg=f"{module} {name}", strict=True)


def npy(array: Any, **kwargs: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), **kwargs)
    return file.getvalue()


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as z:
        for name, content in members.items():
            z.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """Writes a file, makes sure that reading it is refused, and returns the message."""

    def refused(content: bytes) -> str:
        path = tmp_path / "hostile.npz"
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_deepmind(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: "), message
        assert "\n" not in message and len(message) < 3000, message
        return message

    return refused


def test_what_is_written_is_read(tmp_path: Path):
    write_deepmind(tmp_path / "a.npz", TREE)
    same(TREE, read_deepmind(tmp_path / "a.npz"))


def test_what_is_written_numpy_reads_without_a_pickle(tmp_path: Path):
    write_deepmind(tmp_path / "a.npz", TREE)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        same(TREE, {m: {n: arrays[f"{m}|{n}"] for n in leaves} for m, leaves in TREE.items()})


def test_the_same_tree_makes_the_same_file(tmp_path: Path):
    for name in ("a.npz", "b.npz"):
        write_deepmind(tmp_path / name, TREE)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_no_pickle_is_written_and_a_failure_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "a.npz"
    write_deepmind(path, TREE)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_deepmind(path, TREE | {"bad": {"w": np.array([object()])}})
    same(TREE, read_deepmind(path))
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    with pytest.raises(InputError, match=r"ends in \.npz"):
        write_deepmind(tmp_path / "a.pickle", TREE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpys_own_files_are_read(tmp_path: Path, save: Callable):
    random = np.random.RandomState(0)
    arrays = {
        "m|c": random.standard_normal((3, 4, 5)).astype(np.float32),
        "m|fortran": np.asfortranarray(random.standard_normal((3, 4, 5, 6)).astype(np.float16)),
        "m|scalar": np.float64(3),
        "m|big": random.standard_normal(2_000_000).astype(">f4"),
    }
    save(tmp_path / "a.npz", **arrays)
    read = read_deepmind(tmp_path / "a.npz")["m"]
    for key, array in arrays.items():
        np.testing.assert_array_equal(read[key[2:]], array, err_msg=key)
        assert read[key[2:]].dtype == np.asarray(array).dtype.newbyteorder("=")


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({}, "no arrays"),
        ({"w.npy": npy(np.ones(2, "f4"))}, "module|name"),
        ({"|w.npy": npy(np.ones(2, "f4"))}, "module|name"),
        ({"m|.npy": npy(np.ones(2, "f4"))}, "module|name"),
        ({"m|w|x.npy": npy(np.ones(2, "f4"))}, "module|name"),
        ({"m|w": npy(np.ones(2, "f4"))}, "module|name"),
        ({"m" * 300 + "|w.npy": npy(np.ones(2, "f4"))}, "module|name"),
        ({"m|w.npy": b"not an array"}, "no npy file"),
        ({"m|w.npy": b"\x93NUM"}, "no npy file"),
        ({"m|w.npy": npy(np.ones(2, "f4"), version=(2, 0))}, "version 2.0"),
        ({"m|w.npy": npy(np.ones(2, "i4"))}, "'<i4'"),
        ({"m|w.npy": npy(np.ones(2, "S4"))}, "'|S4'"),
        ({"m|w.npy": npy(np.ones(2, "f4,f4"))}, "impossible header"),
        ({"m|w.npy": npy(np.ones(2, "f4"))[:-1]}, "8 bytes, but 7 are there"),
        ({"m|w.npy": npy(np.ones(2, "f4")) + b"x"}, "8 bytes, but 9 are there"),
        ({"m|w.npy": npy(np.ones(2, "f4")).replace(b"(2,), ", b"(2**9)", 1)}, "impossible header"),
        (
            {"m|w.npy": npy(np.ones(2, "f4")).replace(b"(2,), }" + b" " * 9, b"(9999999999,), }", 1)},
            "39999999996 bytes",
        ),
        ({"m|w.npy": npy(np.ones(2, "f4")).replace(b"(2,)", b"(-2)", 1)}, "impossible header"),
        ({"m|w.npy": npy(np.ones(2, "f4")).replace(b"v\x00", b"\xff\xff", 1)}, "impossible header"),
    ],
)
def test_a_member_that_is_no_array_of_floats_is_refused(refused: Callable, members: dict, named: str):
    message = refused(archive(members))
    assert named in message, message


def test_all_faults_are_told_at_once(refused: Callable):
    message = refused(
        archive({"a|b.npy": npy(np.ones(2, "i4")), "c": b"", "d|e.npy": b"no", "f|g.npy": npy(np.ones(2))})
    )
    assert "3 faults" in message and all(part in message for part in ("'<i4'", "'c'", "'d|e.npy'")), message


def test_another_codes_file_is_told_from_a_damaged_one(refused: Callable):
    assert "big_vision's ViTs" in refused(archive({"embedding/kernel.npy": npy(np.ones(3, np.float32))}))
    assert "big_vision" not in refused(archive({"a|b.npy": npy(np.ones(3, int))}))


def test_an_array_of_objects_is_refused_and_not_unpickled(refused: Callable, tmp_path: Path):
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    objects = npy(np.array([Payload()]))
    assert b"touch" in objects
    assert "'|O'" in refused(archive({"m|w.npy": objects}))
    assert "'m|w.npy'" in refused(archive({"m|w.npy": pickle.dumps(Payload())}))
    assert not (tmp_path / "ran").exists()


def test_a_member_that_is_there_twice_is_refused(refused: Callable):
    content = archive({"m|a.npy": npy(np.ones(2, "f4")), "m|b.npy": npy(np.ones(2, "f4"))})
    assert "twice" in refused(content.replace(b"m|b", b"m|a"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(refused: Callable, method: int):
    assert "compressed" in refused(archive({"m|w.npy": npy(np.ones(200, "f4"))}, method))


def test_an_encrypted_member_is_refused(refused: Callable):
    content = bytearray(archive({"m|w.npy": npy(np.ones(2, "f4"))}))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in refused(bytes(content))


def test_a_flipped_bit_is_noticed(refused: Callable):
    content = bytearray(archive({"m|w.npy": npy(np.ones(200, "f4"))}))
    content[600] ^= 1
    assert "CRC" in refused(bytes(content))


@pytest.mark.parametrize("cut", [4, 30, 100, 500, -1, -30])
def test_a_file_that_is_cut_off_is_refused(refused: Callable, cut: int):
    refused(archive({"m|w.npy": npy(np.ones(200, "f4"))})[:cut])


def bomb() -> bytes:
    """400 MB of zeros in 400 kB."""
    return archive({"m|w.npy": npy(np.zeros(100_000_000, "f4"))}, zipfile.ZIP_DEFLATED)


def overlapping() -> bytes:
    """Many members that are all the same bytes of the file."""
    content = archive({"m|w.npy": npy(np.zeros(100_000, "f4"))})
    start = content.index(b"PK\1\2")
    entry = content[start : content.index(b"PK\5\6")]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 60_000, 60_000, 60_000 * len(entry), start, 0)
    return content[:start] + entry * 60_000 + end


def endless_directory() -> bytes:
    """A directory of 600,000 members without a name or content."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, *[0] * 14)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 600_000 * len(entry), 4, 0)
    return b"PK\3\4" + entry * 600_000 + end


@pytest.mark.parametrize("make", [bomb, overlapping, endless_directory])
def test_a_bomb_is_refused_before_it_goes_off(refused: Callable, make: Callable[[], bytes]):
    content = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"memory grew by {grown // 1024} MiB"


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), st.booleans()
)
def test_a_damaged_file_is_refused_or_read_as_it_was(tmp_path_factory: Any, edits: list, compressed: bool):
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    members = {f"{m}|{n}.npy": npy(leaf) for m, leaves in TREE.items() for n, leaf in leaves.items()}
    content = bytearray(archive(members, method))
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(content)
    try:
        read = read_deepmind(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        return
    values = [leaf.tolist() for leaves in TREE.values() for leaf in leaves.values()]
    assert all(leaf.tolist() in values for leaves in read.values() for leaf in leaves.values())
