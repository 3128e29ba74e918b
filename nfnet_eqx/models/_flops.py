"""Floating-point operations of an image, forward and in training: the unit in which networks are compared."""

from nfnet_eqx.models._families import count
from nfnet_eqx.models._network import NetworkConfig


def flops(config: NetworkConfig, image_size: int | tuple[int, int], *, training: bool = True) -> int:
    """Floating-point operations (FLOPs) that one image costs.

    The rule: a multiply-add of `count` is two operations, and the backward pass costs twice the forward pass (a product
    for the gradient of the input, one for that of the weight). So training costs six operations a multiply-add, and
    twelve where SAM takes a second gradient of the image. What is computed again to save memory does not count.

    Activations, pooling and the loss are left out: together 1 to 2 % more. So is what does not grow with the batch:
    weight standardization and an NFNet's optimizer take some forty operations a parameter and step, for F0 at 224
    pixels as much as a twentieth of one image.

    >>> from nfnet_eqx import get_config
    >>> flops(get_config("dm_nfnet_f0"), 224, training=False)
    18974973952

    Args:
        config: the architecture.
        image_size: side of the image in pixels, or `(height, width)`.
        training: forward and backward pass, instead of the forward pass alone.

    Raises:
        InputError: the network cannot take such an image.
    """
    return (6 if training else 2) * count(config, image_size).macs
