"""What follows from a config, block by block."""

import dataclasses
import math

import pytest

from nfnet_eqx import InputError, get_config
from nfnet_eqx.models import NFNETS
from nfnet_eqx.models._plan import BlockPlan, plan_blocks


def flat(name: str, **changes) -> list[BlockPlan]:
    return [block for stage in plan_blocks(dataclasses.replace(get_config(name), **changes)) for block in stage]


def test_beta_undoes_the_variance_that_the_blocks_before_built_up():
    """F1 has 2, 4, ... blocks; a stage's first block sees all that the stage before added, then the count restarts."""
    variances = [block.beta**-2 for block in flat("dm_nfnet_f1")]
    stage_1, stage_2 = [1.0, 1.04], [1.08, 1.04, 1.08, 1.12]
    assert variances[:7] == pytest.approx([*stage_1, *stage_2, 1.16])
    assert variances[-1] == pytest.approx(1 + 5 * 0.04)


@pytest.mark.parametrize(
    ("numerics", "last", "second"),
    [("timm", 0.25, 0.25 / 11), ("deepmind", 0.25 * 11 / 12, 0.25 / 12)],
    ids=["timm's rates reach the full value", "DeepMind's do not"],
)
def test_stochastic_depth_rises_linearly_from_zero(numerics: str, last: float, second: float):
    rates = [block.drop_rate for block in flat("nfnet_f0", stochastic_depth=0.25, numerics=numerics)]
    assert len(rates) == 12
    assert rates == pytest.approx([second * i for i in range(12)])
    assert rates[-1] == pytest.approx(last)


def test_the_shortcut_is_a_convolution_where_width_or_resolution_changes():
    blocks = flat("dm_nfnet_f0")
    assert [i for i, block in enumerate(blocks) if block.shortcut_conv] == [0, 1, 3, 9]
    # Stage 4 is as wide as stage 3; stage 1 widens and does not pool.
    assert [blocks[i].shortcut_pool for i in (0, 1, 3, 9)] == [None, 2, 2, 2]


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"),
    [
        # Of each stage: (dilation of the first block's first 3x3, of its second, of the later blocks').
        (32, [1, 2, 2, 2], [(1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)]),
        (16, [1, 2, 2, 1], [(1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 2)]),
        (8, [1, 2, 1, 1], [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 4, 4)]),
    ],
)
def test_strides_beyond_the_output_stride_become_dilations(output_stride: int, strides: list, dilations: list):
    config = dataclasses.replace(get_config("nfnet_f1"), output_stride=output_stride)
    stages = plan_blocks(config)
    assert config.net_stride == output_stride
    assert [stage[0].stride for stage in stages] == strides
    assert all(block.stride == 1 for stage in stages for block in stage[1:])
    assert [(s[0].dilation, s[0].extra_dilation, s[1].dilation) for s in stages] == dilations
    # A dilated stage pools too (without stride), and keeps its projection.
    assert [s[0].shortcut_pool for s in stages[1:]] == [2 if stride == 2 else 1 for stride in strides[1:]]
    assert all(s[0].shortcut_conv for s in stages)


@pytest.mark.parametrize("name", NFNETS)
def test_every_name_divides_into_groups_and_has_stride_32(name: str):
    config = get_config(name)
    assert config.net_stride == 32
    for stage in plan_blocks(config):
        for block in stage:
            assert block.mid_width % block.groups == 0
            if config.group_size is not None:
                assert block.mid_width // block.groups == config.group_size


def test_the_bottleneck_is_floored_to_whole_groups_unless_told_otherwise():
    floored, whole = flat("dm_nfnet_f4_plus")[0], flat("dm_nfnet_f4_plus", bottleneck_floor=False)[0]
    assert (floored.mid_width, floored.groups) == (128, 1)
    assert (whole.mid_width, whole.groups) == (192, 1)


def test_a_regnet_bottleneck_follows_the_input_and_is_not_widened_in_the_very_first_block():
    mids = [block.mid_width for block in flat("nf_regnet_b0")]
    widths = get_config("nf_regnet_b0").widths
    assert mids[0] == get_config("nf_regnet_b0").stem_widths[0]
    assert mids[1] == math.floor(2.25 * widths[0] / 8 + 0.5) * 8


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"group_size": 1024}, "narrower than one group (group_size=1024)"),
        ({"widths": (256, 512, 1536, 64)}, "a bottleneck of 32 channels"),
        ({"bottleneck_ratio": 0.3, "bottleneck_floor": False, "widths": (1000, 1040, 1536, 1536)}, "does not divide"),
    ],
)
def test_a_bottleneck_that_fits_no_group_is_refused(changes: dict, named: str):
    with pytest.raises(InputError, match="group_size=") as caught:
        flat("dm_nfnet_f0", **changes)
    assert named in str(caught.value)
