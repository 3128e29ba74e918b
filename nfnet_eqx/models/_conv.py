"""The one place that calls a convolution or a pooling window.

Feature maps are `(height, width, channels)` here and in every layer: on CPU a 1x1 convolution is then one matrix
product (2-4 times faster than over `(channels, height, width)`), and it is the layout that XLA chooses itself on recent
GPUs. Weights keep their public layout `(out, in / groups, height, width)`.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from nfnet_eqx.models._config import Padding

# The underscores: the map that goes in and the one that comes out may differ in size.
FeatureMap = Float[Array, "_height _width _channels"]
ConvWeight = Float[Array, "out in_per_group kernel_height kernel_width"]


def conv2d(
    x: FeatureMap,
    weight: ConvWeight,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: Padding,
) -> FeatureMap:
    """A grouped 2-D convolution of one feature map, without bias.

    Args:
        x: feature map.
        weight: kernels; `out` and `in` are divided into `groups` contiguous runs.
        stride: step of the window, in both directions.
        dilation: distance between the taps of the kernel.
        groups: number of groups.
        padding: `"same"`: output size is `ceil(size / stride)` and an odd pixel is padded last, as TensorFlow does;
            `"symmetric"`: the same count on both sides, as PyTorch does.

    Returns:
        The convolved feature map, in `x`'s dtype.
    """
    pads = tuple(
        _pad(size, kernel, stride, dilation, padding)
        for size, kernel in zip(x.shape[:2], weight.shape[2:], strict=True)
    )
    conv = functools.partial(_native, stride=stride, dilation=dilation, pads=pads)
    if groups > 1:
        # XLA's grouped convolution is 3-5 times slower on CPU than its groups one by one, and its weight gradient
        # 5-500 times; the result differs by rounding at most.
        return lax.platform_dependent(
            x,
            weight,
            cpu=functools.partial(_split, conv=conv, groups=groups),
            default=functools.partial(conv, groups=groups),
        )
    if weight.shape[2:] == (1, 1) and stride == 1:
        return lax.platform_dependent(x, weight, cpu=_product, default=functools.partial(conv, groups=1))
    return conv(x, weight, groups=1)


def _native(
    x: FeatureMap,
    weight: ConvWeight,
    *,
    groups: int,
    stride: int,
    dilation: int,
    pads: tuple[tuple[int, int], ...],
) -> FeatureMap:
    return lax.conv_general_dilated(
        x[None],
        weight,
        window_strides=(stride, stride),
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=groups,
    )[0]


def _split(x: FeatureMap, weight: ConvWeight, *, conv, groups: int) -> FeatureMap:
    xs, weights = jnp.split(x, groups, axis=-1), jnp.split(weight, groups, axis=0)
    return jnp.concatenate([conv(a, b, groups=1) for a, b in zip(xs, weights, strict=True)], axis=-1)


def _product(x: FeatureMap, weight: ConvWeight) -> FeatureMap:
    return x @ weight[:, :, 0, 0].T


def _pad(size: int, kernel: int, stride: int, dilation: int, padding: Padding) -> tuple[int, int]:
    span = dilation * (kernel - 1)
    if padding == "symmetric":
        half = (stride - 1 + span) // 2
        return half, half
    total = max((-(-size // stride) - 1) * stride + span + 1 - size, 0)
    return total // 2, total - total // 2


def avg_pool2d(x: FeatureMap, stride: int) -> FeatureMap:
    """Mean over 2x2 windows, padded last where the size is odd.

    With stride 2 a window at the border averages the real pixels only. With stride 1 (the shortcut of a dilated stage)
    the padding counts as zeros: so timm computes it, and its weights were judged that way.
    """
    window = functools.partial(
        lax.reduce_window,
        init_value=np.zeros((), x.dtype),  # NumPy's: JAX recognizes a sum by its constant
        computation=lax.add,
        window_dimensions=(2, 2, 1),
        window_strides=(stride, stride, 1),
        padding="SAME",
    )
    total = window(x)
    if stride == 1:
        return total / jnp.asarray(4, x.dtype)
    # Real pixels in each window, known before anything runs: XLA would take 20 s to find them for a large picture.
    rows, columns = (np.minimum(2, np.arange(size, 0, -2)) for size in x.shape[:2])
    return total / jnp.asarray(np.outer(rows, columns)[..., None], x.dtype)


def max_pool2d(x: FeatureMap) -> FeatureMap:
    """Maximum over 3x3 windows of stride 2, with one pixel of padding on both sides (the NF-ResNet stem)."""
    return lax.reduce_window(
        x,
        np.asarray(-np.inf, x.dtype),
        lax.max,
        window_dimensions=(3, 3, 1),
        window_strides=(2, 2, 1),
        padding=((1, 1), (1, 1), (0, 0)),
    )
