"""timm's config.json of a vision transformer, read and written."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jax
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint, load_checkpoint, save_pretrained
from nfnet_eqx.checkpoints._timm import config_from_timm, config_to_timm
from nfnet_eqx.checkpoints._timm_vit import READER
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import VITS, ViT, ViTConfig, get_config, named_parameters

ARCHITECTURES = READER.architectures
POOLS = ("map", "token", "mean")
# As timm's hub has it.
SIGLIP = {
    "architecture": "vit_so400m_patch14_siglip_378",
    "num_classes": 1000,
    "num_features": 1152,
    "global_pool": "map",
    "pretrained_cfg": {
        "tag": "webli_ft_in1k",
        "custom_load": False,
        "input_size": [3, 378, 378],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 1000,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}
AUGREG = {
    "architecture": "vit_base_patch16_224",
    "num_classes": 1000,
    "num_features": 768,
    "global_pool": "token",
    "pretrained_cfg": SIGLIP["pretrained_cfg"]
    | {"tag": "augreg_in21k_ft_in1k", "custom_load": True, "input_size": [3, 224, 224], "crop_mode": "center"},
}


def read(architecture: str = "vit_base_patch16_224", **model_args: Any) -> ViTConfig:
    config = config_from_timm({"architecture": architecture, "model_args": model_args})[1]
    assert isinstance(config, ViTConfig)
    return config


# --- reading ---


@pytest.mark.parametrize("published", [SIGLIP, AUGREG], ids=["siglip", "augreg"])
def test_the_published_files_are_the_tables_networks(published: dict[str, Any]) -> None:
    name = published["architecture"]
    assert config_from_timm(published) == (name, get_config(name))
    flat = {key: value for key, value in published.items() if key != "pretrained_cfg"} | published["pretrained_cfg"]
    assert config_from_timm(flat) == (name, get_config(name))


def test_timm_has_all_names_but_ours() -> None:
    assert [name for name in VITS if name not in ARCHITECTURES] == ["vit_micro_patch4_32"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_a_fixed_size_timm_starts_at_224(architecture: str) -> None:
    assert read(architecture) == dataclasses.replace(get_config(architecture), image_size=224)


OVERRIDES = [
    ({"img_size": 384}, {"image_size": 384}),
    ({"img_size": [32, 32], "patch_size": [4, 4]}, {"image_size": 32, "patch_size": 4}),
    ({"embed_dim": 1152, "mlp_ratio": 3.7362, "num_heads": 16}, {"width": 1152, "mlp_width": 4304, "heads": 16}),
    ({"depth": 3}, {"depth": 3}),
    ({"global_pool": "avg"}, {"pool": "mean", "class_token": True}),
    ({"global_pool": "map", "class_token": False}, {"pool": "map", "prefix_positions": False}),
    ({"reg_tokens": 4}, {"registers": 4, "prefix_positions": True}),
    ({"reg_tokens": 4, "no_embed_class": True}, {"registers": 4, "prefix_positions": False}),
    ({"act_layer": "quick_gelu"}, {"activation": "quick_gelu"}),
    ({"act_layer": "gelu_tanh"}, {"activation": "gelu_tanh"}),
    ({"act_layer": None}, {"activation": "gelu"}),
    ({"qkv_bias": False}, {"qkv_bias": False}),
    ({"drop_rate": 0.1, "drop_path_rate": 0.2}, {"drop_rate": 0.1, "stochastic_depth": 0.2}),
    ({"in_chans": 1, "num_classes": 0}, {"in_channels": 1, "num_classes": 0}),
]


@pytest.mark.parametrize(("model_args", "fields"), OVERRIDES, ids=lambda v: str(v))
def test_what_timm_honours_is_honoured(model_args: dict[str, Any], fields: dict[str, Any]) -> None:
    config = read(**model_args)
    assert {name: getattr(config, name) for name in fields} == fields


WITHOUT_EFFECT: list[dict[str, Any]] = [
    {"dynamic_img_size": True, "weight_init": "jax", "fix_init": True},
    {"init_values": None, "norm_layer": None, "embed_norm_layer": None, "fc_norm": None},
    {"norm_layer": "layernorm", "attn_layer": "attn", "pos_embed": "learn", "fc_norm": False, "use_naflex": False},
    {"qk_norm": False, "proj_bias": True, "pre_norm": False, "final_norm": True, "dynamic_img_pad": False},
    {"pos_drop_rate": 0.0, "patch_drop_rate": 0, "proj_drop_rate": 0.0, "attn_drop_rate": 0.0},
    {"pool_include_prefix": True},  # the class token is pooled in any case
]


@pytest.mark.parametrize("model_args", WITHOUT_EFFECT, ids=lambda v: str(v))
def test_a_setting_that_changes_nothing_is_accepted(model_args: dict[str, Any]) -> None:
    assert read(**model_args) == get_config("vit_base_patch16_224")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"init_values": 1e-5}, r"init_values must be null \(no layer scale\), nothing else is supported, got 1e-05"),
    ({"qk_norm": True}, "qk_norm must be false, nothing else is supported, got True"),
    ({"scale_attn_norm": True}, "scale_attn_norm must be false"),
    ({"pre_norm": True}, "pre_norm must be false"),
    ({"final_norm": False}, "final_norm must be true"),
    ({"proj_bias": False}, "proj_bias must be true"),
    ({"fc_norm": True}, r"fc_norm \(=True\) is not supported where global_pool is 'token'"),
    ({"fc_norm": False, "global_pool": "avg"}, r"fc_norm \(=False\) is not supported where global_pool is 'avg'"),
    ({"pool_include_prefix": True, "global_pool": "avg"}, r"pool_include_prefix \(=True\) is not supported where"),
    ({"global_pool": "max"}, r"global_pool must be one of \('map', 'token', 'avg'\), got 'max'"),
    ({"global_pool": ""}, "global_pool must be one of"),
    ({"pos_embed": "none"}, "pos_embed must be 'learn'"),
    ({"norm_layer": "rmsnorm"}, "norm_layer must be 'layernorm' or null"),
    ({"act_layer": "silu"}, "act_layer must be one of"),
    ({"attn_layer": "diff"}, "attn_layer must be 'attn'"),
    ({"dynamic_img_pad": True}, "dynamic_img_pad must be false"),
    ({"attn_drop_rate": 0.1}, "attn_drop_rate must be 0, nothing else is supported, got 0.1"),
    ({"block_fn": "ParallelThingsBlock"}, r"model_args 'block_fn' \(='ParallelThingsBlock'\) is not supported"),
    ({"mlp_layer": "swiglu"}, "model_args 'mlp_layer' .* is not supported"),
    ({"depths": [1]}, "model_args 'depths' .* is not supported"),
    ({"img_size": [224, 192]}, "img_size must be a positive integer .or two equal ones., got .224, 192."),
    ({"img_size": 100}, r"image_size \(=100\) must be a multiple of patch_size \(=16\)"),
    ({"class_token": False}, "pool='token' needs class_token=True"),
    ({"num_heads": 7}, r"heads \(=7\) must divide width \(=768\)"),
    ({"embed_dim": 10**6, "num_heads": 1}, "width must lie between 1 and 65536"),
    ({"depth": 10**4}, "depth must lie between 1 and 256"),
    ({"mlp_ratio": -1}, "mlp_width must lie between"),
    ({"mlp_ratio": float("nan")}, "mlp_ratio must be a number"),
]


@pytest.mark.parametrize(("model_args", "reason"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_cannot_be_honoured_is_refused_by_name(model_args: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(**model_args)


def test_all_faults_are_in_one_message() -> None:
    with pytest.raises(InputError, match="vit_base_patch16_224 in timm: .*depth must be .*'a' .=1. is not.*'b'"):
        read(depth=0, a=1, b=2)


def test_a_loader_of_another_format_is_refused() -> None:
    with pytest.raises(InputError, match="custom_load .='hf'. in pretrained_cfg is not supported"):
        config_from_timm(AUGREG | {"pretrained_cfg": AUGREG["pretrained_cfg"] | {"custom_load": "hf"}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from([*ARCHITECTURES["vit_base_patch16_224"], "fc_norm", "init_values", "drop_rate", "nonsense"])


@given(st.dictionaries(keys, json_values, max_size=4), json_values)
def test_any_model_args_are_a_network_or_an_input_error(model_args: dict[str, Any], pretrained_cfg: Any) -> None:
    with contextlib.suppress(InputError):
        name = "vit_tiny_patch16_224"
        config_from_timm({"architecture": name, "model_args": model_args, "pretrained_cfg": pretrained_cfg})


# --- writing ---


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_published_architecture_needs_no_settings_but_what_timms_name_has_otherwise(architecture: str) -> None:
    config = get_config(architecture)
    args = {} if config.image_size == 224 else {"img_size": config.image_size}
    classes = {"num_classes": 1000} if "siglip" in architecture else {}  # published without a classifier, too
    assert config_to_timm(architecture, config) == (architecture, args | classes)


def test_a_smaller_image_than_the_names_is_said() -> None:
    config = get_config("vit_so400m_patch14_siglip_378").at_image_size(224)
    assert config_to_timm("vit_so400m_patch14_siglip_378", config)[1] == {"img_size": 224, "num_classes": 1000}


def test_ours_is_said_by_the_nearest_of_timms() -> None:
    name, args = config_to_timm("vit_micro_patch4_32", get_config("vit_micro_patch4_32"))
    assert name in ARCHITECTURES
    assert read(name, **args) == get_config("vit_micro_patch4_32")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"norm_eps": 1e-5}, "no setting for norm_eps (=1e-05)"),
        ({"positions": "sincos2d"}, "no setting for positions (=sincos2d)"),
    ],
)
def test_what_timm_cannot_build_is_refused_with_the_reason(changes: dict[str, Any], named: str) -> None:
    config = dataclasses.replace(get_config("vit_micro_patch4_32"), **changes)
    with pytest.raises(InputError) as caught:
        config_to_timm("vit_micro_patch4_32", config)
    assert "timm cannot build this network: it has " + named in str(caught.value)


@st.composite
def possible_fields(draw: st.DrawFn) -> dict[str, Any]:
    patch, heads, pool = draw(st.integers(1, 20)), draw(st.integers(1, 9)), draw(st.sampled_from(POOLS))
    return dict(
        image_size=patch * draw(st.integers(1, 40)),
        patch_size=patch,
        width=heads * draw(st.integers(1, 300)),
        depth=draw(st.integers(1, 50)),
        heads=heads,
        mlp_width=draw(st.integers(1, 9000)),
        pool=pool,
        class_token=pool == "token" or draw(st.booleans()),
        registers=draw(st.integers(0, 5)),
        prefix_positions=draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "quick_gelu"])),
        qkv_bias=draw(st.booleans()),
        in_channels=draw(st.integers(1, 5)),
        num_classes=draw(st.integers(0, 20)),
    )


@given(st.sampled_from([*ARCHITECTURES, "my_vit"]), possible_fields())
@hypothesis_settings(max_examples=60)
def test_what_is_said_to_timm_comes_back_as_the_same_network(architecture: str, fields: dict[str, Any]) -> None:
    config = ViTConfig(**fields)
    name, args = config_to_timm(architecture, config)
    rebuilt = read(name, **json.loads(json.dumps(args)))
    if not config.prefix_tokens:  # nothing that could have a position
        rebuilt = dataclasses.replace(rebuilt, prefix_positions=config.prefix_positions)
    assert rebuilt == config


# --- whole checkpoints ---


@pytest.mark.parametrize("pool", POOLS)
def test_a_checkpoint_is_saved_for_both_and_read_back(pool: str, tmp_path: Path) -> None:
    config = dataclasses.replace(
        get_config("vit_micro_patch4_32"),
        width=16, depth=1, mlp_width=24, num_classes=3, pool=pool, class_token=pool == "token",
    )  # fmt: skip
    model = ViT(config, key=jax.random.key(0))
    preprocess = Preprocess(input_size=(32, 32), crop_pct=1.0)
    ckpt = Checkpoint(model=model, preprocess=preprocess, architecture="mine", labels=("a", "b", "c"))
    save_pretrained(ckpt, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["global_pool"] == {"map": "map", "token": "token", "mean": "avg"}[pool]
    assert settings["pretrained_cfg"]["first_conv"] == "patch_embed.proj"
    assert settings["pretrained_cfg"]["classifier"] == "head"
    assert settings["nfnet_eqx"]["config"]["family"] == "vit"
    # As timm reads it.
    del settings["nfnet_eqx"]
    assert config_from_timm(settings)[1] == config
    opened = load_checkpoint(tmp_path)
    assert (opened.config, opened.architecture, opened.labels) == (config, "mine", ("a", "b", "c"))
    before, after = named_parameters(model), named_parameters(opened.model)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert load_checkpoint(tmp_path, num_classes=7).model.head.weight.shape == (7, 16)
