"""Parameters by name. A name is the attribute path, and timm's tensor name: `stages.0.1.conv2b.weight`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._network import AnyNetwork

_LAYER = re.compile(
    r"(?P<first>stem|patch_embed|cls_token|reg_token|pos_embed)(?:\.|$)"
    r"|(?:stages\.(?P<stage>\d+)|blocks)\.(?P<block>\d+)\."
    r"|(?P<last>final_conv)(?:\.|$)"
    r"|(?P<head>norm|fc_norm|attn_pool|head_drop|head)(?:\.|$)"
)


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


def with_parameters(model: AnyNetwork, parameters: Mapping[str, Array]) -> AnyNetwork:
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


def is_below(name: str, path: str) -> bool:
    """Whether a parameter lies at a path or below it: `stages.1` covers `stages.1.0`, not `stages.10`."""
    return name == path or name.startswith(path.removesuffix(".") + ".")


def is_classifier_weight(name: str) -> bool:
    """Whether this is the name of a classifier's weight."""
    return name in ("head.fc.weight", "head.weight")


def layers_below_head(names: Sequence[str]) -> dict[str, int]:
    """How many layers each parameter of a network stands below the head, by name.

    The layers are what comes before the blocks, every block, and the head; an NFNet's final convolution belongs to its
    last block, and a ViT's last normalization and pooling to the head, as in timm.

    Args:
        names: of all parameters.

    Raises:
        InputError: a name belongs to no layer.
    """
    matches = {name: _LAYER.match(name) for name in names}
    if unknown := [name for name, match in matches.items() if match is None]:
        raise InputError(f"parameters in no layer of a network: {unknown[:5]}")
    blocks = {name: (int(m["stage"] or 0), int(m["block"])) for name, m in matches.items() if m and m["block"]}
    ordered = sorted(set(blocks.values()))
    below = {block: len(ordered) - i for i, block in enumerate(ordered)}
    return {
        name: below[blocks[name]] if name in blocks else len(ordered) + 1 if m["first"] else 1 if m["last"] else 0
        for name, m in matches.items()
        if m
    }
