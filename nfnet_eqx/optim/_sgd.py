"""The NFNet papers' optimizer: AGC, then weight decay, then Nesterov momentum."""

import optax

from nfnet_eqx.optim._groups import clip_gradients, decay_weights
from nfnet_eqx.optim._layer_decay import scale_by_layer


def nfnet_sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 2e-5,
    head_weight_decay: float | None = None,
    clipping: float | None = 0.01,
    eps: float = 1e-3,
    clip_norm: float | None = None,
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
        head_weight_decay: that of the classifier's weight; None: the same.
        clipping: AGC's lambda; smaller for larger batches (0.01 from 1024 on). None leaves clipping out.
        eps: AGC's floor of the parameter norm.
        clip_norm: largest norm of all gradients together, after AGC. The papers have no such limit.
        layer_decay: for fine-tuning, the rate of each layer as a fraction of the next one's (see `scale_by_layer`).

    References:
        2102.06171, sections 4.1 and 6.1, appendix A.1; groups as in the released code.
    """
    return optax.chain(
        clip_gradients(clipping, eps, clip_norm),
        decay_weights(weight_decay, head_weight_decay),
        optax.sgd(learning_rate, momentum=momentum, nesterov=True),
        optax.identity() if layer_decay == 1 else scale_by_layer(layer_decay),
    )
