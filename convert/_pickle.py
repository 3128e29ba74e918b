"""Parameter trees out of DeepMind's pickles, without unpickling.

The whitelist of names that such files contain, what each stands for, and the arrays that result. Nothing here is
called because a file says so: a "call" is recognised by its name and its arguments, and recorded. Arrays are built
last, when the whole program has been read and the file is known to hold them.
"""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from nfnet_eqx._errors import InputError, first
from nfnet_eqx.checkpoints import LazyArray
from nfnet_eqx.convert._bytes import FileBytes
from nfnet_eqx.convert._opcodes import Fault, Global, Machine, Span, kind

MAX_DIMENSIONS = 4
FLOATS = ("f2", "f4", "f8")

# Where NumPy's C functions say they live, by version and by who pickled them.
_C_MODULES = [f"numpy.{core}.{name}" for core in ("core", "_core") for name in ("multiarray", "_multiarray_umath")]
_KNOWN = {
    **{f"{module}._reconstruct": "reconstruct" for module in _C_MODULES},
    **{f"{module}.scalar": "scalar" for module in _C_MODULES},
    "numpy.core.numeric._frombuffer": "frombuffer",
    "numpy._core.numeric._frombuffer": "frombuffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "dill._dill._import_module": "import_module",
    "dill._dill._get_attr": "get_attr",
    "dill._dill._create_array": "create_array",
    # Haiku's immutable dictionaries, by every name they have had.
    "haiku._src.data_structures.FlatMapping": "mapping",
    "haiku._src.data_structures.FlatMap": "mapping",
    "haiku._src.data_structures.frozendict": "mapping",
}


@dataclasses.dataclass(slots=True, eq=False)
class _DType:
    code: str
    order: str = "="


@dataclasses.dataclass(slots=True, eq=False)
class _Array:
    """An array that is described, not yet built: `data` seen as `shape`, its axes then permuted by `axes`."""

    shape: tuple[int, ...] = ()
    dtype: _DType | None = None
    axes: tuple[int, ...] = ()
    data: bytes | Span = b""


def read_pickle(data: FileBytes) -> dict[str, dict[str, LazyArray]]:
    """The parameter tree of a pickle of protocol 2 to 5.

    Args:
        data: the file.

    Returns:
        `{module: {name: array}}`; the arrays are read from the file when they are asked for.

    Raises:
        InputError: the pickle holds anything but such a tree, is damaged, or claims more data than it has.
    """
    machine = _Reader(data)
    faults = []
    try:
        tree = machine.run()
        if not machine.refused:
            return _build(tree, data)
    except Fault as fault:
        faults.append(str(fault))
    if machine.refused:
        names = [repr(name) for name in machine.refused]
        faults.append(f"it asks for {first(names)}, which no tree of arrays needs: do not open it with other tools")
    raise _refusal(data, "; ".join(faults))


def _refusal(data: FileBytes, faults: str) -> InputError:
    return InputError(f"{data.name}: not a checkpoint of DeepMind's: {faults}. Nothing in it was run.")


class _Reader(Machine):
    """The machine, with the meaning of names."""

    def named(self, module: str, name: str) -> Global:
        """What a global is for, by its name alone; nothing is imported."""
        full = f"{module}.{name}"
        role = _KNOWN.get(full, "refused")
        if role == "refused":
            self.refused[full] = None
        return Global(full, role)

    def call(self, function: Any, arguments: Any) -> Any:
        """The record of what the call would make, if it is one of those that write arrays."""
        if not isinstance(function, Global) or type(arguments) is not tuple:
            raise Fault(f"{kind(function)} is called")
        match function.role, arguments:
            case "refused", _:
                return function
            case "reconstruct", (Global(role="ndarray"), (0,), b"b"):
                return _Array()
            case "scalar", (dtype, data):
                return _described(_Array(), dtype, (), False, data)
            case "frombuffer", (data, dtype, shape, "C" | "F" as order):
                return _described(_Array(), dtype, shape, order == "F", data)
            case "frombuffer", (data, dtype, shape, "K", axes):
                # NumPy 2.3 and newer, for arrays whose axes lie in memory in some other order.
                array = _described(_Array(), dtype, shape, False, data)
                for order in itertools.permutations(array.axes):
                    if order == axes:
                        array.axes = order
                        return array
            case "dtype", (str() as code, 0 | 1, 0 | 1):
                if code not in FLOATS:
                    raise Fault(f"an array has dtype {code!r}; weights are {', '.join(FLOATS)}")
                return _DType(code)
            case "encode", (str() as text, "latin1" | "latin-1"):
                try:
                    return text.encode("latin-1")
                except UnicodeEncodeError:
                    raise Fault("_codecs.encode is given text that holds no bytes") from None
            case "encode", (Span(form="text") as span, "latin1" | "latin-1"):
                return dataclasses.replace(span, form="latin1")
            # dill of 2021 asks for a C function's module, then for the function in it.
            case "import_module", (str() as module,) if module in (*_C_MODULES, "_codecs"):
                return Global(module, "module")
            case "get_attr", (Global(role="module") as module, str() as name) if f"{module.name}.{name}" in _KNOWN:
                return self.named(module.name, name)
            case "create_array", (Global(role="reconstruct") as inner, inner_arguments, state, *attributes):
                if attributes in ([], [None]):
                    array = self.call(inner, inner_arguments)
                    self.set_state(array, state)
                    return array
            case "mapping", (dict() as content,):
                return content
        shown = ", ".join(repr(a) if type(a) is str else kind(a) for a in arguments[:4])
        self.refused[f"{function.name}({shown})"] = None
        return Global(function.name, "refused")

    def set_state(self, target: Any, state: Any) -> None:
        """Completes the record of an array or a dtype; nothing else has a state."""
        match target, state:
            case Global(role="refused"), _:
                pass
            case _DType(), (3, "<" | ">" | "=" | "|" as order, None, None, None, -1, -1, 0):
                target.order = order
            case _Array(), (1, shape, dtype, 0 | 1 as fortran, data):
                _described(target, dtype, shape, bool(fortran), data)
            case _:
                raise Fault(f"{kind(target)} is given a state that it cannot have")


