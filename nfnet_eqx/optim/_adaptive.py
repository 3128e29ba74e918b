"""The optimizers of the ViT papers: AdamW, and Adafactor with momentum, both with decoupled weight decay."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from nfnet_eqx.optim._groups import clip_gradients, decay_weights
from nfnet_eqx.optim._layer_decay import scale_by_layer


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.1,
    head_weight_decay: float | None = None,
    clipping: float | None = None,
    eps: float = 1e-3,
    clip_norm: float | None = 1.0,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    r"""AdamW with the gradients clipped by their norm, and a weight decay apart for the classifier.

    .. math:: w_{t+1} = w_t - \eta_t (\hat m_t / (\sqrt{\hat v_t} + 10^{-8}) + \lambda w_t)

    Decayed are the weights of convolutions and linear layers; biases, gains, LayerNorm's scales, positions, tokens and
    the query of attention pooling are not. Parts that are missing (None) stay as they are.

    Args:
        learning_rate: a number or a schedule, whatever the batch; 1e-3 for batches of 1024 to 4096 in the papers.
        momentum: beta1.
        beta2: decay of the squared gradients' average.
        weight_decay: lambda. The learning rate multiplies it, and with that the schedule. (big_vision, the ViT papers'
            code, states the product at the peak: its 1e-4 at rate 1e-3 is 0.1 here.)
        head_weight_decay: lambda of the classifier's weight; None: the same.
        clipping: lambda of AGC, which is the NFNets' and comes first; None leaves it out.
        eps: AGC's floor of the parameter norm.
        clip_norm: largest norm of all gradients together; None: any.
        layer_decay: the rate of each layer as a fraction of the next one's (see `scale_by_layer`).

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (1711.05101), algorithm 2;
        Beyer et al., "Better plain ViT baselines for ImageNet-1k" (2205.01580).
    """
    return optax.chain(
        clip_gradients(clipping, eps, clip_norm),
        _scale_by_adam(momentum, beta2),
        decay_weights(weight_decay, head_weight_decay),
        optax.scale_by_learning_rate(learning_rate),
        optax.identity() if layer_decay == 1 else scale_by_layer(layer_decay),
    )


def adafactor(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.03,
    head_weight_decay: float | None = 3.0,
    clipping: float | None = None,
    eps: float = 1e-3,
    clip_norm: float | None = 1.0,
    layer_decay: float = 1.0,
) -> optax.GradientTransformation:
    """Adafactor as large ViTs are trained with it: much like AdamW, with a quarter of its state.

    Every weight's squared gradients are kept as one average a row and one a column, where both have 32 entries or more.
    Other than in the paper of Adafactor there is a momentum, in bfloat16; the averages forget like Adam's, with
    `min(beta2, 1 - t ** -0.8)`; steps are neither scaled by the size of the parameter nor clipped by their own. Those
    last two make `optax.adafactor`, with its defaults, another optimizer.

    Rows and columns are the two longest axes of an array. A kernel of attention that a code keeps as (width, heads,
    width of a head) is therefore factored otherwise than ours, (3 width, width).

    Args:
        learning_rate: a number or a schedule, whatever the batch; 8e-4 for batches of 4096 to 32,768 in the paper.
        momentum: beta1.
        beta2: the most that the squared gradients' average keeps of itself in a step.
        weight_decay: decoupled, as `adamw`'s.
        head_weight_decay: that of the classifier's weight; None: the same.
        clipping: as `adamw`'s, and so are all others.
        eps: see `adamw`.
        clip_norm: see `adamw`.
        layer_decay: see `adamw`.

    References:
        Zhai et al., "Scaling Vision Transformers" (2106.04560), section 3.4, appendices B and C, with the released code
        (big_vision) for what they leave open; Shazeer and Stern, "Adafactor" (1804.04235).
    """

    def forgetting(step: ArrayLike, exponent: ArrayLike) -> Float[Array, ""]:
        return jnp.minimum(1 - (jnp.asarray(step, jnp.float32) + 1) ** jnp.negative(exponent), beta2)

    return optax.chain(
        clip_gradients(clipping, eps, clip_norm),
        optax.scale_by_factored_rms(min_dim_size_to_factor=32, decay_rate_fn=forgetting),
        _average_in_bfloat16(momentum),
        decay_weights(weight_decay, head_weight_decay),
        optax.scale_by_learning_rate(learning_rate),
        optax.identity() if layer_decay == 1 else scale_by_layer(layer_decay),
    )


def _scale_by_adam(beta1: float, beta2: float) -> optax.GradientTransformation:
    """optax's, which relies on implicit promotion, where JAX's is switched off too."""
    adam = optax.scale_by_adam(beta1, beta2)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(updates, state, params)

    return optax.GradientTransformation(adam.init, update)


def _average_in_bfloat16(decay: float) -> optax.GradientTransformation:
    """The moving average of the updates, kept in bfloat16 and computed in the updates' own precision.

    `optax.ema` would multiply what it kept in bfloat16, where 0.9 is 0.8984.
    """

    def init(params: PyTree) -> PyTree:
        return jax.tree.map(lambda p: jnp.zeros_like(p, jnp.bfloat16), params)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        averages = jax.tree.map(lambda u, m: decay * m.astype(u.dtype) + (1 - decay) * u, updates, state)
        return averages, jax.tree.map(lambda m: m.astype(jnp.bfloat16), averages)

    return optax.GradientTransformation(init, update)
