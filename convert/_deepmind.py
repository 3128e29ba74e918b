"""DeepMind's checkpoints: `*_haiku.npz` files read and written, and their parameters to ours and back.

A parameter tree is `{module: {name: array}}` with Haiku's names, HWIO convolutions and IO linear layers. It says
nothing about the architecture, which is recognised from the shapes. The same parameters make another function in timm:
`convert_numerics` goes from one to the other.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from nfnet_eqx._errors import InputError, by_kind
from nfnet_eqx.checkpoints import LazyArray
from nfnet_eqx.convert import _haiku_names as names
from nfnet_eqx.convert._bytes import FileBytes
from nfnet_eqx.convert._npz import read_npz, write_npz
from nfnet_eqx.convert._numerics import convert_numerics
from nfnet_eqx.convert._pickle import read_pickle
from nfnet_eqx.models import NetworkConfig, NFNetConfig, get_config

__all__ = ["convert_numerics", "deepmind_to_native", "native_to_deepmind", "read_deepmind", "write_deepmind"]

Tree = Mapping[str, Mapping[str, Any]]
# No array of a network has this shape.
_ABSENT = np.empty((0,) * 8)


def read_deepmind(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """The parameter tree of one of DeepMind's files: a pickle, whatever its name says, or a true npz.

    Nothing in a pickle is executed, and nothing in it can be: see `_pickle.py`.

    Args:
        path: the file.

    Returns:
        `{module: {name: array}}`; the arrays are read-only.

    Raises:
        InputError: naming the file and what is wrong with it: it is damaged, it holds no tree of floating-point
            arrays, it claims more data than it has, it asks for anything but arrays (what, is named).
    """
    with open_deepmind(path) as (tree, _):
        arrays = {m: {n: np.asarray(leaf) for n, leaf in leaves.items()} for m, leaves in tree.items()}
    for leaves in arrays.values():
        for leaf in leaves.values():
            leaf.setflags(write=False)
    return arrays


@contextlib.contextmanager
def open_deepmind(path: str | os.PathLike[str]) -> Iterator[tuple[Tree, BinaryIO]]:
    """The parameter tree of one of DeepMind's files, and the file; an array of a pickle is read when it is asked for.

    Raises:
        InputError: see `read_deepmind`.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path}: {'not a file' if os.path.exists(path) else 'no such file'}")
    with open(path, "rb") as file:
        head = file.read(6)
        if head[:2] == b"PK":
            yield read_npz(path), file
        elif head[:1] == b"\x80":
            yield read_pickle(FileBytes(file, os.fspath(path))), file
        else:
            known = {b"": "is empty", b"\x93NUMPY": "is a single array"}
            found = known.get(head, "is neither a pickle nor an npz archive")
            raise InputError(f"{path}: {found}; DeepMind's checkpoints are F0_haiku.npz to F6_haiku.npz")


def write_deepmind(path: str | os.PathLike[str], tree: Tree) -> None:
    """Write a parameter tree as a true npz file with keys `module|name`. No pickle is ever written.

    Args:
        path: the file, which appears whole or not at all; one that exists is replaced.
        tree: `{module: {name: array}}`, as `native_to_deepmind` gives it.

    Raises:
        InputError: `path` does not end in ".npz".
    """
    if Path(path).suffix != ".npz":
        raise InputError(f"{path}: the name of a DeepMind file ends in .npz")
    write_npz(path, tree)


def deepmind_to_native(
    tree: Tree, *, architecture: str | None = None, source: str = "DeepMind's parameters"
) -> tuple[NFNetConfig, dict[str, np.ndarray]]:
    """The network of a parameter tree, and its arrays by our names and in our layout.

    Args:
        tree: `{module: {name: array}}`.
        architecture: a name of the family to insist on. `None`: it is recognised from the shapes (F0-F7, F0+-F7+, or
            any other depths, widths and group size that DeepMind's code can build).
        source: what the tree came from, for messages.

    Returns:
        The configuration, with `numerics="deepmind"`, and contiguous float32 arrays of their own.

    Raises:
        InputError: the architecture is not recognised, or arrays are missing, unexpected, of another shape, or hold
            NaN or infinity; all in one error.
    """
    plan = _plan(tree, architecture, source)
    tensors = {}
    for key, array in _arrays(tree, plan).items():
        with np.errstate(over="ignore"):  # what overflows is infinite, and found so
            array = np.array(array, order="C", copy=True)
        if not np.isfinite(array).all():
            plan.faults["not finite"].append(_spell(key))
        # Once there is a fault, the rest is only looked at.
        if not any(plan.faults.values()):
            tensors[plan.entries[key].native] = array
    _raise_faults(plan, architecture, source)
    return plan.config, tensors


def native_tensors(tree: Tree, *, architecture: str | None, source: str) -> tuple[NFNetConfig, dict[str, LazyArray]]:
    """As `deepmind_to_native`, one array at a time: made when it is asked for, and not yet known to be finite."""
    plan = _plan(tree, architecture, source)
    _raise_faults(plan, architecture, source)
    return plan.config, {plan.entries[key].native: array for key, array in _arrays(tree, plan).items()}


_Key = tuple[str, str]


class _Plan(NamedTuple):
    """The network of a tree, the place of each of its arrays, and what stands in the way by its kind."""

    config: NFNetConfig
    entries: dict[_Key, names.Entry]
    faults: dict[str, list[str]]


