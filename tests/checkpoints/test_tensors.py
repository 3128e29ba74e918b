"""Safetensors files in and out, and the strict loader."""

import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints._tensors import load_tensors, open_safetensors, read_safetensors, write_safetensors
from nfnet_eqx.models import named_parameters, skeleton
from nfnet_eqx.models._config import NFNetConfig

TINY = NFNetConfig(
    depths=(1,), widths=(16,), stem_widths=(8,), stem_strides=(2,), stage_strides=(2,), group_size=8, num_classes=3
)
BFLOAT16 = np.dtype(jnp.bfloat16)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    """Parameters of TINY by name, none of them zero."""
    rng = np.random.default_rng(0)
    wanted = named_parameters(skeleton(TINY))
    return {name: rng.standard_normal(leaf.shape, dtype=np.float32) for name, leaf in wanted.items()}


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# --- files ---


def arrays_of_every_layout() -> dict[str, np.ndarray]:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    hwio = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    return {
        "contiguous": base,
        "transposed": base.T,
        "HWIO as OIHW": hwio.transpose(3, 2, 0, 1),
        "fortran": np.asfortranarray(base),
        "strided": base[:, ::2, 1:],
        "reversed": base[::-1],
        "broadcast": np.broadcast_to(np.float32(7), (3, 2)),
        "scalar": np.array(0.25, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "double": np.array([1 / 3]),
        "half": np.array([1.5, -2], np.float16),
        "bfloat16": np.array([1.5, -2, 3], BFLOAT16),
        "integers": np.arange(3),
        "flags": np.array([True, False]),
    }


def test_arrays_of_every_layout_and_dtype_come_back_as_they_were(tmp_path: Path) -> None:
    written = arrays_of_every_layout()
    write_safetensors(tmp_path / "a.safetensors", written)
    read = read_safetensors(tmp_path / "a.safetensors")
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].shape == array.shape and read[name].dtype == array.dtype, name
        np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_the_safetensors_package_reads_what_we_write(tmp_path: Path) -> None:
    written = arrays_of_every_layout()
    del written["bfloat16"]  # its NumPy side does not know it
    write_safetensors(tmp_path / "a.safetensors", written, {"format": "pt"})
    read = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert read.keys() == written.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
        assert read[name].shape == array.shape, name
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_we_read_what_the_safetensors_package_writes(tmp_path: Path) -> None:
    written = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "g": np.array(2.0), "h": np.ones(3, np.float16)}
    safetensors.numpy.save_file(written, tmp_path / "a.safetensors", {"format": "pt"})
    read = read_safetensors(tmp_path / "a.safetensors")
    for name, array in written.items():
        np.testing.assert_array_equal(read[name], array, err_msg=name)
        assert read[name].shape == array.shape and read[name].dtype == array.dtype, name


def test_what_jax_holds_is_written_from_where_it_is(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"x": jnp.arange(4.0).reshape(2, 2).T, "s": jnp.float32(3)})
    read = read_safetensors(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read["x"], [[0, 2], [1, 3]])
    assert read["s"].shape == ()


def test_a_dtype_that_the_format_lacks_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'c' is complex128"):
        write_safetensors(tmp_path / "a.safetensors", {"c": np.zeros(2, complex)})
    assert not list(tmp_path.iterdir())


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    class Broken:
        shape, dtype = (2,), np.dtype(np.float32)

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise RuntimeError("the device is gone")

    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": np.ones(2)})
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="the device is gone"):
        write_safetensors(path, {"w": np.zeros(2), "x": Broken()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"x": np.ones(2)})
    (tmp_path / "other").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_is_read_tensor_by_tensor(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"x": np.ones(2), "y": np.zeros((3, 1), np.float16)})
    with open_safetensors(tmp_path / "a.safetensors") as tensors:
        assert tensors.specs == {"x": ((2,), np.float64), "y": ((3, 1), np.float16)}
        assert tensors["x"] is not tensors["x"]
        os.truncate(tmp_path / "a.safetensors", (tmp_path / "a.safetensors").stat().st_size - 1)
        with pytest.raises(InputError, match="became shorter while 'y' was read"):
            tensors["y"]


# --- hostile files ---

