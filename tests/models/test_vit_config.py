"""`ViTConfig`: what it refuses, and its way to a file and back."""

import dataclasses
import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from nfnet_eqx import InputError, ViTConfig
from nfnet_eqx.models import config_from_dict

GOOD: dict[str, Any] = {"image_size": 32, "patch_size": 4, "width": 32, "depth": 2, "heads": 4, "mlp_width": 64}


@st.composite
def possible_fields(draw: st.DrawFn) -> dict[str, Any]:
    patch, heads = draw(st.integers(1, 32)), draw(st.integers(1, 16))
    positions = draw(st.sampled_from(["learned", "sincos2d"]))
    pool = draw(st.sampled_from(["map", "token", "mean"]))
    return dict(
        image_size=patch * draw(st.integers(1, 40)),
        patch_size=patch,
        width=4 * heads * draw(st.integers(1, 40)),
        depth=draw(st.integers(1, 50)),
        heads=heads,
        mlp_width=draw(st.integers(1, 9000)),
        pool=pool,
        class_token=pool == "token" or draw(st.booleans()),
        registers=draw(st.integers(0, 16)),
        positions=positions,
        prefix_positions=positions == "learned" and draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "quick_gelu"])),
        norm_eps=draw(st.floats(1e-12, 1)),
        qkv_bias=draw(st.booleans()),
        drop_rate=draw(st.floats(0, 0.99)),
        stochastic_depth=draw(st.floats(0, 0.99)),
        in_channels=draw(st.integers(1, 20)),
        num_classes=draw(st.integers(0, 30_000)),
    )


@hypothesis.given(possible_fields())
def test_a_config_survives_json(fields: dict[str, Any]):
    config = ViTConfig(**fields)
    again = config_from_dict(json.loads(json.dumps(config.to_dict())))
    assert type(again) is ViTConfig and again == config and hash(again) == hash(config)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 30}, "image_size (=30) must be a multiple of patch_size (=4)"),
        ({"heads": 3}, "heads (=3) must divide width (=32)"),
        ({"pool": "token"}, "pool='token' needs class_token=True"),
        ({"positions": "sincos2d", "width": 30, "heads": 3}, "width (=30) must be a multiple of 4"),
        ({"positions": "sincos2d", "prefix_positions": True}, "prefix_positions=True needs positions='learned'"),
        ({"pool": "max"}, "pool must be one of 'map', 'token', 'mean', got 'max'"),
        ({"width": 10**6, "depth": 0}, "width must lie between 1 and 65536, got 1000000; depth must lie between"),
        ({"image_size": 10**7}, "image_size must lie between 1 and 8192"),
        ({"registers": 10**6}, "registers must lie between 0 and 1024"),
        ({"norm_eps": 0.0}, "norm_eps must lie in (0, 1]"),
        ({"qkv_bias": 1}, "qkv_bias must be true or false"),
    ],
)
def test_impossible_values_are_refused_by_name(changes: dict[str, Any], named: str):
    with pytest.raises(InputError) as caught:
        ViTConfig.from_dict(GOOD | changes)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_all_faults_together_are_in_one_message():
    with pytest.raises(InputError, match=r"image_size.*heads.*pool='token'"):
        ViTConfig(**GOOD | {"image_size": 30, "heads": 3, "pool": "token"})


def test_a_file_of_another_family_is_told_from_it():
    assert ViTConfig(**GOOD).to_dict()["family"] == "vit"
    with pytest.raises(InputError, match="family must be one of 'nfnet', 'vit', got 'swin'"):
        config_from_dict(GOOD | {"family": "swin"})
    with pytest.raises(InputError, match="ViTConfig: unknown key 'depths'"):
        config_from_dict(GOOD | {"family": "vit", "depths": [1]})


def test_there_is_one_numerics():
    config = ViTConfig(**GOOD)
    assert config.numerics == "timm" and config.with_numerics("timm") is config
    with pytest.raises(InputError, match=r"numerics \(='deepmind'\): a ViT has one function, 'timm'"):
        config.with_numerics("deepmind")


def test_what_follows_from_the_fields():
    config = ViTConfig(**GOOD, registers=3, class_token=True, prefix_positions=True)
    assert (config.grid_size, config.prefix_tokens, config.stored_positions) == (8, 4, 68)
    assert dataclasses.replace(config, prefix_positions=False).stored_positions == 64
    assert dataclasses.replace(config, prefix_positions=False, positions="sincos2d").stored_positions == 0
    assert (config.first_conv, config.classifier, config.feature_width) == ("patch_embed.proj", "head", 32)
