"""The learning rate by step: warm-up, then down to 0 as a cosine or as 1 / sqrt(step) with a cool-down."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear from 0 to `peak` over `warmup_steps`, then half a cosine down to 0 at `total_steps`.

    References:
        2102.06171, appendix A.1.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, total_steps)
    # The same values; optax leaves the conversion to implicit promotion, which may be switched off.
    return lambda count: schedule(jnp.asarray(count, jnp.float32))


def warmup_rsqrt(peak: float, warmup_steps: int, total_steps: int, cooldown_steps: int = 0) -> optax.Schedule:
    r"""Linear from 0 to `peak` over `warmup_steps`, then as 1 / sqrt(step), in the last `cooldown_steps` linearly to 0.

    .. math:: \eta_t = \hat\eta \, \min(t / w, \sqrt{w / t}) \, \min(1, (T - t) / c)

    Up to the cool-down nothing depends on `total_steps`: one long run can be cooled down from several of its states,
    each of which is then as good as a run of that length. Without a cool-down the rate does not end at 0.

    Args:
        peak: the rate after the warm-up.
        warmup_steps: w, which is also the time scale of the decay, as in the paper (10,000 for both); 0 starts at the
            peak and decays with a time scale of one step.
        total_steps: T; from here on the rate of a run with a cool-down is 0.
        cooldown_steps: c.

    References:
        Zhai et al., "Scaling Vision Transformers" (2106.04560), section 3.5; formula as in the released code.
    """
    scale = max(warmup_steps, 1)

    def schedule(count: ArrayLike) -> Float[Array, "*steps"]:
        t = jnp.asarray(count, jnp.float32)
        rate = peak * jnp.sqrt(scale / jnp.maximum(t - warmup_steps + scale, scale))
        if warmup_steps:
            rate = rate * jnp.minimum(t / warmup_steps, 1)
        if cooldown_steps:
            rate = rate * jnp.clip((total_steps - t) / cooldown_steps, 0, 1)
        return rate

    return schedule