X = entry([2], 0, 8)
HOSTILE = {
    "empty": (b"", "0 bytes are no safetensors file"),
    "seven bytes": (b"\0" * 7, "7 bytes are no safetensors file"),
    "header longer than the file": (file_of({"x": X}, b"\0" * 8, length=10**6), "says its header has 1000000 bytes"),
    "header of 2^63 bytes": (file_of({}, length=2**63), "says its header has"),
    "a pickle": (b"\x80\x04\x95" + b"." * 100, "says its header has"),
    "no JSON": (file_of(b"\xff{}"), "not valid JSON"),
    "deep JSON": (file_of(b"[" * 100_000), "not valid JSON"),
    "a list": (file_of([]), "a JSON object is needed"),
    "NaN": (file_of(b'{"x": NaN}'), "NaN is not a number"),
    "a name twice": (
        file_of(b'{"x": %b, "x": %b}' % ((json.dumps(X).encode(),) * 2), b"\0" * 8),
        "'x' stands twice",
    ),
    "no entry": (file_of({"x": 3}), "'x' needs dtype, shape and data_offsets"),
    "no dtype": (file_of({"x": {"shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8), "'x' needs dtype"),
    "unknown dtype": (file_of({"x": entry([2], 0, 8, "F31")}, b"\0" * 8), "'x' has the dtype 'F31'"),
    "unhashable dtype": (file_of({"x": X | {"dtype": []}}, b"\0" * 8), "'x' has the dtype \\[\\]"),
    "negative shape": (file_of({"x": entry([-2], 0, 8)}, b"\0" * 8), "'x' has an impossible shape"),
    "shape of text": (file_of({"x": X | {"shape": "2"}}, b"\0" * 8), "'x' has an impossible shape"),
    "shape of flags": (file_of({"x": X | {"shape": [True, 2]}}, b"\0" * 8), "'x' has an impossible shape"),
    "absurd shape": (file_of({"x": entry([2**60], 0, 8)}, b"\0" * 8), "'x' has an impossible shape"),
    "overflowing shape": (file_of({"x": entry([2**32, 2**32], 0, 0)}), "'x' has 0 bytes for F32"),
    "many dimensions": (file_of({"x": entry([1] * 9, 0, 4)}, b"\0" * 4), "'x' has an impossible shape"),
    "three offsets": (file_of({"x": X | {"data_offsets": [0, 4, 8]}}, b"\0" * 8), "impossible data_offsets"),
    "offsets backwards": (file_of({"x": entry([2], 8, 0)}, b"\0" * 8), "'x' has -8 bytes"),
    "shape unlike offsets": (file_of({"x": entry([3], 0, 8)}, b"\0" * 8), "'x' has 8 bytes for F32\\[3\\]"),
    "cut off": (file_of({"x": X}, b"\0" * 7), "'x' ends at byte 8 of 7: the file is cut off"),
    "out of the file": (file_of({"x": entry([2], 2**40, 2**40 + 8)}, b"\0" * 8), "'x' leaves a gap"),
    "overlapping": (file_of({"x": X, "y": entry([2], 4, 12)}, b"\0" * 12), "'y' overlaps another tensor"),
    "the same bytes twice": (file_of({"x": X, "y": X}, b"\0" * 8), "'y' overlaps another tensor"),
    "a gap": (file_of({"x": X, "y": entry([1], 12, 16)}, b"\0" * 16), "'y' leaves a gap"),
    "hidden bytes": (file_of({"x": X}, b"\0" * 8 + b"payload"), "7 bytes after the last tensor"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_by_name_before_any_tensor_is_read(case: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[case]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"weights.safetensors.*{reason}"):
        open_safetensors(path)


def test_all_faults_of_a_header_are_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of({"a": 1, "b": entry([-1], 0, 4), "c": entry([1], 0, 4, "F8"), "d": entry([2], 0, 4)}))
    with pytest.raises(InputError, match=r"4 faults in the header \('a' needs .*, 'b' has .*, 'c' has .*, \.\.\.\)"):
        open_safetensors(path)


@pytest.mark.parametrize("name", ["", "nothing.safetensors"], ids=["a folder", "no file"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_safetensors(tmp_path / name)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_an_input_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read_safetensors(path)


@given(data=st.data())
def test_a_damaged_header_is_a_file_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    write_safetensors(path, {"w": np.ones((2, 3), np.float32), "g": np.array(1.0)}, {"format": "pt"})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 40))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InputError):
        read_safetensors(path)


# --- shards ---


def write_shards(folder: Path, shards: dict[str, dict[str, np.ndarray]]) -> Path:
    for name, tensors in shards.items():
        write_safetensors(folder / name, tensors)
    weight_map = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
    return index


def test_shards_are_read_as_one_file(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"a.safetensors": {"x": np.ones(2)}, "b.safetensors": {"y": np.zeros(3)}})
    read = read_safetensors(index)
    assert {name: array.tolist() for name, array in read.items()} == {"x": [1, 1], "y": [0, 0, 0]}


@pytest.mark.parametrize(
    "shard",
    [
        "../a.safetensors",
        "/etc/a.safetensors",
        "sub/a.safetensors",
        "..",
        "a.bin",
        "C:\\a.safetensors",
        "a\0",
        "ä" * 130 + ".safetensors",
    ],
)
def test_a_shard_that_is_no_plain_file_name_is_refused(shard: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"x": np.ones(2)})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(InputError, match="1 shards are not the names of safetensors files"):
        open_safetensors(index)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{}", "needs a weight_map"),
        ('{"weight_map": {"x": 3}}', "needs a weight_map"),
        ('{"weight_map": {"x": "c.safetensors"}}', "1 of 1 shards are missing"),
        (
            '{"weight_map": {"x": "a.safetensors", "z": "a.safetensors"}}',
            "'a.safetensors' does not hold what it says .*'z'",
        ),
        ('{"weight_map": {"y": "a.safetensors"}}', "does not hold what it says .2 tensors"),
        ("[" * 10**5, "not valid JSON"),
        (json.dumps({"weight_map": {f"t{i}": f"{i}.safetensors" for i in range(300)}}), "300 shards, more than"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(content: str, reason: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"x": np.ones(2)})
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError, match=f"model.safetensors.index.json.*{reason}"):
        open_safetensors(tmp_path / "model.safetensors.index.json")


# --- the loader ---


def test_parameters_are_taken_by_name_whatever_the_order(tensors: dict[str, np.ndarray]) -> None:
    model = load_tensors(TINY, dict(reversed(tensors.items())), source="here")
    loaded = named_parameters(model)
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
    assert model.config == TINY


def test_a_file_and_a_dictionary_load_the_same_network(tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", tensors)
    with open_safetensors(tmp_path / "a.safetensors") as file:
        from_file = named_parameters(load_tensors(TINY, file, source="file"))
    from_dictionary = named_parameters(load_tensors(TINY, tensors, source="dictionary"))
    for name, array in tensors.items():
        np.testing.assert_array_equal(from_file[name], array, err_msg=name)
        np.testing.assert_array_equal(from_dictionary[name], array, err_msg=name)


def test_all_faults_are_in_one_message(tensors: dict[str, np.ndarray]) -> None:
    del tensors["stages.0.0.conv1.gain"], tensors["head.fc.bias"]
    tensors["stages.0.1.conv1.weight"] = np.ones(3)
    tensors["stem.conv.weight"] = tensors["stem.conv.weight"].transpose(2, 3, 1, 0)
    tensors["stem.conv.bias"] = np.ones(8, np.int32)
    tensors["stages.0.0.conv2.bias"][3] = np.nan
    tensors["stages.0.0.conv3.bias"][0] = -np.inf
    with pytest.raises(InputError) as caught:
        load_tensors(TINY, tensors, source="model.safetensors")
    assert str(caught.value).startswith("model.safetensors: ")
    for part in (
        "2 missing ('stages.0.0.conv1.gain', 'head.fc.bias')",
        "1 unexpected ('stages.0.1.conv1.weight')",
        "1 of another shape ('stem.conv.weight' is (3, 3, 3, 8), the network needs (8, 3, 3, 3))",
        "1 not floating-point ('stem.conv.bias' is int32)",
        "2 not finite ('stages.0.0.conv2.bias' holds NaN or infinity as float32, 'stages.0.0.conv3.bias'",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_faults_of_a_kind_are_counted(tensors: dict[str, np.ndarray]) -> None:
    extra = {f"extra.{i}": np.ones(1, np.float32) for i in range(50)}
    with pytest.raises(InputError, match=r"50 unexpected \('extra.0', 'extra.1', 'extra.2', \.\.\.\)"):
        load_tensors(TINY, tensors | extra, source="here")


def test_a_scalar_is_not_an_array_of_one(tensors: dict[str, np.ndarray]) -> None:
    config = NFNetConfig.from_dict(TINY.to_dict() | {"skipinit": True})
    tensors["stages.0.0.skipinit_gain"] = np.ones(1, np.float32)
    with pytest.raises(InputError, match=re.escape("'stages.0.0.skipinit_gain' is (1,), the network needs ()")):
        load_tensors(config, tensors, source="here")


@pytest.mark.parametrize("stored", [np.dtype(np.float16), BFLOAT16, np.dtype(np.float64)], ids=str)
def test_any_precision_becomes_float32(stored: np.dtype, tensors: dict[str, np.ndarray], tmp_path: Path) -> None:
    stored_tensors = {name: array.astype(stored) for name, array in tensors.items()}
    write_safetensors(tmp_path / "a.safetensors", stored_tensors)
    with open_safetensors(tmp_path / "a.safetensors") as file:
        loaded = named_parameters(load_tensors(TINY, file, source="file"))
    for name, array in stored_tensors.items():
        assert loaded[name].dtype == jnp.float32
        np.testing.assert_array_equal(loaded[name], array.astype(np.float32), err_msg=name)


def test_parameters_are_kept_in_the_dtype_asked_for(tensors: dict[str, np.ndarray]) -> None:
    loaded = named_parameters(load_tensors(TINY, tensors, source="here", dtype=jnp.bfloat16))
    assert {array.dtype for array in loaded.values()} == {BFLOAT16}


def test_what_overflows_the_dtype_is_refused(tensors: dict[str, np.ndarray]) -> None:
    tensors["head.fc.bias"][1] = 1e6
    with pytest.raises(InputError, match="'head.fc.bias' holds NaN or infinity as float16"):
        load_tensors(TINY, tensors, source="here", dtype=jnp.float16)


def test_finite_numbers_may_be_large(tensors: dict[str, np.ndarray]) -> None:
    tensors["head.fc.bias"][:] = 3e38  # their sum is not finite
    loaded = named_parameters(load_tensors(TINY, tensors, source="here"))
    np.testing.assert_array_equal(loaded["head.fc.bias"], tensors["head.fc.bias"])


def test_a_network_does_not_change_with_the_arrays_it_was_loaded_from(tensors: dict[str, np.ndarray]) -> None:
    # JAX may take over a NumPy array that happens to be aligned, instead of copying it.
    buffer = np.zeros(3 * 16 + 16, np.float32)
    start = -buffer.ctypes.data % 64 // 4
    weight = buffer[start : start + 48].reshape(3, 16)
    assert jax.device_put(weight).unsafe_buffer_pointer() == weight.ctypes.data, "the case to be tested"
    tensors["head.fc.weight"] = weight
    model = load_tensors(TINY, tensors, source="here")
    weight[:] = 5
    np.testing.assert_array_equal(named_parameters(model)["head.fc.weight"], np.zeros((3, 16)))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_f0_needs_at_most_a_third_more_memory_than_the_file_has(tmp_path: Path) -> None:
    script = """
        import re, sys, jax, numpy as np
        from nfnet_eqx.models import get_config, named_parameters, skeleton
        from nfnet_eqx.checkpoints._tensors import load_tensors, open_safetensors, write_safetensors

        def memory(kind):
            return int(re.search(kind + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

        path, write = sys.argv[1], sys.argv[2] == "write"
        if write:
            wanted = named_parameters(skeleton(get_config("dm_nfnet_f0")))
            write_safetensors(path, {name: np.ones(leaf.shape, np.float32) for name, leaf in wanted.items()})
        else:
            jax.device_put(np.zeros(1)).block_until_ready()
            before = memory("VmRSS")
            with open_safetensors(path) as tensors:
                jax.block_until_ready(jax.tree.leaves(load_tensors(get_config("dm_nfnet_f0"), tensors, source=path)))
            print(memory("VmHWM") - before)
    """
    path = tmp_path / "f0.safetensors"

    def run(what: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(script), str(path), what]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    run("write")
    peak, size = int(run("load")), path.stat().st_size
    path.unlink()
    assert size > 285e6
    assert peak < 1.3 * size, f"{peak / size:.2f} times the {size} bytes of the file"
