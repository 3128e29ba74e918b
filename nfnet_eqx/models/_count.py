"""Parameters and multiply-adds of any config, without building anything."""

from typing import NamedTuple

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._layers import eca_kernel, se_hidden
from nfnet_eqx.models._plan import net_stride, plan_blocks


class Count(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: learnable numbers.
        macs: multiply-adds of one forward pass on one picture: convolutions, attention and classifier. The papers'
            tables call them FLOPs.
    """

    parameters: int
    macs: int


def count(config: NFNetConfig, image_size: int | tuple[int, int]) -> Count:
    """Counts the parameters and multiply-adds of a network.

    >>> from nfnet_eqx import get_config
    >>> count(get_config("dm_nfnet_f0"), 256)
    Count(parameters=71489284, macs=12384198656)

    Args:
        config: the architecture.
        image_size: side of the picture in pixels, or `(height, width)`.

    Raises:
        InputError: the picture is smaller than the network's stride.

    References:
        2102.06171, table 3.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < net_stride(config):
        raise InputError(f"image_size (={image_size}) must be at least {net_stride(config)}, the network's stride")
    parts: list[Count] = []
    size = (height, width)

    channels = config.in_channels
    for out, stride in zip(config.stem_widths, config.stem_strides, strict=True):
        size = _halved(size, stride)
        parts.append(_conv(channels, out, config.stem_kernel, size))
        channels = out
    if config.stem_pool:
        size = _halved(size, 2)

    for stage in plan_blocks(config):
        for plan in stage:
            mid = plan.mid_width
            parts.append(_conv(plan.in_width, mid, 1, size))
            if plan.shortcut_conv:
                parts.append(_conv(plan.in_width, plan.out_width, 1, _halved(size, plan.stride)))
            size = _halved(size, plan.stride)
            parts += [_conv(mid, mid, 3, size, plan.groups)] * (2 if config.extra_conv else 1)
            parts.append(_conv(mid, plan.out_width, 1, size))
            parts.append(_attention(config, mid if config.block == "regnet" else plan.out_width))
            parts.append(Count(int(config.skipinit), 0))

    if config.num_features is not None:
        parts.append(_conv(config.widths[-1], config.num_features, 1, size))
    classifier = config.feature_width * config.num_classes
    parts.append(Count(classifier + config.num_classes, classifier))
    return Count(sum(part.parameters for part in parts), sum(part.macs for part in parts))


def _halved(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return (-(-size[0] // stride), -(-size[1] // stride))


def _conv(in_channels: int, out_channels: int, kernel: int, size: tuple[int, int], groups: int = 1) -> Count:
    weights = kernel**2 * (in_channels // groups) * out_channels
    return Count(weights + 2 * out_channels, weights * size[0] * size[1])


def _attention(config: NFNetConfig, channels: int) -> Count:
    if config.attention is None:
        return Count(0, 0)
    if config.attention == "eca":
        kernel = eca_kernel(config, channels)
        return Count(kernel, kernel * channels)
    hidden = se_hidden(config, channels)
    return Count(2 * channels * hidden + hidden + channels, 2 * channels * hidden)
