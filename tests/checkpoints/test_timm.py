"""Reading timm's config.json, and saying a network of ours in timm's words."""

import contextlib
import dataclasses
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints._timm import config_from_timm, config_to_timm, pretrained_cfg_from_timm
from nfnet_eqx.checkpoints._timm_nfnet import READER
from nfnet_eqx.models import named_parameters, skeleton
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._families import get_config
from nfnet_eqx.models._plan import plan_blocks

ARCHITECTURES = READER.architectures
PUBLISHED = {
    "architecture": "dm_nfnet_f0",
    "num_classes": 1000,
    "num_features": 3072,
    "pretrained_cfg": {
        "tag": "dm_in1k",
        "custom_load": False,
        "input_size": [3, 192, 192],
        "test_input_size": [3, 256, 256],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "squash",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 1000,
        "pool_size": [6, 6],
        "first_conv": "stem.conv1",
        "classifier": "head.fc",
    },
}
FLAT = {key: value for key, value in PUBLISHED.items() if key != "pretrained_cfg"} | PUBLISHED["pretrained_cfg"]


def read(architecture: str, **model_args: Any) -> Any:
    return config_from_timm({"architecture": architecture, "model_args": model_args})[1]


def timm_numerics(architecture: str) -> NFNetConfig:
    return dataclasses.replace(get_config(architecture), numerics="timm")


# --- reading ---


def test_timm_has_36_architectures_of_this_family() -> None:
    assert len(ARCHITECTURES) == 36


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_by_name_is_the_one_of_the_table(architecture: str) -> None:
    assert config_from_timm({"architecture": architecture}) == (architecture, timm_numerics(architecture))


@pytest.mark.parametrize(
    "config_json",
    [PUBLISHED, FLAT, {"architecture": "dm_nfnet_f0", "pretrained_cfg": {}}, {"architecture": "dm_nfnet_f0"}],
    ids=["published", "flat", "bare", "name only"],
)
def test_every_layout_of_the_file_says_the_same_network(config_json: dict[str, Any]) -> None:
    assert config_from_timm(config_json) == ("dm_nfnet_f0", timm_numerics("dm_nfnet_f0"))


def test_both_layouts_say_the_same_preprocessing() -> None:
    assert pretrained_cfg_from_timm(FLAT) == pretrained_cfg_from_timm(PUBLISHED) == PUBLISHED["pretrained_cfg"]


def test_labels_are_found_in_every_layout() -> None:
    flat = FLAT | {"labels": ["a", "b"]}
    nested = PUBLISHED | {"label_names": ["a", "b"]}
    inside = PUBLISHED | {"pretrained_cfg": PUBLISHED["pretrained_cfg"] | {"label_names": ["a", "b"]}}
    for config_json in (flat, nested, inside):
        assert pretrained_cfg_from_timm(config_json)["label_names"] == ["a", "b"]


def test_classes_and_channels_come_from_where_timm_takes_them() -> None:
    top_level = PUBLISHED | {"num_classes": 10}
    assert config_from_timm(top_level)[1].num_classes == 10
    assert config_from_timm(top_level | {"model_args": {"num_classes": 5}})[1].num_classes == 5
    assert config_from_timm(FLAT | {"num_classes": 7})[1].num_classes == 7
    assert read("nfnet_f0", num_classes=-1).num_classes == 0
    gray = {"architecture": "nfnet_f0", "pretrained_cfg": {"input_size": [1, 192, 192]}}
    assert config_from_timm(gray)[1].in_channels == 1
    assert config_from_timm(gray | {"model_args": {"in_chans": 4}})[1].in_channels == 4


