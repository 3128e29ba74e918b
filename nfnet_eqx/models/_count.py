"""Parameters and multiply-adds of an NFNet, without building anything."""

from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._layers import eca_kernel, se_hidden
from nfnet_eqx.models._network import Count
from nfnet_eqx.models._plan import plan_blocks


def count_nfnet(config: NFNetConfig, size: tuple[int, int]) -> Count:
    """Parameters of an NFNet, and multiply-adds at an image size that it can take."""
    parts: list[Count] = []

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
