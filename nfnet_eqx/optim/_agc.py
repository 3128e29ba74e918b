"""Adaptive gradient clipping (AGC), unit by unit."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from nfnet_eqx._errors import InputError


def agc(clipping: float = 0.01, eps: float = 1e-3) -> optax.GradientTransformation:
    r"""Clips each unit's gradient to a fraction of that unit's parameter norm.

    .. math:: G_i \mapsto \lambda \frac{\max(\|W_i\|, \epsilon)}{\|G_i\|} G_i
        \quad\text{if}\quad \frac{\|G_i\|}{\max(\|W_i\|, \epsilon)} > \lambda

    A unit is one output channel: the norm runs over every axis but the first, Equinox's and PyTorch's layout. A vector
    in any disguise (biases, gains of shape `(out, 1, 1, 1)`, scalars) is one unit as a whole.

    optax's own `adaptive_grad_clip` assumes the output axis *last* and is silently wrong on these weights. From optax
    0.2.6 on it takes an `axis`, and with `axis=(1, 2, 3)` it does the same for a convolution's weight; but the axis is
    one for all parameters, and a network also has matrices, vectors and scalars.

    Args:
        clipping: lambda, the largest ratio of gradient norm to parameter norm.
        eps: floor of the parameter norm, so that parameters at zero can move.

    Returns:
        A gradient transformation; its `update` needs the parameters.

    References:
        2102.06171, section 4.1.
    """

    def update(updates, state, params=None):
        if params is None:
            raise InputError("params (=None) is needed: call update(gradients, state, params)")

        def clip(grad: Array, param: Array) -> Array:
            norm = unit_norm(grad)
            limit = clipping * jnp.maximum(unit_norm(param), eps)
            return jnp.where(norm > limit, grad * (limit / jnp.maximum(norm, 1e-6)), grad)

        return jax.tree.map(clip, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def unit_norm(x: Float[Array, "*shape"]) -> Float[Array, "*broadcast"]:
    """The Euclidean norm of each output unit, in a shape that broadcasts against `x`."""
    axes = None if sum(size > 1 for size in x.shape) <= 1 else tuple(range(1, x.ndim))
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
