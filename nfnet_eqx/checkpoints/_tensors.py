"""Model and flat named tensors: safetensors files, and the one strict loader that every format ends in.

References:
    The file format: https://github.com/huggingface/safetensors#format.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import MAX_JSON_BYTES, digest, parse_json, read_json, replacing
from nfnet_eqx.checkpoints._lazy import LazyArray
from nfnet_eqx.models import Network, NetworkConfig, named_parameters, skeleton, with_parameters

INDEX_SUFFIX = ".safetensors.index.json"
MAX_SHARDS = 256

# What PyTorch's DistributedDataParallel (DataParallel, too) and torch.compile put before each name.
_WRAPPERS = ("module.", "_orig_mod.")
# What AveragedModel puts beside them: how many networks it has averaged.
_AVERAGED = "n_averaged"

# Where parameters live: a device, or a sharding over several.
Placement = jax.Device | jax.sharding.Sharding

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_log = logging.getLogger(__name__)

_FLOATS = tuple(_DTYPES[name] for name in ("F64", "F32", "F16", "BF16"))


class TensorSpec(NamedTuple):
    """Shape and dtype of a tensor that need not have been read."""

    shape: tuple[int, ...]
    dtype: np.dtype


class TensorFile(Mapping[str, np.ndarray]):
    """The tensors of a safetensors checkpoint on disk, by name.

    What each one is (`specs`) is known; what it holds is read anew whenever it is asked for, so that a large checkpoint
    need never be in memory twice. Close it after use, or use it as a context manager.

    Where DDP or torch.compile has put `module.` or `_orig_mod.` before all names, the names are those without.
    """

    def __init__(self, specs: dict[str, TensorSpec], places: dict[str, tuple[BinaryIO, int]], close: Any) -> None:
        self.close = close
        self._files = list(dict.fromkeys(file for file, _ in places.values()))
        prefix = _wrappers(name for name in specs if name != _AVERAGED)
        if prefix:
            specs = {name: spec for name, spec in specs.items() if name != _AVERAGED}
            places = {name: place for name, place in places.items() if name != _AVERAGED}
        self.specs = {name.removeprefix(prefix): spec for name, spec in specs.items()}
        self._places = {name.removeprefix(prefix): place for name, place in places.items()}
        if prefix:
            _log.info("%s: %r before all names of tensors is left out", ", ".join(f.name for f in self._files), prefix)

    def sha256(self) -> dict[str, str]:
        """The digest of each file that was opened, by its name."""
        return {os.path.basename(file.name): digest(file) for file in self._files}

    def __getitem__(self, name: str) -> np.ndarray:
        shape, dtype = self.specs[name]
        file, start = self._places[name]
        array = _aligned_bytes(math.prod(shape) * dtype.itemsize)
        rest = array.data
        while rest.nbytes:
            count = os.preadv(file.fileno(), [rest], start)
            if not count:
                raise InputError(f"{file.name}: the file became shorter while {name!r} was read")
            rest, start = rest[count:], start + count
        return array.view(dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_safetensors(path: str | os.PathLike[str]) -> TensorFile:
    """The tensors of a safetensors file, or of all shards that a `*.safetensors.index.json` lists.

    Names, shapes and offsets are checked against the size of the file before anything is allocated.

    Raises:
        InputError: naming the file and all of its faults.
    """
    path = Path(path)
    with contextlib.ExitStack() as stack:
        if path.name.endswith(INDEX_SUFFIX):
            specs, places = _open_shards(path, stack)
        else:
            specs, places = _open_file(path, stack)
        return TensorFile(specs, places, stack.pop_all().close)


def read_index(path: Path) -> dict[str, set[str]]:
    """The shards that a `*.safetensors.index.json` lists: file names, each with the names of its tensors.

    Raises:
        InputError: it is no index, or names files elsewhere.
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InputError(f"{path}: needs a weight_map from tensor names to file names")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(shard, set()).add(name)
    # A shard is a file beside the index: a name that leads elsewhere could reach any file of the machine.
    foreign = [
        repr(shard)
        for shard in shards
        if not shard.endswith(".safetensors") or set(shard) & set("/\\\0") or len(shard.encode(errors="replace")) > 255
    ]
    if foreign:
        raise InputError(f"{path}: {len(foreign)} shards are not the names of safetensors files ({_first(foreign)})")
    if len(shards) > MAX_SHARDS:
        raise InputError(f"{path}: {len(shards)} shards, more than {MAX_SHARDS}; refused")
    return shards


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file (or of its shards: `*.safetensors.index.json`), read into memory.

    Raises:
        InputError: naming the file and all of its faults.
    """
    with open_safetensors(path) as tensors:
        return dict(tensors)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> str:
    """Write tensors to a safetensors file, which appears whole or not at all.

    This does not go through the safetensors package, whose version 0.8.0 writes the memory of an array that is not
    contiguous (a transposed one, say) as if it were: wrong values, and no error.

    Args:
        path: the file; one that exists is replaced.
        tensors: arrays by name, of any memory layout, on any device; a `LazyArray` is made when its turn comes.
        metadata: text to put into the file's header.

    Returns:
        The sha256 of the file.

    Raises:
        InputError: a dtype that the format does not have.
    """
    names = {dtype: name for name, dtype in _DTYPES.items()}
    unknown = [f"{name!r} is {tensor.dtype}" for name, tensor in tensors.items() if np.dtype(tensor.dtype) not in names]
    if unknown:
        raise InputError(f"{path}: safetensors files cannot hold {_first(unknown)}; convert to float32 first")
    # Wide numbers first: so each tensor starts at a multiple of its item size.
    order = sorted(tensors, key=lambda name: -np.dtype(tensors[name].dtype).itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        shape, dtype = np.shape(tensors[name]), np.dtype(tensors[name].dtype)
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    written = hashlib.sha256()
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:

        def write(piece: bytes | memoryview) -> None:
            file.write(piece)
            written.update(piece)

        write(len(text).to_bytes(8, "little") + text)
        for name in order:
            write(np.asarray(tensors[name], order="C").reshape(-1).view(np.uint8).data)
    return written.hexdigest()


def load_tensors(
    config: NetworkConfig,
    tensors: Mapping[str, Any],
    *,
    source: str,
    dtype: DTypeLike | None = None,
    device: Placement | None = None,
) -> Network:
    """The network of `config` with its parameters taken, by name, from `tensors`.

    Nothing is guessed and nothing left over: each parameter needs a tensor of its name and shape, and each tensor a
    parameter. Half precision becomes float32 unless `dtype` says otherwise.

    Args:
        config: the architecture.
        tensors: arrays by timm's names: a dictionary, or a `TensorFile`, which is read tensor by tensor.
        source: what the tensors came from, for the message.
        dtype: what to keep the parameters in; `None` is float32.
        device: where to put them, one after the other; `None` is JAX's default device.

    Raises:
        InputError: `dtype` or `device` is none, or a tensor is missing, unexpected, of another shape, no
            floating-point number, or holds NaN or infinity. One error names the first few of each kind.
    """
    if device is not None and not isinstance(device, Placement):
        raise InputError(f"device (={device!r}): give a jax.Device, as jax.devices() lists them, or a sharding")
    parameters = {
        name: jax.device_put(array, device)
        for name, array in checked_tensors(config, tensors, source=source, dtype=dtype)
    }
    return with_parameters(skeleton(config), parameters)


def checked_tensors(
    config: NetworkConfig, tensors: Mapping[str, Any], *, source: str, dtype: DTypeLike | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters of a network, one after the other, as `load_tensors` takes them; each array is the caller's own.

    Args:
        config: the architecture.
        tensors: arrays by timm's names, of which one at a time is in memory if they are read or made when asked for.
        source: what the tensors came from, for the message.
        dtype: what to convert them to; `None` is float32.

    Yields:
        The name and the array of each parameter. After the first fault, nothing more: the rest is only looked at.

    Raises:
        InputError: at the end, with all faults; as `load_tensors` does.
    """
    dtype = _checked_dtype(dtype)
    wanted = {name: tuple(leaf.shape) for name, leaf in named_parameters(skeleton(config)).items()}
    own = isinstance(tensors, TensorFile)
    specs = tensors.specs if own else {n: TensorSpec(np.shape(t), np.dtype(t.dtype)) for n, t in tensors.items()}
    found = {name: specs[name] for name in wanted if name in specs}
    faults = {
        "missing": [repr(name) for name in wanted if name not in specs],
        "unexpected": [repr(name) for name in specs if name not in wanted],
        "of another shape": [
            f"{name!r} is {spec.shape}, the network needs {wanted[name]}"
            for name, spec in found.items()
            if spec.shape != wanted[name]
        ],
        "not floating-point": [f"{name!r} is {s.dtype}" for name, s in found.items() if s.dtype not in _FLOATS],
        "not finite": [],
    }
    for name, spec in found.items():
        if spec.shape != wanted[name] or spec.dtype not in _FLOATS:
            continue
        tensor = tensors[name]
        with np.errstate(over="ignore"):  # what overflows is infinite, and found so below
            # JAX may take an array over as it is: one just read or made may be, a caller's may change later.
            array = np.asarray(tensor).astype(dtype, copy=not (own or isinstance(tensor, LazyArray)))
        if not _is_finite(array):
            faults["not finite"].append(f"{name!r} holds NaN or infinity as {dtype}")
        if not any(faults.values()):
            yield name, array
    if any(faults.values()):
        kinds = [f"{len(names)} {kind} ({_first(names)})" for kind, names in faults.items() if names]
        raise InputError(
            f"{source}: the tensors do not fit the network of {len(wanted)} parameters: {'; '.join(kinds)}. "
            "Do the weights belong to this configuration?"
        )