OVERRIDES = [
    ("nfnet_f0", {"depths": [1, 1, 2, 1]}, {"depths": (1, 1, 2, 1)}),
    ("nfnet_f0", {"channels": [32, 64, 96, 96]}, {"widths": (32, 64, 96, 96), "stem_widths": (16, 32, 64, 128)}),
    ("nfnet_f0", {"channels": [30, 60, 90, 90]}, {"widths": (32, 64, 88, 88)}),
    ("nfnet_f0", {"channels": [30, 60, 90, 90], "ch_div": 2}, {"widths": (30, 60, 90, 90), "channel_divisor": 2}),
    ("nfnet_f0", {"stem_chs": 32}, {"stem_widths": (4, 8, 16, 32)}),
    ("nfnet_f0", {"stem_chs": None}, {"stem_widths": (32, 64, 128, 256)}),
    ("nfnet_f0", {"width_factor": 0.5}, {"widths": (128, 256, 768, 768), "num_features": 1536}),
    ("nf_regnet_b1", {"width_factor": 1.0}, {"widths": (48, 104, 208, 440), "num_features": 1280}),
    ("nf_regnet_b1", {"channels": [32, 48, 64, 96]}, {"widths": (24, 40, 48, 72), "num_features": 960}),
    ("nfnet_f0", {"num_features": 0}, {"num_features": None}),
    ("nfnet_f0", {"group_size": None}, {"group_size": None}),
    ("nfnet_f0", {"group_size": 0}, {"group_size": None}),
    ("nfnet_f0", {"group_size": 64}, {"group_size": 64, "bottleneck_floor": True}),
    ("nfnet_f0", {"group_size": 12}, {"group_size": 12, "bottleneck_floor": False}),
    ("nfnet_f0", {"bottle_ratio": 0.25}, {"bottleneck_ratio": 0.25}),
    ("nfnet_f0", {"reg": True}, {"block": "regnet"}),
    ("nfnet_f0", {"extra_conv": False}, {"extra_conv": False}),
    ("nfnet_f0", {"gamma_in_act": True}, {"gamma_in": "activation"}),
    ("nfnet_f0", {"same_padding": True}, {"padding": "same"}),
    ("nfnet_f0", {"skipinit": True}, {"skipinit": True}),
    ("nfnet_f0", {"std_conv_eps": 1e-12}, {"std_conv_eps": 1e-12}),
    ("nfnet_f0", {"zero_init_fc": True}, {"zero_init_head": True}),
    ("nfnet_f0", {"act_layer": "silu"}, {"activation": "silu"}),
    ("nfnet_f0", {"alpha": 0.1}, {"alpha": 0.1}),
    ("nfnet_f0", {"output_stride": 8}, {"output_stride": 8}),
    ("nfnet_f0", {"drop_rate": 0.2, "drop_path_rate": 0.25}, {"drop_rate": 0.2, "stochastic_depth": 0.25}),
    ("nfnet_f0", {"in_chans": 1, "num_classes": 0}, {"in_channels": 1, "num_classes": 0}),
    ("nfnet_f0", {"global_pool": "avg"}, {}),
    ("nfnet_f0", {"stem_type": ""}, {"stem_widths": (128,), "stem_kernel": 7, "stage_strides": (2, 2, 2, 2)}),
    ("nfnet_f0", {"stem_type": "7x7"}, {"stem_widths": (128,), "stem_kernel": 7, "stem_pool": False}),
    ("nfnet_f0", {"stem_type": "7x7_pool"}, {"stem_pool": True, "stem_kernel": 7, "stage_strides": (1, 2, 2, 2)}),
    ("nfnet_f0", {"stem_type": "3x3"}, {"stem_widths": (128,), "stem_kernel": 3, "stage_strides": (2, 2, 2, 2)}),
    ("nfnet_f0", {"stem_type": "3x3_pool"}, {"stem_kernel": 3, "stem_pool": True}),
    ("nfnet_f0", {"stem_type": "deep"}, {"stem_widths": (64, 64, 128), "stem_strides": (2, 1, 1)}),
    ("nfnet_f0", {"stem_type": "deep_pool"}, {"stem_widths": (64, 64, 128), "stem_pool": True}),
    ("nfnet_f0", {"stem_type": "deep_tiered"}, {"stem_widths": (48, 64, 128), "stem_strides": (2, 1, 1)}),
    ("nf_resnet26", {"stem_type": "deep_quad"}, {"stem_widths": (8, 16, 32, 64), "stage_strides": (1, 2, 2, 2)}),
    ("nfnet_f0", {"attn_layer": None}, {"attention": None}),
    ("nfnet_f0", {"attn_layer": ""}, {"attention": None}),
    ("nfnet_f0", {"attn_layer": False}, {"attention": None}),
    ("nf_resnet26", {"attn_layer": True}, {"attention": "se", "se_ratio": 1 / 16}),
    ("nf_resnet26", {"attn_layer": "SE"}, {"attention": "se", "se_ratio": 1 / 16, "se_divisor": 8}),
    ("nfnet_f0", {"attn_layer": "eca"}, {"attention": "eca", "eca_gamma": 2.0, "eca_beta": 1.0}),
    ("nfnet_f0", {"attn_gain": 1.0}, {"attention_gain": 1.0}),
    ("nfnet_f0", {"attn_kwargs": {"rd_divisor": 4}}, {"se_ratio": 1 / 16, "se_divisor": 4}),
    ("nfnet_f0", {"attn_kwargs": None}, {"se_ratio": 1 / 16, "se_divisor": 8}),
    ("nfnet_f0", {"attn_kwargs": {"rd_channels": 24}}, {"se_ratio": 1e-3, "se_divisor": 24}),
    ("eca_nfnet_l0", {"attn_kwargs": {"gamma": 1, "beta": 2}}, {"eca_gamma": 1, "eca_beta": 2}),
    ("eca_nfnet_l0", {"attn_kwargs": {"kernel_size": 9}}, {"eca_gamma": 2.0}),
    ("nfnet_f0", {"depths": [1, 1]}, {"depths": (1, 1), "widths": (256, 512), "stage_strides": (1, 2)}),
]


