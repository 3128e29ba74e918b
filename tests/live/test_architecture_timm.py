"""All names at full size, module by module: nothing is computed, so nothing is rounded and nothing hidden."""

from typing import Any

import pytest

from nfnet_eqx import named_parameters
from nfnet_eqx.checkpoints._timm import config_from_timm
from nfnet_eqx.checkpoints._timm_nfnet import READER
from nfnet_eqx.models import NFNETS
from nfnet_eqx.models._families import get_variant, skeleton
from nfnet_eqx.models._layers import WSConv2d
from nfnet_eqx.models._nfnet import NFNet
from tests.live.pair import timm, torch

DROP_PATH_RATE = 0.25
NAMES = timm.list_models(module="nfnet")


def test_the_names_are_timms_and_nine_that_only_deepmind_has() -> None:
    assert sorted(NAMES) == sorted(READER.architectures)
    own = [name for name in NFNETS if name not in NAMES]
    assert own == ["dm_nfnet_f7", *(f"dm_nfnet_f{size}_plus" for size in range(8))]


@pytest.mark.parametrize("name", NAMES)
def test_every_module_of_every_name_is_timms(name: str) -> None:
    theirs = timm.create_model(name, device="meta", drop_path_rate=DROP_PATH_RATE)
    _, config = config_from_timm({"architecture": name, "model_args": {"drop_path_rate": DROP_PATH_RATE}})
    ours = skeleton(config)

    assert {n: leaf.shape for n, leaf in named_parameters(ours).items()} == {
        n: tuple(tensor.shape) for n, tensor in theirs.state_dict().items()
    }
    assert our_convolutions(ours) == their_convolutions(theirs)
    for s, (stage, their_stage) in enumerate(zip(ours.stages, theirs.stages, strict=True)):
        for b, (block, their_block) in enumerate(zip(stage, their_stage, strict=True)):
            where = f"stages.{s}.{b}"
            assert block.alpha == their_block.alpha, where
            assert block.beta == pytest.approx(their_block.beta, rel=1e-15), where
            if config.attention is not None:
                assert block.attention_gain == their_block.attn_gain, where
            # timm's rates went through float32.
            rate = getattr(their_block.drop_path, "drop_prob", 0.0)
            assert block.stochastic_depth.rate == pytest.approx(rate, abs=1e-7), where
            assert block.stochastic_depth.rescale
            assert block.act.scale == getattr(their_block.act1, "gamma", 1.0), where
            pool = None if their_block.downsample is None else getattr(their_block.downsample.pool, "stride", None)
            assert (block.downsample and block.downsample.pool_stride) == pool, where


def our_convolutions(model: NFNet) -> dict[str, dict[str, Any]]:
    convolutions: dict[str, Any] = {f"stem.{name}": conv for name, conv in model.stem.items()}
    for s, stage in enumerate(model.stages):
        for b, block in enumerate(stage):
            for name in ("conv1", "conv2", "conv2b", "conv3"):
                convolutions[f"stages.{s}.{b}.{name}"] = getattr(block, name)
            convolutions[f"stages.{s}.{b}.downsample.conv"] = block.downsample and block.downsample.conv
    convolutions["final_conv"] = model.final_conv
    facts = {}
    for name, conv in convolutions.items():
        if conv is None:
            continue
        assert isinstance(conv, WSConv2d)
        out, per_group, height, width = conv.weight.shape
        facts[name] = {
            "stride": conv.stride,
            "dilation": conv.dilation,
            "groups": conv.groups,
            "eps": conv.eps,
            "scale": pytest.approx(conv.gamma * (per_group * height * width) ** -0.5, rel=1e-15),
            "same": conv.padding == "same",
        }
    return facts


def their_convolutions(model: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "stride": module.stride[0],
            "dilation": module.dilation[0],
            "groups": module.groups,
            "eps": module.eps,
            "scale": module.scale,
            "same": type(module).__name__ == "ScaledStdConv2dSame",
        }
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d) and hasattr(module, "gain")
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_sizes_are_timms(name: str) -> None:
    published = timm.get_pretrained_cfg(name)
    test_size = published.test_input_size or published.input_size
    assert (3, get_variant(name).train_size, get_variant(name).train_size) == published.input_size
    assert (3, get_variant(name).test_size, get_variant(name).test_size) == test_size
