"""Which gradients are clipped and which weights are decayed: the same groups whichever rule an optimizer has."""

import jax
import optax
from jaxtyping import PyTree

from nfnet_eqx.models import is_classifier_weight, parameter_mask, parameter_name
from nfnet_eqx.optim._agc import agc


def clip_gradients(clipping: float | None, eps: float, clip_norm: float | None) -> optax.GradientTransformation:
    """AGC of all but the classifier's weight, then the norm of all gradients together; None leaves either out."""
    by_unit = None if clipping is None else optax.masked(agc(clipping, eps), _not_the_classifier)
    by_norm = None if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    if by_unit and by_norm:
        return optax.chain(by_unit, by_norm)
    return by_unit or by_norm or optax.identity()


def decay_weights(weight_decay: float, head_weight_decay: float | None = None) -> optax.GradientTransformation:
    """Adds a multiple of each weight; of the classifier's another one, where it is given.

    Decayed are the weights of convolutions and linear layers. Biases, gains, LayerNorm's scales, positions, tokens and
    the query of attention pooling are not.
    """
    if head_weight_decay is None:
        return optax.add_decayed_weights(weight_decay, _weights)
    return optax.chain(
        optax.add_decayed_weights(weight_decay, lambda params: _both(_weights(params), _not_the_classifier(params))),
        optax.add_decayed_weights(head_weight_decay, lambda params: parameter_mask(params, is_classifier_weight)),
    )


def _weights(params: PyTree) -> PyTree[bool]:
    # A LayerNorm's scale is called `weight` too, and is a vector.
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: parameter_name(path).endswith(".weight") and leaf.ndim >= 2, params
    )


def _not_the_classifier(params: PyTree) -> PyTree[bool]:
    return parameter_mask(params, lambda name: not is_classifier_weight(name))


def _both(a: PyTree[bool], b: PyTree[bool]) -> PyTree[bool]:
    return jax.tree.map(lambda x, y: x and y, a, b)
