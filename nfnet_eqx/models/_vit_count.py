"""Parameters and multiply-adds of a vision transformer, without building anything."""

from nfnet_eqx.models._network import Count
from nfnet_eqx.models._vit_config import ViTConfig


def count_vit(config: ViTConfig, size: tuple[int, int]) -> Count:
    """Parameters of a ViT, and multiply-adds at an image size that it can take.

    Learned positions count as they are stored, whatever the image's size. Multiply-adds are those of the linear layers
    and of both of attention's matrix products (queries with keys, weights with values).
    """
    width, mlp = config.width, config.mlp_width
    patches = size[0] // config.patch_size * (size[1] // config.patch_size)
    tokens = patches + config.prefix_tokens
    norm = Count(2 * width, 0)
    perceptron = (_linear(width, mlp), _linear(mlp, width))
    block = [
        *(norm, norm),
        *_times(tokens, _linear(width, 3 * width, bias=config.qkv_bias), _linear(width, width), *perceptron),
        Count(0, 2 * tokens * tokens * width),
    ]
    parts = [
        *_times(patches, _linear(config.in_channels * config.patch_size**2, width)),
        Count(width * (config.prefix_tokens + config.stored_positions), 0),
        *block * config.depth,
        norm,
    ]
    if config.pool == "map":
        parts += [norm, Count(width, 2 * patches * width), *_times(patches, _linear(width, 2 * width))]
        parts += [_linear(width, width), _linear(width, width), *perceptron]
    if config.num_classes:
        parts.append(_linear(width, config.num_classes))
    return Count(sum(part.parameters for part in parts), sum(part.macs for part in parts))


def _linear(inputs: int, outputs: int, *, bias: bool = True) -> Count:
    """Of one token."""
    return Count(inputs * outputs + outputs * bias, inputs * outputs)


def _times(tokens: int, *layers: Count) -> list[Count]:
    return [Count(layer.parameters, layer.macs * tokens) for layer in layers]
