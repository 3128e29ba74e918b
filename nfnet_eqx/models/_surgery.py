"""Changing a trained network: another classifier, other input channels, parts that stay as they are."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from nfnet_eqx.models._names import is_parameter, named_parameters, parameter_name, with_parameters
from nfnet_eqx.models._network import AnyNetwork, replaced


def replace_head(model: AnyNetwork, num_classes: int, *, key: PRNGKeyArray) -> AnyNetwork:
    """The network with a fresh classifier; everything else stays as it is.

    Args:
        model: a network.
        num_classes: outputs of the new classifier; 0 removes it.
        key: randomness of its weight.

    Raises:
        InputError: `num_classes` is negative.
    """
    return model.with_classifier(num_classes, key=key)  # pyright: ignore[reportReturnType]


def replace_in_channels(model: AnyNetwork, in_channels: int) -> AnyNetwork:
    """The network for images with another number of channels, its first convolution adapted by timm's rule.

    To one channel: the sum over the old ones, which sees a grey image as the equal channels it stands for. Otherwise
    the old kernels are repeated, cut to `in_channels` and scaled by old / new. (An NFNet's weight standardization then
    brings every kernel to the same norm again: only the scale of the first convolution's outputs differs from a sum.)

    timm does so from three channels, and to one channel also from two; from other counts it starts the first
    convolution afresh or fails. Here the rule is the same from any count: one channel for radiographs, four with
    near-infrared, 13 of a satellite.

    Args:
        model: a network, not folded.
        in_channels: channels of the new images.

    Raises:
        InputError: `in_channels` is impossible.
    """
    config = dataclasses.replace(model.config, in_channels=in_channels)
    old, new = model.config.in_channels, config.in_channels
    parameters, first = named_parameters(model), f"{config.first_conv}.weight"
    weight = parameters[first]
    if new == 1:
        weight = jnp.sum(weight, axis=1, keepdims=True)
    else:
        weight = jnp.tile(weight, (1, -(-new // old), 1, 1))[:, :new] * jnp.asarray(old / new, weight.dtype)
    return replaced(with_parameters(model, parameters | {first: weight}), config=config)


def parameter_mask(tree: PyTree, test: Callable[[str], bool]) -> PyTree:
    """A tree of booleans: `test(name)` for every parameter, False for everything that is none.

    It serves as `equinox.partition`'s filter, to train some parameters and freeze the others, and as an optax mask.

    Example:
        >>> import equinox as eqx, jax, nfnet_eqx as nfx
        >>> model = nfx.create_model("test_nfnet", key=jax.random.key(0))
        >>> trained, frozen = eqx.partition(model, nfx.parameter_mask(model, lambda name: name.startswith("head.")))
        >>> list(nfx.named_parameters(trained))
        ['head.fc.weight', 'head.fc.bias']

    Args:
        tree: a network, or any part or image of one (gradients, `equinox.filter`ed parameters).
        test: decides by the parameter's name.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: is_parameter(leaf) and test(parameter_name(path)), tree)
