"""Floating-point operations of an image, forward and in training: the unit in which networks are compared."""

from nfnet_eqx.models._families import count
from nfnet_eqx.models._network import NetworkConfig


def flops(config: NetworkConfig, image_size: int | tuple[int, int], *, training: bool = True) -> int:
    """Floating-point operations (FLOPs) that one image costs.

    The rule: a multiply-add of `count` is two operations, and the backward pass costs twice the forward pass (a product
    for the gradient of the input, one for that of the weight). So training costs six operations a multiply-add. SAM's
    second gradient and rematerialization come on top.

    Activations, pooling and the loss are left out, as is what does not grow with the batch: weight standardization
    and the optimizer cost some tens of operations a parameter and step. For NFNet-F0 at 224 pixels that is a twentieth
    of one image; of a step of 4096 it is nothing.

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
