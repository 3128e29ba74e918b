"""Exponential moving average of the parameters."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree


def update_ema(ema: PyTree, params: PyTree, step: Int[Array, ""], decay: float = 0.99999) -> PyTree:
    """The average after `step` (counted from 0), with TensorFlow's warm-up `min(decay, (1 + t) / (10 + t))`.

    Start from a *copy* of the parameters: the same arrays in both trees cannot be donated.

    References:
        2102.06171, appendix A.1; warm-up as in the released code.
    """
    t = step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda new, old: old + (1 - rate).astype(old.dtype) * (new - old), params, ema)