@pytest.mark.parametrize(("architecture", "model_args", "fields"), OVERRIDES, ids=lambda v: str(v))
def test_what_timm_honours_is_honoured(architecture: str, model_args: dict[str, Any], fields: dict[str, Any]) -> None:
    config = read(architecture, **model_args)
    assert {name: getattr(config, name) for name in fields} == fields


REFUSED = [
    ({"architecture": "resnet50"}, "'resnet50' is none of timm's NFNet or ViT architectures; did you mean nf_resnet50"),
    ({"architecture": "dm_nfnet_f0_plus"}, "'dm_nfnet_f0_plus' is none of timm's"),
    ({"architecture": ["nfnet_f0"]}, "is none of timm's"),
    ({}, "None is none of timm's"),
    ({"pretrained_cfg": []}, "pretrained_cfg must be an object"),
    ({"model_args": [1]}, "model_args must be an object"),
    ({"global_pool": "max"}, "global_pool must be 'avg', the only pooling supported, got 'max'"),
    ({"num_classes": -1, "label_names": ["a", "b"], "pretrained_cfg": {}}, "num_classes must be 0 or more .* got -1"),
    ({"pretrained_cfg": {"custom_load": "hf"}}, "custom_load .='hf'. in pretrained_cfg is not supported"),
    ({"pretrained_cfg": {"label_offset": 1}}, "label_offset .=1. in pretrained_cfg is not supported"),
    ({"pretrained_cfg": {"input_size": "big"}}, "in_chans must be an integer, got 'big'"),
    ({"pretrained_cfg": {"num_classes": "many"}}, "num_classes must be an integer"),
    ({"model_args": {"features_only": True}}, "'features_only' .=True. is not supported"),
    ({"model_args": {"img_size": 224}}, "'img_size' .=224. is not supported"),
    ({"model_args": {"pruned": True}}, "'pruned' .=True. is not supported"),
    ({"model_args": {"global_pool": "catavgmax"}}, "global_pool must be 'avg', .*'catavgmax'"),
    ({"model_args": {"act_layer": "gelu_tanh"}}, "act_layer must be one of .*'gelu_tanh'"),
    ({"model_args": {"act_layer": 3}}, "act_layer must be one of"),
    ({"model_args": {"stem_type": "deep_quad_pool"}}, "stem_type must be one of .*'deep_quad_pool'"),
    ({"model_args": {"attn_layer": "cbam"}}, "attn_layer must be 'se', 'eca' or null, got 'cbam'"),
    ({"model_args": {"attn_layer": "ecam"}}, "attn_layer .* got 'ecam'"),
    ({"model_args": {"attn_layer": 3}}, "attn_layer .* got 3"),
    ({"model_args": {"attn_kwargs": {"add_maxpool": True}}}, "'add_maxpool' .=True. is not supported"),
    ({"model_args": {"attn_kwargs": {"gate_layer": "hard_sigmoid"}}}, "'gate_layer' .='hard_sigmoid'. is not"),
    ({"model_args": {"attn_kwargs": {"norm_layer": "batchnorm2d"}}}, "'norm_layer' .* is not supported"),
    ({"model_args": {"attn_kwargs": {"bias": False}}}, "'bias' .=False. is not supported"),
    ({"model_args": {"attn_kwargs": {"nonsense": 1}}}, "'nonsense' .=1. is not supported"),
    ({"model_args": {"attn_kwargs": {"rd_channels": 1}}}, "'rd_channels' .=1. is not supported here"),
    ({"model_args": {"attn_kwargs": "se"}}, "attn_kwargs must be an object"),
    ({"model_args": {"attn_layer": "eca", "attn_kwargs": {"use_mlp": True}}}, "'use_mlp' .=True. is not supported"),
    ({"model_args": {"depths": "1263"}}, "depths must be a list of integers"),
    ({"model_args": {"depths": [1, 2, 6, 3, 1]}}, "more stages than channels"),
    ({"model_args": {"depths": [10**5] * 4}}, "depths must lie between"),
    ({"model_args": {"channels": [10**8] * 4}}, "widths must lie between"),
    ({"model_args": {"width_factor": 1e300}}, "width_factor must be a number"),
    ({"model_args": {"width_factor": float("nan")}}, "width_factor must be a number"),
    ({"model_args": {"ch_div": 0}}, "ch_div must be a positive integer"),
    ({"model_args": {"output_stride": 4}}, "output_stride must be one of 8, 16, 32"),
    ({"model_args": {"skipinit": 1}}, "skipinit must be true or false"),
    ({"model_args": {"drop_path_rate": 1.5}}, "stochastic_depth must lie in"),
    ({"model_args": {"num_classes": 10**9}}, "num_classes must lie between"),
]


