"""Layer-wise decay of the learning rate, for fine-tuning: the nearer to the pixels, the less a layer moves."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import layers_below_head, parameter_name


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    r"""Multiplies each parameter's update by `decay` to the power of its layer's distance from the head.

    .. math:: u_i \mapsto d^{\,L - l(i)} u_i

    The layers are what comes before the blocks, every block and the head, L (`layers_below_head`). The head moves at
    the full rate, the last block at `decay`, the stem of a network of n blocks at `decay ** (n + 1)`. A parameter's
    layer is read from its name, so frozen parts (None) count and move nobody else's rate.

    Args:
        decay: d, above 0; 1 is no decay. It stands last in a chain: what it scales is the step.

    Returns:
        A gradient transformation without state. Its `update` raises `InputError` for names that are no network's.

    Raises:
        InputError: `decay` is not above 0 and at most 1.

    References:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (1801.06146), section 3.2;
        layers as in timm.
    """
    if not 0 < decay <= 1:
        raise InputError(f"decay must be above 0 and at most 1, got {decay}; 1 leaves every layer its full rate")

    def update(updates, state, params=None):
        distances = _distances(updates)
        return jax.tree_util.tree_map_with_path(
            lambda path, u: u * jnp.asarray(decay ** distances[parameter_name(path)], u.dtype), updates
        ), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _distances(tree: PyTree) -> dict[str, int]:
    """How many layers each parameter stands below the head, by name."""
    # With the missing ones: a block that is frozen as a whole is a layer still.
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: leaf is None)
    return layers_below_head([parameter_name(path) for path, _ in leaves])
