"""Logits and feature maps against timm's, with random parameters under which no branch is hidden."""

from typing import Any

import pytest

from tests.live.pair import assert_equal_outputs, pair, picture, small, timm

NAMES = timm.list_models(module="nfnet")
TINY: dict[str, Any] = {
    "depths": [1, 2],
    "channels": [32, 48],
    "stem_chs": 16,
    "group_size": 16,
    "num_features": 64,
    "num_classes": 10,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_made_small_at_an_odd_size(name: str) -> None:
    networks = pair(name, seed=NAMES.index(name), **small(name), num_classes=10)
    assert_equal_outputs(networks, picture((75, 97)), name)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["dm_nfnet_f0", "nfnet_l0", "nf_regnet_b0", "nf_resnet26"])
def test_strides_that_become_dilations(name: str, output_stride: int) -> None:
    networks = pair(name, **small(name), num_classes=10, output_stride=output_stride)
    assert_equal_outputs(networks, picture(75), f"{name} at output stride {output_stride}")


@pytest.mark.parametrize(("name", "size"), [("eca_nfnet_l0", 64), ("nf_seresnet26", 64), ("dm_nfnet_f0", 192)])
def test_whole_networks(name: str, size: int) -> None:
    assert_equal_outputs(pair(name), picture(size), f"{name} in full at {size} px")


ACTIVATIONS = ["celu", "elu", "gelu", "leaky_relu", "relu", "relu6", "selu", "sigmoid", "silu", "tanh"]
SETTINGS: list[dict[str, Any]] = [
    *({"act_layer": activation} for activation in ACTIVATIONS),
    *({"act_layer": activation, "gamma_in_act": True} for activation in ACTIVATIONS),
    {"alpha": 0.3},
    {"attn_gain": 1.0},
    {"attn_layer": ""},
    {"attn_layer": "se", "attn_kwargs": {}},
    {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.3, "rd_divisor": 4}},
    {"attn_layer": "se", "attn_kwargs": {"rd_channels": 24}},
    {"attn_layer": "eca", "attn_kwargs": {}},
    {"attn_layer": "eca", "attn_kwargs": {"gamma": 1, "beta": 3}},
    {"attn_layer": "eca", "attn_kwargs": {"kernel_size": 9}},
    {"bottle_ratio": 1.0},
    {"ch_div": 2, "channels": [34, 54], "group_size": 2},
    {"ch_div": 16},
    {"depths": [2, 1, 1], "channels": [32, 48, 48]},
    {"extra_conv": False},
    {"group_size": 0},
    {"group_size": 8},
    {"group_size": 12},
    {"in_chans": 1},
    {"in_chans": 5},
    {"num_classes": 0},
    {"num_features": 0},
    {"reg": True},
    {"reg": True, "attn_layer": "eca", "attn_kwargs": {}, "bottle_ratio": 1.5},
    {"same_padding": True},
    {"skipinit": True},
    {"std_conv_eps": 1e-2},
    {"std_conv_eps": 1e-12},
    {"stem_chs": 0},
    *(
        {"stem_type": stem}
        for stem in ("", "7x7", "7x7_pool", "3x3", "3x3_pool", "deep", "deep_pool", "deep_tiered", "deep_quad")
    ),
    {"stem_type": "7x7_pool", "same_padding": True},
    {"stem_type": "deep_tiered", "gamma_in_act": True},
    {"width_factor": 1.5},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting_that_timm_honours(settings: dict[str, Any]) -> None:
    networks = pair("nfnet_f0", **TINY | settings)
    channels = settings.get("in_chans", 3)
    assert_equal_outputs(networks, picture(33, channels), str(settings), jit=False)
