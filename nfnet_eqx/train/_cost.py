"""What a run costs in floating-point operations, by the rule of `nfnet_eqx.flops`; known before its first step."""

import math

from nfnet_eqx.models import NetworkConfig, flops
from nfnet_eqx.train._config import TrainConfig


def step_flops(config: TrainConfig, network: NetworkConfig) -> int:
    """The FLOPs of one step, over all devices, with those of SAM's first gradient.

    They are those of the function, not of the way in which it is computed: what `remat` computes again does not count.
    Frozen parameters count as if they were trained.

    Args:
        config: the settings of a run, with the size of its images.
        network: what is trained.
    """
    assert config.image_size is not None, "prepare has found it"
    images = config.batch_size
    if config.optimizer.sam_rho > 0:
        images += config.batch_size // round(1 / config.optimizer.sam_fraction)
    return images * flops(network, config.image_size)


def evaluation_flops(config: TrainConfig, network: NetworkConfig, images: int) -> int:
    """The FLOPs of one evaluation on so many images."""
    assert config.eval_size is not None, "prepare has found it"
    return images * flops(network.at_image_size(config.eval_size), config.eval_size, training=False)


def count_evaluations(total_steps: int, interval: float) -> int:
    """How many evaluations a run makes: one whenever an interval of steps is over, and one after the last step."""
    before = total_steps - 1
    return min(math.floor(before / interval + 1e-9), before) + 1
