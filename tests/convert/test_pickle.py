"""Hostile and damaged pickles: refused with a reason, and nothing in them is ever run."""

import functools
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.convert import _opcodes
from nfnet_eqx.convert._deepmind import open_deepmind, read_deepmind

DATA = Path(__file__).parents[1] / "data" / "deepmind"
FORMS = sorted((DATA / "forms").glob("*.npz"))


class Call:
    """Pickles as a call of `function`: what loading the pickle would run."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def program(*parts: bytes) -> bytes:
    return b"\x80\x05" + b"".join(parts) + b"."


def tree(leaf: bytes) -> bytes:
    return program(b"}", text("module"), b"}", text("name"), leaf, b"s", b"s")


DTYPE = call(name("numpy", "dtype"), text("f4"), b"\x89", b"\x88")
DTYPE_STATE = b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
EMPTY_ARRAY = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")


def array(shape: bytes = b"K\x02\x85", dtype: bytes = DTYPE + DTYPE_STATE, data: bytes = b"C\x08" + bytes(8)) -> bytes:
    return EMPTY_ARRAY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """Writes a file, makes sure that reading it is refused and runs nothing, and returns the message."""

    def refused(content: bytes) -> str:
        path, before = tmp_path / "hostile_haiku.npz", set(sys.modules)
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_deepmind(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: "), message
        assert "\n" not in message and len(message) < 3000, message
        assert not (tmp_path / "ran").exists(), "the payload ran"
        assert not {"dill", "haiku", "this", "antigravity"} & (set(sys.modules) - before), "a module was imported"
        return message

    return refused


def test_what_the_programs_here_are_made_of_is_read(tmp_path: Path):
    (tmp_path / "good.npz").write_bytes(tree(array()))
    read = read_deepmind(tmp_path / "good.npz")
    np.testing.assert_array_equal(read["module"]["name"], np.zeros(2, np.float32), strict=True)
    assert pickle.loads(tree(array())).keys() == read.keys()


def test_the_marker_of_a_payload_that_runs_is_noticed(tmp_path: Path):
    pickle.loads(pickle.dumps(Call(os.system, f"touch {tmp_path / 'ran'}")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ["touch {ran}"], "posix.system"),
        (eval, ["__import__('pathlib').Path('{ran}').touch()"], "builtins.eval"),
        (exec, ["open('{ran}', 'w')"], "builtins.exec"),
        (open, ["{ran}", "w"], "io.open"),
        (Path.touch, [Path("{ran}")], "pathlib"),
        (subprocess.check_call, [("touch", "{ran}")], "subprocess.check_call"),
        (np.load, ["{ran}", None, True], "numpy.load"),
        (functools.reduce, [getattr, ("__class__", "__base__"), ()], "functools.reduce"),
        (__import__, ["antigravity"], "builtins.__import__"),
    ],
)
def test_a_call_is_refused_by_name(
    refused: Callable, tmp_path: Path, protocol: int, function: Callable, arguments: list, named: str
):
    arguments = [a.replace("{ran}", str(tmp_path / "ran")) if isinstance(a, str) else a for a in arguments]
    hidden = {"module": {"good": np.zeros(2, np.float32), "name": Call(function, *arguments)}}
    for content in (Call(function, *arguments), hidden):
        message = refused(pickle.dumps(content, protocol, fix_imports=False))
        assert named in message, message


def test_all_that_a_file_asks_for_is_named(refused: Callable):
    system = Call(getattr, Call(__import__, "os"), "system")
    message = refused(pickle.dumps({"a": {"b": system, "c": Call(os.popen, "true")}, "d": Call(eval, "1")}))
    assert all(named in message for named in ("builtins.getattr", "builtins.__import__", "os.popen", "builtins.eval"))


IMPORT = name("dill._dill", "_import_module")
ATTRIBUTE = name("dill._dill", "_get_attr")
MULTIARRAY = call(IMPORT, text("numpy.core.multiarray"))


@pytest.mark.parametrize(
    ("leaf", "named"),
    [
        (call(IMPORT, text("os")), "_import_module('os')"),
        (call(IMPORT, text("antigravity")), "_import_module('antigravity')"),
        (call(IMPORT, text("numpy.core.multiarray.os")), "_import_module('numpy.core.multiarray.os')"),
        (call(ATTRIBUTE, call(IMPORT, text("os")), text("system")), "_import_module('os')"),
        (call(ATTRIBUTE, MULTIARRAY, text("fromfile")), "_get_attr(the global 'numpy.core.multiarray', 'fromfile')"),
        (call(ATTRIBUTE, MULTIARRAY, text("__loader__")), "'__loader__'"),
        (call(ATTRIBUTE, name("numpy", "ndarray"), text("tofile")), "'tofile'"),
        (call(ATTRIBUTE, MULTIARRAY, b"N"), "the value None"),
        (call(name("dill._dill", "loads"), b"C\x00"), "dill._dill.loads"),
        (call(name("dill._dill", "_create_type"), name("builtins", "type"), text("T"), b")", b"}"), "_create_type"),
        (call(name("dill._dill", "_create_function"), b"N", b"}"), "_create_function"),
        (call(name("dill._dill", "_load_type"), text("FunctionType")), "_load_type"),
        (call(name("dill._dill", "_eval_repr"), text("1")), "_eval_repr"),
        (
            call(name("dill._dill", "_create_array"), name("os", "system"), b"(" + text("true") + b"t", b"N"),
            "os.system",
        ),
        (call(name("dill._dill", "_create_array"), EMPTY_ARRAY, b")", b"N"), "_create_array"),
        (call(name("_codecs", "encode"), text("x"), text("rot13")), "'rot13'"),
        (call(name("_codecs", "decode"), text("x"), text("zlib")), "_codecs.decode"),
        (call(name("numpy", "dtype")), "numpy.dtype()"),
        (call(name("numpy", "ndarray"), b"K\x02\x85"), "numpy.ndarray"),
        (
            call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "matrix"), b"K\x00\x85", b"C\x01b"),
            "matrix",
        ),
        (
            call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), b"K\x09\x85", b"C\x01b"),
            "tuple",
        ),
        (call(name("numpy.core.multiarray", "scalar"), text("O"), b"C\x01b"), "a string for a dtype"),
        (call(name("haiku._src.data_structures", "FlatMapping"), b")"), "FlatMapping(a tuple)"),
        (b"\x8c\x05numpy\x8c\x15core.multiarray.array\x93", "core.multiarray.array"),
        (b"(K\x01ios\nsystem\n", "os.system"),
        (name("numpy\u202e", "ndarray"), "numpy"),
    ],
)
def test_a_loaders_own_functions_serve_arrays_only(refused: Callable, leaf: bytes, named: str):
    for message in (refused(program(leaf)), refused(tree(leaf))):
        assert named in message, message


@pytest.mark.parametrize(
    ("opcodes", "named"),
    [
        (name("numpy", "ndarray") + b")\x81", "NEWOBJ"),
        (name("numpy", "ndarray") + b")}\x92", "NEWOBJ_EX"),
        (b"(" + name("numpy", "ndarray") + b"o", "OBJ"),
        (b"Pid\n", "PERSID"),
        (text("id") + b"Q", "BINPERSID"),
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\x00", "EXT2"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (b"\x97", "NEXT_BUFFER"),
        (b"\x97\x98", "NEXT_BUFFER"),
        (b"]", "EMPTY_LIST"),
        (b"\x8f", "EMPTY_SET"),
        (b"I1\n", "INT"),
        (b"S'x'\n", "STRING"),
        (b"K\x01" + b"2", "DUP"),
        (b"G" + bytes(8), "BINFLOAT"),
        (b"\x80\x05", "PROTO"),
        (b"\xff", "byte"),
        # State given to what has none: a global's attributes could otherwise be set.
        (name("numpy", "ndarray") + b"}" + text("shape") + b"Nsb", "state"),
        (name("dill._dill", "_get_attr") + b"N}" + text("__defaults__") + b")s\x86b", "state"),
        (b"}}b", "state"),
        (b"K\x01)R", "is called"),
        (name("numpy", "dtype") + b"}R", "is called"),
        (DTYPE + b"K\x01" + b"s", "empty stack"),
        (b"K\x01K\x01K\x01s", "not a dictionary"),
        (b"}(K\x01u", "not a dictionary"),
        (b"R", "empty stack"),
        (b"(R", "empty stack"),
        (b"t", "more values"),
        (b"h\x07", "never kept"),
        (b"q\x00", "empty stack"),
        (b"\x94", "empty stack"),
        (b"\x8a\xff" + bytes(255), "255 bytes"),
        (b"\x8c\x02\xff\xfe", "UTF-8"),
        (b"cnumpy", "no end"),
        (b"c" + b"x" * 300 + b"\nx\n", "no end"),
        (b"K\x01K\x02\x93", "two strings"),
        (b"K\x01", "left over"),
    ],
)
def test_an_opcode_out_of_place_is_refused(refused: Callable, opcodes: bytes, named: str):
    message = refused(program(opcodes, b"}"))
    assert named in message, message


@pytest.mark.parametrize(
    ("leaf", "named"),
    [
        (array(call(name("numpy", "dtype"), text("f4"), b"\x89", b"\x88")), "shape"),
        (array(shape=b"J\xff\xff\xff\xff\x85"), "shape"),
        (array(shape=b"K\x00\x85", data=b"C\x00"), "shape"),
        (array(shape=b"\x88\x85", data=b"C\x04" + bytes(4)), "shape"),
        (array(shape=b"(" + b"K\x01" * 40 + b"t", data=b"C\x04" + bytes(4)), "shape"),
        (array(shape=b"J\xff\xff\xff\x7f" * 3 + b"\x87"), "but the file holds 8"),
        (array(shape=b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"), "but the file holds 8"),
        (array(shape=b"K\x01\x85"), "but the file holds 8"),
        (array(data=text("two f4!!")), "not bytes"),
        (array(data=text("x" * 300)), "not bytes"),
        (array(data=b")"), "not bytes"),
        (array(data=b"N"), "not bytes"),
        (array(dtype=b"N"), "dtype"),
        (array(dtype=text("f4")), "dtype"),
        (EMPTY_ARRAY, "not a whole array"),
        (call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88"), "'O8'"),
        (call(name("numpy", "dtype"), text("V8"), b"\x89", b"\x88"), "'V8'"),
        (call(name("numpy", "dtype"), text("i8"), b"\x89", b"\x88"), "'i8'"),
        (call(name("numpy", "dtype"), text("f4,(1000000000,)f4"), b"\x89", b"\x88"), "'f4,"),
        # A version of dtype states that carries metadata; fields; a subarray; flags for objects.
        (DTYPE + DTYPE_STATE.replace(b"K\x03", b"K\x04", 1).replace(b"tb", b"}tb"), "state"),
        (DTYPE + DTYPE_STATE.replace(b"NNN", b"NN}"), "state"),
        (DTYPE + DTYPE_STATE.replace(b"NNN", DTYPE + b")\x86NN"), "state"),
        (DTYPE + DTYPE_STATE.replace(b"K\x00tb", b"K\x3ftb"), "state"),
        (EMPTY_ARRAY + b"(K\x01K\x02\x85" + DTYPE + b"\x89tb", "state"),
        (text("two f4!!"), "not a whole array"),
        (b"K\x01", "not a whole array"),
        (b"}", "not a whole array"),
    ],
)
def test_what_is_no_array_of_floats_is_refused(refused: Callable, leaf: bytes, named: str):
    message = refused(tree(leaf))
    assert named in message, message


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (program(b"N"), "not a dictionary"),
        (program(b")"), "not a dictionary"),
        (program(array()), "not a dictionary"),
        (program(b"}"), "no arrays"),
        (program(b"}", text("module"), b"}s"), "no arrays"),
        (program(b"}", text("module"), array(), b"s"), "not a dictionary of arrays"),
        (program(b"}", b"C\x01m", b"}s"), "for a key"),
        (program(b"}", b")", b"}s"), "for a key"),
        (program(b"}", text("m" * 257), b"}s"), "for a key"),
        (program(b"}", text("m"), b"}s", text("m"), b"}s"), "twice"),
        # A dictionary that contains itself.
        (program(b"}q\x00", text("m"), b"}", text("n"), b"h\x00ss"), "not a whole array"),
        (program(b"}q\x00", text("m"), b"h\x00s"), "not a whole array"),
        (tree(array()) + b"more", "4 bytes follow"),
        (tree(array())[:-1], "ends inside"),
        (b"\x80\x05", "ends inside"),
        (b"\x80\x06}.", "protocol 2 to 5"),
        (b"\x80\x01}.", "protocol 2 to 5"),
        (b"(dp0\n.", "neither a pickle nor an npz"),
        (b"", "empty"),
        (b"\x00" * 100, "neither"),
        (b"\x93NUMPY\x01\x00", "single array"),
    ],
)
def test_what_is_no_tree_is_refused(refused: Callable, content: bytes, named: str):
    message = refused(content)
    assert named in message, message


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 1000, 3000, -1, -2, -100])
def test_a_file_that_is_cut_off_is_refused(refused: Callable, cut: int):
    for form in FORMS:
        refused(form.read_bytes()[:cut])


HUGE = struct.pack("<Q", 2**62)


def laughs() -> bytes:
    """A tuple of tuples ... of tuples: a kilobyte that has 3 ** 200 leaves."""
    return b")q\x00" + b"".join(
        bytes([ord("h"), i, ord("h"), i, ord("h"), i, 0x87, ord("q"), i + 1]) for i in range(200)
    )


def many_names(count: int, size: int) -> bytes:
    """One array under many names."""
    data = b"B" + struct.pack("<I", 4 * size) + bytes(4 * size)
    first = array(shape=b"J" + struct.pack("<I", size) + b"\x85", data=data)
    names = b"".join(text(f"n{i}") + b"h\x00" for i in range(count))
    return program(b"}", text("m"), b"}(", text("n"), first + b"q\x00", names, b"us")


EXPENSIVE = {
    "bytes that are not there": tree(array(data=b"\x8e" + HUGE + bytes(8))),
    "a bytearray that is not there": tree(array(data=b"\x96" + HUGE + bytes(8))),
    "a string that is not there": tree(array(data=b"\x8d" + HUGE + bytes(8))),
    "a place in the memo far away": program(b"}r\xff\xff\xff\xff}r\xff\xff\xff\x7f"),
    "a frame that is not there": program(b"\x95" + HUGE + b"}"),
    "a shape of 2 ** 62": tree(array(shape=b"\x8a\x08" + HUGE + b"\x85")),
    "a billion laughs as a shape": tree(array(shape=laughs())),
    "a billion laughs as a key": program(b"}" + laughs() + b"}s"),
    "a billion laughs as arguments": program(name("numpy", "dtype") + laughs() + b"R"),
    "a billion laughs as a name": program(laughs() + laughs() + b"\x93"),
    "one array under many names": many_names(5_000, 100_000),
    "a tuple 50,000 deep": program(b")" + b"\x85" * 50_000),
    "a dictionary for every two bytes": program(b"}\x94" * 30_000),
    "a name for every ten bytes": program(b"".join(name("a", str(i)) for i in range(20_000))),
    "more opcodes than any network needs": program(b"(" * 2_000_000),
}


@pytest.mark.parametrize("content", EXPENSIVE.values(), ids=list(EXPENSIVE))
def test_a_small_file_cannot_cost_much(refused: Callable, content: bytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500 * 1024, f"memory grew by {grown // 1024} MiB"


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path):
    """Where it is mapped into memory, it is the end of the process (SIGBUS)."""
    path = tmp_path / "F0_haiku.npz"
    shutil.copy(FORMS[0].parents[1] / "T0_dill0.3.3_p3.npz", path)
    with open_deepmind(path) as (tree, _):
        os.truncate(path, 100_000)
        with pytest.raises(InputError, match="F0_haiku.npz: the file became shorter while it was read"):
            for leaves in tree.values():
                for leaf in leaves.values():
                    np.asarray(leaf)


def test_the_largest_network_takes_a_fourth_of_the_opcodes_allowed():
    # About 33 opcodes an array, as dill wrote them in 2021, and 1661 arrays in NFNet-F7.
    assert 33 * 1661 * 4 < _opcodes.MAX_OPCODES


edits = st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=6)


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.sampled_from(FORMS), edits, st.integers(0, 6000), st.binary(max_size=4))
def test_a_damaged_file_is_refused_or_read_as_a_tree_of_floats(form: Path, edits: list, at: int, inserted: bytes):
    content = bytearray(form.read_bytes())
    content[at:at] = inserted
    for place, value in edits:
        content[place % len(content)] = value
    check_read(bytes(content))


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(2, 6000), st.integers(2, 6000))
def test_two_files_spliced_are_refused_or_read_as_a_tree_of_floats(one: Path, other: Path, at: int, behind: int):
    check_read(one.read_bytes()[:at] + other.read_bytes()[behind:])


def check_read(content: bytes) -> None:
    path = Path(os.environ["HF_HOME"]) / "mutated_haiku.npz"
    path.write_bytes(content)
    try:
        read = read_deepmind(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ")
        return
    leaves = [leaf for module in read.values() for leaf in module.values()]
    assert all(type(leaf) is np.ndarray and leaf.dtype in (np.float16, np.float32, np.float64) for leaf in leaves)
    assert all(leaf.dtype.isnative for leaf in leaves)
    assert 0 < sum(leaf.nbytes for leaf in leaves) <= len(content)