def _plan(tree: Tree, architecture: str | None, source: str) -> _Plan:
    shapes = {(module, name): np.shape(array) for module, leaves in tree.items() for name, array in leaves.items()}
    try:
        config = names.recognise(shapes) if architecture is None else _named(architecture, shapes)
        entries = {entry[:2]: entry for entry in names.entries(config)}
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    faults = {
        "missing": [_spell(key) for key in entries if key not in shapes],
        "unexpected": [_spell(key) for key in shapes if key not in entries],
        "of another shape": [
            f"{_spell(key)} is {shapes[key]}, not {entry.shape}"
            for key, entry in entries.items()
            if shapes.get(key, entry.shape) != entry.shape
        ],
        "not finite": [],
    }
    return _Plan(config, entries, faults)


def _arrays(tree: Tree, plan: _Plan) -> dict[_Key, LazyArray]:
    """Those arrays that have the right shape, in our layout and in float32."""

    def lazy(entry: names.Entry) -> LazyArray:
        return LazyArray(
            entry.native_shape(),
            np.dtype(np.float32),
            lambda: _in_order(entry.layout.to_native(np.asarray(tree[entry.module][entry.name]))),
        )

    return {
        key: lazy(entry)
        for key, entry in plan.entries.items()
        if np.shape(tree.get(entry.module, {}).get(entry.name, _ABSENT)) == entry.shape
    }


def _raise_faults(plan: _Plan, architecture: str | None, source: str) -> None:
    if any(plan.faults.values()):
        config = plan.config
        what = architecture or names.architecture_of(config) or f"depths {config.depths} and widths {config.widths}"
        raise InputError(f"{source}: not the {len(plan.entries)} arrays of {what}: {by_kind(plan.faults)}")


def native_to_deepmind(config: NFNetConfig, tensors: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Parameters by our names as a tree with DeepMind's names and layouts.

    Args:
        config: the network: one that DeepMind's code can build, with `numerics="deepmind"` (`convert_numerics`).
        tensors: arrays by our names.

    Returns:
        `{module: {name: array}}`, contiguous float32 arrays of their own.

    Raises:
        InputError: DeepMind's code has no such network, or the tensors are not those of `config`.
    """
    tree = deepmind_tree(config, tensors)
    return {m: {n: np.array(leaf, order="C", copy=True) for n, leaf in leaves.items()} for m, leaves in tree.items()}


def deepmind_tree(config: NetworkConfig, tensors: Mapping[str, Any]) -> dict[str, dict[str, LazyArray]]:
    """As `native_to_deepmind`, one array at a time: made when it is asked for."""
    config = check_family(config)
    different = names.not_deepminds(config)
    if different:
        raise InputError(f"DeepMind's files cannot express {', '.join(different)}")
    entries = {entry.native: entry for entry in names.entries(config)}
    faults = {
        "missing": [name for name in entries if name not in tensors],
        "unexpected": [name for name in tensors if name not in entries],
        "of another shape": [
            f"{name} is {np.shape(tensors[name])}, not {entry.native_shape()}"
            for name, entry in entries.items()
            if name in tensors and np.shape(tensors[name]) != entry.native_shape()
        ],
    }
    if any(faults.values()):
        raise InputError(f"not the {len(entries)} tensors of the configuration: {by_kind(faults)}")

    def lazy(entry: names.Entry) -> LazyArray:
        return LazyArray(
            entry.shape,
            np.dtype(np.float32),
            lambda: _in_order(entry.layout.to_deepmind(np.asarray(tensors[entry.native]))),
        )

    tree: dict[str, dict[str, LazyArray]] = {}
    for entry in entries.values():
        tree.setdefault(entry.module, {})[entry.name] = lazy(entry)
    return tree


def check_family(config: NetworkConfig) -> NFNetConfig:
    """Refuses a network of another family than DeepMind's files are of."""
    if not isinstance(config, NFNetConfig):
        raise InputError(f"DeepMind's files hold NFNets, not a {config.FAMILY}; convert it to a folder instead")
    return config


def _named(architecture: str, shapes: names.Shapes) -> NFNetConfig:
    """The network of that name; the arrays only say how many input channels and classes it has."""
    config = check_family(get_config(architecture))
    different = names.not_deepminds(config)
    if different:
        raise InputError(f"{architecture} is no network of DeepMind's code, it has {', '.join(different)}")
    stem, head = shapes.get((f"{names.ROOT}stem_conv0", "w"), ()), shapes.get((f"{names.ROOT}linear", "w"), ())
    return dataclasses.replace(
        config,
        in_channels=stem[2] if len(stem) == 4 else config.in_channels,
        num_classes=head[1] if len(head) == 2 else config.num_classes,
    )


def _in_order(array: np.ndarray) -> np.ndarray:
    """The array as it lies in a file: NumPy's own copy of a transposed one takes up to seven times as long."""
    if array.ndim < 2 or array.flags.c_contiguous:
        return array
    ordered = np.empty(array.shape, array.dtype)
    for i in range(0, array.shape[1], 16):
        ordered[:, i : i + 16] = array[:, i : i + 16]
    return ordered


def _spell(key: tuple[str, str]) -> str:
    return f"{key[0]} {key[1]}"
