"""The papers' optimizer: AGC, then weight decay, then Nesterov momentum."""

import jax.numpy as jnp
import optax

from nfnet_eqx.models import is_classifier_weight, parameter_mask
from nfnet_eqx.optim._agc import agc
from nfnet_eqx.optim._layer_decay import scale_by_layer


def nfnet_sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 2e-5,
    clipping: float | None = 0.01,
    eps: float = 1e-3,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum, coupled weight decay and adaptive gradient clipping, in the papers' groups.

    The classifier's weight is decayed and not clipped; gains, biases and skip gains are clipped and not decayed; all
    other weights (squeeze-and-excite too) are clipped and decayed. Decay is added to the *clipped* gradient. Parts that
    are missing (None, as `equinox.partition` leaves them) stay as they are.

    Args:
        learning_rate: a number or a schedule; the papers' peak is `0.1 * batch_size / 256`.
        momentum: of Nesterov's kind.
        weight_decay: coefficient of the L2 term.
        clipping: AGC's lambda; smaller for larger batches (0.01 from 1024 on). None leaves clipping out.
        eps: AGC's floor of the parameter norm.
        layer_decay: for fine-tuning, the rate of each layer as a fraction of the next one's (see `scale_by_layer`).

    References:
        2102.06171, sections 4.1 and 6.1, appendix A.1; groups as in the released code.
    """
    return optax.chain(
        optax.identity()
        if clipping is None
        else optax.masked(
            agc(clipping, eps), lambda params: parameter_mask(params, lambda name: not is_classifier_weight(name))
        ),
        optax.add_decayed_weights(
            weight_decay, lambda params: parameter_mask(params, lambda name: name.endswith(".weight"))
        ),
        optax.sgd(learning_rate, momentum=momentum, nesterov=True),
        optax.identity() if layer_decay == 1 else scale_by_layer(layer_decay),
    )


def warmup_cosine(peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Linear from 0 to `peak` over `warmup_steps`, then half a cosine down to 0 at `total_steps`.

    References:
        2102.06171, appendix A.1.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, total_steps)
    # The same values; optax leaves the conversion to implicit promotion, which may be switched off.
    return lambda count: schedule(jnp.asarray(count, jnp.float32))