def _described(array: _Array, dtype: Any, shape: Any, fortran: bool, data: Any) -> _Array:
    """`array` after it got these properties."""
    if not isinstance(dtype, _DType):
        raise Fault(f"an array has {kind(dtype)} for a dtype")
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 1 for n in shape):
        raise Fault(f"an array's shape is no tuple of at most {MAX_DIMENSIONS} positive sizes")
    if not isinstance(data, bytes) and not (isinstance(data, Span) and data.form != "text"):
        raise Fault(f"an array's data is {kind(data)}, not bytes")
    axes = tuple(range(len(shape)))
    array.shape, array.axes = (shape[::-1], axes[::-1]) if fortran else (shape, axes)
    array.dtype, array.data = dtype, data
    return array


def _build(tree: Any, data: FileBytes) -> dict[str, dict[str, LazyArray]]:
    """The arrays that `tree` describes, once all of them are known to fit into the file."""
    if type(tree) is not dict:
        raise Fault(f"it holds {kind(tree)}, not a dictionary of modules")
    faults: list[str] = []
    total = 0
    for module, leaves in tree.items():
        if type(leaves) is not dict:
            faults.append(f"{module!r} is {kind(leaves)}, not a dictionary of arrays")
            continue
        for name, leaf in leaves.items():
            if not isinstance(leaf, _Array) or leaf.dtype is None:
                faults.append(f"{module!r}, {name!r} is {kind(leaf)}, not a whole array")
                continue
            size = math.prod(leaf.shape) * int(leaf.dtype.code[1:])
            held = len(leaf.data) if isinstance(leaf.data, bytes) else leaf.data.stop - leaf.data.start
            # A byte above 127 takes two in UTF-8.
            most = 2 * size if isinstance(leaf.data, Span) and leaf.data.form == "latin1" else size
            if not size <= held <= most:
                faults.append(f"{module!r}, {name!r} has shape {leaf.shape}, {size} bytes, but the file holds {held}")
            total += size
    # One array under many names costs the file nothing and its reader everything.
    if total > len(data):
        faults.append(f"the arrays add up to {total} bytes, more than the file's {len(data)}")
    if not any(tree.values()):
        faults.append("it holds no arrays")
    if faults:
        raise Fault(first(faults))
    return {m: {n: _array(m, n, leaf, data) for n, leaf in leaves.items()} for m, leaves in tree.items()}


def _array(module: str, name: str, leaf: _Array, data: FileBytes) -> LazyArray:
    assert leaf.dtype is not None  # _build has seen to that
    stored = np.dtype(leaf.dtype.order + leaf.dtype.code)
    dtype = stored.newbyteorder("=")

    def read() -> np.ndarray:
        flat = _content(leaf.data, data).view(stored)
        return flat.astype(dtype, copy=False).reshape(leaf.shape).transpose(leaf.axes)

    def read_text() -> np.ndarray:
        try:
            return read()
        except ValueError:  # no UTF-8, no Latin-1, or another number of characters than the array has bytes
            fault = f"{module!r}, {name!r} is stored as text that holds other than its {math.prod(leaf.shape)} numbers"
            raise _refusal(data, fault) from None

    as_text = isinstance(leaf.data, Span) and leaf.data.form == "latin1"
    return LazyArray(tuple(leaf.shape[axis] for axis in leaf.axes), dtype, read_text if as_text else read)


def _content(content: bytes | Span, data: FileBytes) -> np.ndarray:
    if isinstance(content, bytes):
        return np.frombuffer(content, np.uint8)
    found = data.array(content.start, content.stop - content.start)
    if content.form == "bytes":
        return found
    return np.frombuffer(found.tobytes().decode("utf-8").encode("latin-1"), np.uint8)