def _wrappers(names: Iterable[str]) -> str:
    """What wrappers of PyTorch have put before all of these names; of two, in the order in which they wrap."""
    names, prefix = list(names), ""
    while names and (more := next((w for w in _WRAPPERS if all(n.startswith(prefix + w) for n in names)), None)):
        prefix += more
    return prefix


def _checked_dtype(dtype: DTypeLike | None) -> np.dtype:
    checked = None
    with contextlib.suppress(TypeError, ValueError, SyntaxError):  # numpy reads a text as a little language
        checked = np.dtype(np.float32 if dtype is None else dtype)
    if checked is None or checked not in _FLOATS:
        raise InputError(f"dtype (={dtype!r}): give a floating-point one, such as float32 or bfloat16")
    return checked


def _first(names: list[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _is_finite(array: np.ndarray) -> bool:
    # One pass, no temporary: a sum is finite only where every term is. (A finite sum may overflow; then look closer.)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(array, dtype=np.promote_types(array.dtype, np.float32))
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


def _aligned_bytes(count: int) -> np.ndarray:
    # JAX takes over an array that starts at a multiple of 64 bytes, and copies any other.
    buffer = np.empty(count + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + count]


_Opened = tuple[dict[str, TensorSpec], dict[str, tuple[BinaryIO, int]]]


def _open_file(path: Path, stack: contextlib.ExitStack) -> _Opened:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    file = stack.enter_context(path.open("rb", buffering=0))
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise InputError(f"{path}: {size} bytes are no safetensors file; fetch or write it again")
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, MAX_JSON_BYTES):
        raise InputError(
            f"{path}: says its header has {length} bytes, of {size} in the file (at most {MAX_JSON_BYTES} are read); "
            "it is cut off or no safetensors file"
        )
    header = parse_json(file.read(length), f"{path} (header)")
    header.pop("__metadata__", None)
    data_start = 8 + length
    specs, places, faults, spans = {}, {}, [], []
    for name, entry in header.items():
        try:
            specs[name], begin, end = _parse_entry(entry)
        except ValueError as error:
            faults.append(f"{name!r} {error}")
            continue
        places[name] = (file, data_start + begin)
        spans.append((begin, end, name))
    if not faults:
        faults = _layout_faults(sorted(spans), size - data_start)
    if faults:
        raise InputError(f"{path}: {len(faults)} faults in the header ({_first(faults)}); fetch or write it again")
    return specs, places


def _parse_entry(entry: Any) -> tuple[TensorSpec, int, int]:
    """One tensor's line of the header: what it is, and the bytes where it begins and ends."""

    def integers(value: Any, most: int) -> bool:
        return isinstance(value, list) and len(value) <= most and all(type(v) is int and 0 <= v < 2**48 for v in value)

    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("needs dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"has the dtype {dtype!r}, known are {', '.join(_DTYPES)}")
    if not integers(shape, 8):
        raise ValueError(f"has an impossible shape {str(shape)[:80]}")
    if not integers(offsets, 2) or len(offsets) != 2:
        raise ValueError(f"has impossible data_offsets {str(offsets)[:80]}")
    spec = TensorSpec(tuple(shape), _DTYPES[dtype])
    if offsets[1] - offsets[0] != math.prod(shape) * spec.dtype.itemsize:
        raise ValueError(f"has {offsets[1] - offsets[0]} bytes for {dtype}{shape}")
    return spec, offsets[0], offsets[1]


def _layout_faults(spans: list[tuple[int, int, str]], size: int) -> list[str]:
    """What is wrong with tensors that should fill `size` bytes one after the other."""
    faults, position = [], 0
    for begin, end, name in spans:
        if begin != position:
            faults.append(f"{name!r} {'overlaps another tensor' if begin < position else 'leaves a gap before it'}")
        if end > size:
            faults.append(f"{name!r} ends at byte {end} of {size}: the file is cut off")
        position = max(position, end)
    if position < size and not faults:
        faults.append(f"{size - position} bytes after the last tensor")
    return faults


def _open_shards(index: Path, stack: contextlib.ExitStack) -> _Opened:
    shards = read_index(index)
    absent = [repr(shard) for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise InputError(f"{index}: {len(absent)} of {len(shards)} shards are missing ({_first(absent)})")
    specs, places = {}, {}
    for shard, listed in shards.items():
        shard_specs, shard_places = _open_file(index.parent / shard, stack)
        # Refused at once: what strange shards hold must not add up in memory.
        if astray := sorted(map(repr, listed ^ shard_specs.keys())):
            raise InputError(f"{index}: {shard!r} does not hold what it says ({len(astray)} tensors: {_first(astray)})")
        specs |= shard_specs
        places |= shard_places
    return specs, places
