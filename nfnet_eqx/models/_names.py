"""Parameters by name. A name is the attribute path, and timm's tensor name: `stages.0.1.conv2b.weight`."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._layers import ShapesOnly
from nfnet_eqx.models._nfnet import NFNet


def parameter_name(path: tuple[Any, ...]) -> str:
    """The name that belongs to a path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf of a network is an array (or the shape of one); rates and flags are leaves too."""
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def named_parameters(model: eqx.Module) -> dict[str, Any]:
    """Every array of `model` (or every shape, of a `skeleton`) by name, in the model's order."""
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return {parameter_name(path): leaf for path, leaf in leaves if is_parameter(leaf)}


def with_parameters(model: NFNet, parameters: Mapping[str, Array]) -> NFNet:
    """`model` with every array replaced by the one of the same name; their shapes are the caller's concern.

    Raises:
        InputError: a name is missing or unknown.
    """
    names = dict.fromkeys(named_parameters(model))  # a set that keeps the order
    missing, unknown = [n for n in names if n not in parameters], [n for n in parameters if n not in names]
    if missing or unknown:
        raise InputError(f"parameters do not fit the model: missing {missing}, unknown {unknown}")
    leaves, structure = jax.tree.flatten(model)
    values = iter([parameters[name] for name in names])
    return jax.tree.unflatten(structure, [next(values) if is_parameter(leaf) else leaf for leaf in leaves])


def skeleton(config: NFNetConfig) -> NFNet:
    """The network with shapes in place of arrays: nothing is allocated."""
    return eqx.filter_eval_shape(NFNet, config, key=ShapesOnly())
