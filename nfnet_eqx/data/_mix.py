"""MixUp and CutMix, on the device."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from nfnet_eqx._errors import InputError


def mix(
    images: Float[Array, "b h w c"],
    labels: Float[Array, "b k"],
    keys: Key[Array, " b"],
    *,
    mixup: float,
    cutmix: bool,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
    r"""Mixes each picture with its neighbour: 0 with 1, 2 with 3, and so on.

    MixUp averages the pictures, CutMix pastes a box of the neighbour; labels are averaged by the same share. Where both
    are on, a fair coin decides for each picture.

    .. math:: \tilde x = \lambda x + (1 - \lambda) x', \quad \tilde y = \lambda y + (1 - \lambda) y', \quad
        \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    What happens to a picture depends on its own key and its neighbour alone, so devices exchange nothing, and a batch
    comes out the same however it is split into parts of even size.

    Args:
        images: pictures; their number is even.
        labels: the probabilities of the classes.
        keys: a random key for each picture.
        mixup: alpha, the parameter of the Beta distribution; 0: no MixUp.
        cutmix: whether to use CutMix; its box covers a uniform share of the picture (before it is cut at the border).

    Returns:
        Mixed pictures and labels.

    Raises:
        InputError: an odd number of pictures.

    References:
        MixUp: Zhang et al., 1710.09412. CutMix: Yun et al., 1905.04899. Half and half: 2102.06171, appendix A.1.
    """
    if not mixup and not cutmix:
        return images, labels
    if len(images) % 2:
        raise InputError(f"batch size (={len(images)} on a device) must be even for MixUp and CutMix")

    def one(image, neighbour, label, other, key):
        coin, mixup_key, cutmix_key = jr.split(key, 3)
        height, width = image.shape[:2]
        # The picture's own part in each pixel. What is off is not computed: `pick` is a constant then.
        share = jr.beta(mixup_key, mixup, mixup) if mixup else jnp.ones(())
        outside = 1 - _box(cutmix_key, height, width).astype(share.dtype) if cutmix else jnp.ones((height, width))
        pick = jr.bernoulli(coin) if mixup and cutmix else jnp.asarray(bool(mixup))
        weight = jnp.where(pick, jnp.full((height, width), share), outside)
        mean = jnp.mean(weight).astype(label.dtype)
        weight = weight[..., None].astype(image.dtype)
        return weight * image + (1 - weight) * neighbour, mean * label + (1 - mean) * other

    return jax.vmap(one)(images, _swap(images), labels, _swap(labels), keys)


def _swap(x: Array) -> Array:
    """The neighbour of each row."""
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _box(key: PRNGKeyArray, height: int, width: int) -> Bool[Array, "{height} {width}"]:
    """Where a box lies, (height, width): centre uniform, sides the root of a uniform share, cut at the border."""
    row_key, column_key, share_key = jr.split(key, 3)
    side = jnp.sqrt(jr.uniform(share_key))

    def inside(key, length):
        centre = jr.randint(key, (), 0, length)
        half = (side * length).astype(jnp.int32) // 2
        index = jnp.arange(length)
        return (index >= centre - half) & (index < centre + half)

    return inside(row_key, height)[:, None] & inside(column_key, width)[None, :]
