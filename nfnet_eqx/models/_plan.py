"""What follows from an `NFNetConfig`, block by block: the one place where widths, strides and variances are derived.

The model is built from these plans, and parameters and multiply-adds are counted from them.
"""

import dataclasses

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._config import NFNetConfig, make_divisible


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """The shape of one residual block.

    Attributes:
        in_width: channels coming in.
        out_width: channels going out.
        mid_width: channels of the 3x3 convolutions.
        groups: groups of the 3x3 convolutions.
        stride: stride of the first 3x3 convolution.
        dilation: dilation of the first 3x3 convolution.
        extra_dilation: dilation of the second one.
        shortcut_conv: whether the shortcut is a 1x1 convolution (of the activated input) instead of the identity.
        shortcut_pool: stride of the 2x2 average pool before it; `None`: no pool.
        beta: 1 / the expected standard deviation of the input.
        drop_rate: stochastic-depth rate.
    """

    in_width: int
    out_width: int
    mid_width: int
    groups: int
    stride: int
    dilation: int
    extra_dilation: int
    shortcut_conv: bool
    shortcut_pool: int | None
    beta: float
    drop_rate: float


def plan_blocks(config: NFNetConfig) -> tuple[tuple[BlockPlan, ...], ...]:
    """The blocks of every stage.

    Raises:
        InputError: a bottleneck is narrower than one group, or does not divide into groups.

    References:
        2102.06171, sections 3 and 4; 2101.08692, section 3 (the variance that `beta` undoes).
    """
    stages = []
    width, net_stride, dilation, expected_var = config.stem_widths[-1], config.stem_stride, 1, 1.0
    for stage, (depth, out_width, stage_stride) in enumerate(
        zip(config.depths, config.widths, config.stage_strides, strict=True)
    ):
        stride = stage_stride
        if stride > 1 and net_stride >= config.output_stride:
            dilation *= stride
            stride = 1
        net_stride *= stride
        blocks = []
        for index in range(depth):
            first = index == 0
            mid_width, groups = _bottleneck(config, width, out_width, very_first=first and stage == 0)
            block_stride = stride if first else 1
            # A dilated stage's first convolution still works at the dilation of the stage before.
            first_dilation = (1 if dilation in (1, 2) else 2) if first else dilation
            blocks.append(
                BlockPlan(
                    in_width=width,
                    out_width=out_width,
                    mid_width=mid_width,
                    groups=groups,
                    stride=block_stride,
                    dilation=first_dilation,
                    extra_dilation=dilation,
                    shortcut_conv=width != out_width or block_stride != 1 or dilation != first_dilation,
                    shortcut_pool=1 if dilation > 1 else (block_stride if block_stride > 1 else None),
                    beta=expected_var**-0.5,
                    drop_rate=_drop_rate(config, sum(config.depths[:stage]) + index),
                )
            )
            if first:
                expected_var = 1.0
            expected_var += config.alpha**2
            width = out_width
        stages.append(tuple(blocks))
    return tuple(stages)


def _bottleneck(config: NFNetConfig, in_width: int, out_width: int, very_first: bool) -> tuple[int, int]:
    """Width and groups of the 3x3 convolutions."""
    if config.block == "regnet":
        wanted = in_width * (1.0 if very_first else config.bottleneck_ratio)
    else:
        wanted = out_width * config.bottleneck_ratio
    mid_width = make_divisible(wanted, config.channel_divisor)
    if config.group_size is None:
        return mid_width, 1
    groups = mid_width // config.group_size
    if groups == 0:
        raise InputError(
            f"NFNetConfig: a bottleneck of {mid_width} channels is narrower than one group (group_size="
            f"{config.group_size}); choose a smaller group_size or larger widths (={config.widths})"
        )
    if config.bottleneck_floor:
        mid_width = groups * config.group_size
    if mid_width % groups:
        raise InputError(
            f"NFNetConfig: a bottleneck of {mid_width} channels does not divide into {groups} groups "
            f"(group_size={config.group_size}, bottleneck_floor={config.bottleneck_floor})"
        )
    return mid_width, groups


def _drop_rate(config: NFNetConfig, index: int) -> float:
    """Stochastic-depth rate of block `index` of the whole network."""
    blocks = sum(config.depths)
    # timm's rates reach the full value at the last block, DeepMind's never do.
    last = blocks if config.numerics == "deepmind" else max(blocks - 1, 1)
    return config.stochastic_depth * index / last
