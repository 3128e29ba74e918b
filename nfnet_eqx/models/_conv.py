"""The one place that calls a convolution or a pooling window.

Feature maps are `(height, width, channels)` here and in every layer: on CPU a 1x1 convolution is then one matrix
product (2-4 times faster than over `(channels, height, width)`), and it is the layout that XLA chooses itself on recent
GPUs. Weights keep their public layout `(out, in / groups, height, width)`.

Two forms of the same function exist, because XLA's own convolution is slow on CPU: a grouped convolution as its groups,
one by one (3-5 times faster, its weight gradient 5-500 times), and a 1x1 convolution as a matrix product (1.3-2.5
times). They differ by rounding at most.

The form is chosen when a function is traced, by the platform of JAX's default device. `lax.platform_dependent` would
choose later, when the platform of the lowering is known, but it puts both forms and its own primitive into every jaxpr,
and whatever reads jaxprs (ONNX exporters, counters of operations) stops there; a primitive of our own would stop them
as well. What the early choice costs: a function traced here and lowered for another platform has this platform's form,
which is right everywhere and may be slow there. `native_convolutions` gives the one form that suits all.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
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
    spans = tuple(dilation * (kernel - 1) for kernel in weight.shape[2:])
    if padding == "same":
        pads = lax.padtype_to_pads(x.shape[:2], tuple(span + 1 for span in spans), (stride, stride), "SAME")
    else:
        halves = ((stride - 1 + span) // 2 for span in spans)
        pads = [(half, half) for half in halves]
    if not all(isinstance(pad, int) for side in pads for pad in side):
        # They follow from a size that is a symbol (`jax.export`), which a convolution takes from a pad of its own only.
        x, pads = jnp.pad(x, (*pads, (0, 0))), [(0, 0), (0, 0)]
    conv = functools.partial(_native, stride=stride, dilation=dilation, pads=pads)
    if groups > 1 and _on_cpu():
        return _split(x, weight, conv=conv, groups=groups)
    if weight.shape[2:] == (1, 1) and stride == 1 and groups == 1 and _on_cpu():
        return _product(x, weight)
    return conv(x, weight, groups=groups)


_native_only: contextvars.ContextVar[bool] = contextvars.ContextVar("native_convolutions", default=False)


@contextlib.contextmanager
def native_convolutions() -> Iterator[None]:
    """Within it, every convolution that is traced is one of XLA's own, whatever the platform.

    For a function that is traced on this machine and runs elsewhere (`jax.export` for other platforms), and for tools
    that translate a jaxpr (a grouped convolution is then one ONNX node). Without it, tracing on a CPU gives the form
    that is fast on CPUs; the results are equal up to rounding. A function that JAX has traced before keeps its form,
    so make the `jax.jit` within.

    Example:
        >>> import jax, nfnet_eqx as nfx
        >>> from nfnet_eqx.models import native_convolutions
        >>> model = nfx.create_model("test_nfnet", key=jax.random.key(0))
        >>> image = jax.ShapeDtypeStruct((3, 64, 64), "float32")
        >>> with native_convolutions():
        ...     exported = jax.export.export(jax.jit(lambda x: model(x)), platforms=["cpu", "cuda"])(image)
        >>> exported.platforms
        ('cpu', 'cuda')
    """
    token = _native_only.set(True)
    try:
        yield
    finally:
        _native_only.reset(token)


def _on_cpu() -> bool:
    """Whether what is traced now is to take the CPU's form."""
    if _native_only.get():
        return False
    # The default device is part of the key under which JAX keeps traces: another one means another trace.
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    platform = jax.default_backend() if device is None else getattr(device, "platform", device)
    return platform == "cpu"


def _native(
    x: FeatureMap,
    weight: ConvWeight,
    *,
    groups: int,
    stride: int,
    dilation: int,
    pads: Sequence[tuple[int, int]],
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


def avg_pool2d(x: FeatureMap, stride: int, *, padding: Padding) -> FeatureMap:
    """Mean over 2x2 windows, padded last where the size is odd.

    With stride 2 a window at the border averages the real pixels only. With stride 1 (the shortcut of a dilated stage)
    the padding counts as zeros: so timm computes it, and its weights were judged that way.

    Args:
        x: feature map.
        stride: step of the window, 1 or 2.
        padding: that of the convolutions beside it. Both kinds cover the same pixels; but a size that is a symbol
            (`jax.export`) must come out written as theirs does.
    """
    window = functools.partial(
        lax.reduce_window,
        init_value=np.zeros((), x.dtype),  # NumPy's: JAX recognizes a sum by its constant
        computation=lax.add,
        window_dimensions=(2, 2, 1),
        window_strides=(stride, stride, 1),
        padding="SAME" if padding == "same" else ((0, 1), (0, 1), (0, 0)),
    )
    total = window(x)
    if stride == 1:
        return total / jnp.asarray(4, x.dtype)
    rows, columns = (_real_pixels(*sizes) for sizes in zip(x.shape[:2], total.shape[:2], strict=True))
    return total / jnp.asarray(rows[:, None, None] * columns[None, :, None], x.dtype)


def _real_pixels(size: Any, windows: Any) -> np.ndarray | Array:
    """How many of each window's two pixels are no padding.

    In NumPy, known before anything runs: XLA would take 20 s to find them for a large image. A size that is a symbol is
    known to XLA alone.
    """
    xp = np if isinstance(size, int) else jnp
    return xp.minimum(2, size - 2 * xp.arange(windows))


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