@pytest.mark.parametrize(("config_json", "reason"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_cannot_be_honoured_is_refused_by_name(config_json: dict[str, Any], reason: str) -> None:
    if config_json and "architecture" not in config_json:
        config_json = {"architecture": "nfnet_f0"} | config_json
    with pytest.raises(InputError, match=reason):
        config_from_timm(config_json)


def test_all_faults_are_in_one_message() -> None:
    with pytest.raises(InputError, match="depths must be .*'a' .=1. is not.*'b' .=2. is not"):
        read("nfnet_f0", a=1, depths=0, attn_kwargs={"b": 2})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
settings = st.sampled_from(sorted(ARCHITECTURES["nfnet_f0"])) | st.sampled_from(
    ["in_chans", "num_classes", "global_pool", "output_stride", "drop_rate", "drop_path_rate", "img_size"]
)


@given(st.dictionaries(settings, json_values, max_size=4), json_values)
def test_any_model_args_are_a_network_or_an_input_error(model_args: dict[str, Any], pretrained_cfg: Any) -> None:
    with contextlib.suppress(InputError):
        config = {"architecture": "nf_regnet_b0", "model_args": model_args, "pretrained_cfg": pretrained_cfg}
        plan_blocks(config_from_timm(config)[1])


# --- writing ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_published_architecture_needs_no_settings(architecture: str) -> None:
    assert config_to_timm(architecture, timm_numerics(architecture)) == (architecture, {})


def test_only_what_differs_is_said() -> None:
    config = dataclasses.replace(timm_numerics("nf_resnet26"), depths=(1, 2, 1, 1), attention="se", num_classes=10)
    assert config_to_timm("nf_resnet26", config) == (
        "nf_resnet26",
        {
            "depths": [1, 2, 1, 1],
            "attn_layer": "se",
            "attn_kwargs": {"rd_ratio": 1 / 16, "rd_divisor": 8},
            "num_classes": 10,
        },
    )


def test_a_network_without_a_name_in_timm_is_said_by_the_nearest_one() -> None:
    assert config_to_timm("dm_nfnet_f7", timm_numerics("dm_nfnet_f7")) == (
        "dm_nfnet_f0",
        {"depths": [8, 16, 48, 24]},
    )
    assert config_to_timm("my_network", timm_numerics("eca_nfnet_l1")) == ("eca_nfnet_l1", {})


INEXPRESSIBLE = [
    ("dm_nfnet_f0_plus", {}, r"no stem of widths \(16, 32, 64, 192\)"),
    ("nfnet_f0", {"stem_strides": (1, 1, 1, 1)}, r"no stem of widths .* strides \(1, 1, 1, 1\)"),
    ("nfnet_f0", {"stage_strides": (2, 2, 2, 2)}, r"no setting for stage_strides \(=\(2, 2, 2, 2\)\)"),
    ("nfnet_f0", {"bottleneck_floor": False, "widths": (288, 544, 1568, 1568)}, "bottleneck_floor"),
    ("nfnet_f0", {"widths": (250, 500, 1500, 1500)}, "no setting for widths"),
    ("nfnet_f0", {"activation": "tanh", "num_features": 100}, "no setting for num_features"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), INEXPRESSIBLE)
def test_what_timm_cannot_build_is_refused_with_the_reason(name: str, changes: dict[str, Any], reason: str) -> None:
    config = dataclasses.replace(timm_numerics(name), **changes)
    with pytest.raises(InputError, match=f"timm cannot build this network: it has .*{reason}"):
        config_to_timm(name, config)


def test_timm_has_no_deepmind_numerics() -> None:
    with pytest.raises(InputError, match="timm has no numerics='deepmind'"):
        config_to_timm("dm_nfnet_f0", get_config("dm_nfnet_f0"))


def test_a_floor_that_changes_nothing_is_no_obstacle() -> None:
    config = dataclasses.replace(timm_numerics("nfnet_f0"), bottleneck_floor=False)
    assert config_to_timm("nfnet_f0", config) == ("nfnet_f0", {})


# Of every kind of stem, block and attention.
timm_settings = st.fixed_dictionaries(
    {},
    optional={
        "depths": st.lists(st.integers(1, 3), min_size=4, max_size=4),
        "channels": st.lists(st.integers(128, 300), min_size=4, max_size=4),
        "stem_type": st.sampled_from(
            ["", "7x7", "7x7_pool", "3x3", "3x3_pool", "deep", "deep_pool", "deep_tiered", "deep_quad"]
        ),
        "stem_chs": st.none() | st.integers(16, 100),
        "width_factor": st.sampled_from([0.75, 1.0, 1.3]),
        "group_size": st.sampled_from([None, 0, 8, 16]),
        "attn_layer": st.sampled_from([None, "", "se", "eca"]),
        "attn_kwargs": st.sampled_from([{}, {"rd_ratio": 0.3}]),
        "attn_gain": st.floats(0.5, 3),
        "bottle_ratio": st.sampled_from([0.25, 0.5, 1.0]),
        "num_features": st.none() | st.integers(0, 500),
        "ch_div": st.sampled_from([1, 4, 8]),
        **dict.fromkeys(
            ("reg", "extra_conv", "gamma_in_act", "same_padding", "skipinit", "zero_init_fc"), st.booleans()
        ),
        "std_conv_eps": st.sampled_from([1e-6, 1e-4]),
        "act_layer": st.sampled_from(["silu", "relu", "gelu", "tanh"]),
        "alpha": st.floats(0.1, 1),
        "output_stride": st.sampled_from([8, 16, 32]),
        "in_chans": st.integers(1, 5),
        "num_classes": st.integers(0, 20),
    },
)


@given(st.sampled_from(sorted(ARCHITECTURES)), timm_settings)
@hypothesis_settings(max_examples=40)
def test_what_is_said_to_timm_comes_back_as_the_same_network(architecture: str, model_args: dict[str, Any]) -> None:
    config = read(architecture, **model_args)
    try:
        plan = plan_blocks(config)
    except InputError:
        return  # no network: a bottleneck does not divide into its groups
    said = config_to_timm(architecture, config)
    rebuilt = config_from_timm({"architecture": said[0], "model_args": json.loads(json.dumps(said[1]))})[1]
    assert said[0] == architecture
    assert plan_blocks(rebuilt) == plan
    for field in ("stem_widths", "stem_strides", "stem_kernel", "stem_pool", "activation", "gamma_in", "padding"):
        assert getattr(rebuilt, field) == getattr(config, field), field
    for field in ("attention", "num_features", "std_conv_eps", "in_channels", "num_classes", "block", "skipinit"):
        assert getattr(rebuilt, field) == getattr(config, field), field


def test_what_is_said_to_timm_has_the_same_parameters() -> None:
    config = read("nf_regnet_b1", channels=[32, 48, 64, 96], depths=[1, 1, 1, 1], num_features=128)
    _, rebuilt = config_from_timm(
        {"architecture": "nf_regnet_b1", "model_args": config_to_timm("nf_regnet_b1", config)[1]}
    )
    assert named_parameters(skeleton(rebuilt)) == named_parameters(skeleton(config))
