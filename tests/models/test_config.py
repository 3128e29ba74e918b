"""`NFNetConfig`: what goes in comes out, and what is impossible is refused by name, all faults at once."""

import dataclasses
import json
import math
from typing import Any, get_args

import hypothesis
import hypothesis.strategies as st
import pytest

from nfnet_eqx import InputError, NFNetConfig, create_model, get_config, list_models
from nfnet_eqx.models import config_from_dict
from nfnet_eqx.models._activations import ActivationName
from nfnet_eqx.models._config import MAX_STEM, make_divisible
from nfnet_eqx.models._network import MAX_BLOCKS

FIELDS = [field.name for field in dataclasses.fields(NFNetConfig)]
REQUIRED = ["depths", "widths", "stem_widths", "stem_strides"]
GOOD = get_config("test_nfnet").to_dict()


def several(low: int, high: int, size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(low, high)] * size)


@st.composite
def possible_fields(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of any valid config; the config itself is built outside, as its type checks draw at random."""
    stages, convs = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    widths = st.integers(1, 4096)
    padding = draw(st.sampled_from(["same", "symmetric"]))
    rates = st.floats(0, 1, exclude_max=True)
    return dict(
        depths=draw(several(1, 50, stages)),
        widths=draw(several(1, 4096, stages)),
        stage_strides=draw(several(1, 2, stages)),
        stem_widths=draw(several(1, 512, convs)),
        stem_strides=draw(several(1, 2, convs)),
        stem_kernel=draw(st.sampled_from([1, 3, 7] if padding == "symmetric" else [1, 2, 3, 4, 7])),
        stem_pool=draw(st.booleans()),
        block=draw(st.sampled_from(["resnet", "regnet"])),
        bottleneck_ratio=draw(st.floats(1e-3, 16)),
        bottleneck_floor=draw(st.booleans()),
        extra_conv=draw(st.booleans()),
        group_size=draw(st.none() | widths),
        activation=draw(st.sampled_from(get_args(ActivationName))),
        gamma_in=draw(st.sampled_from(["activation", "weight"])),
        padding=padding,
        skipinit=draw(st.booleans()),
        alpha=draw(st.floats(-10, 10)),
        attention=draw(st.sampled_from([None, "se", "eca"])),
        attention_gain=draw(st.floats(-10, 10)),
        se_ratio=draw(st.floats(1e-3, 16)),
        num_features=draw(st.none() | widths),
        std_conv_eps=draw(st.floats(0, 1)),
        numerics=draw(st.sampled_from(["timm", "deepmind"])),
        drop_rate=draw(rates),
        stochastic_depth=draw(rates),
        output_stride=draw(st.sampled_from([8, 16, 32])),
        in_channels=draw(st.integers(1, 20)),
        num_classes=draw(st.integers(0, 30_000)),
        zero_init_head=draw(st.booleans()),
    )


@hypothesis.given(possible_fields())
def test_a_config_survives_json(fields: dict[str, Any]):
    config = NFNetConfig(**fields)
    again = NFNetConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize("name", list_models())
def test_every_name_survives_json(name: str):
    config = get_config(name)
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        NFNetConfig.from_dict(fields)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unknown_missing_and_wrong_keys_are_named_in_one_error():
    fields = GOOD | {"patch_size": 14, "head_count": None, "alpha": "0.2", "num_classes": -1}
    del fields["depths"], fields["stem_widths"]
    message = refusal(fields)
    for part in (
        "'patch_size' (=14; did you mean",
        "'head_count' (=None; did you mean",
        "'depths' is missing",
        "'stem_widths' is missing",
    ):
        assert part in message
    assert "alpha must be a finite number, got '0.2'" in message
    assert "num_classes must lie between 0 and 1000000, got -1" in message
    assert "newer nfnet_eqx" in message


@pytest.mark.parametrize("key", REQUIRED)
def test_only_what_has_no_default_may_not_be_missing(key: str):
    assert f"{key!r} is missing" in refusal({k: v for k, v in GOOD.items() if k != key})
    assert NFNetConfig.from_dict({k: GOOD[k] for k in [*REQUIRED, "group_size"]}).num_classes == 1000


INTEGERS = ["stem_kernel", "se_divisor", "channel_divisor", "in_channels", "num_classes"]
INTEGERS_OR_NONE = ["group_size", "num_features"]
NUMBERS = [
    "bottleneck_ratio", "alpha", "attention_gain", "se_ratio", "eca_gamma", "eca_beta", "std_conv_eps", "drop_rate",
    "stochastic_depth",
]  # fmt: skip
FLAGS = ["stem_pool", "bottleneck_floor", "extra_conv", "skipinit", "zero_init_head"]
SEQUENCES = ["depths", "widths", "stem_widths", "stem_strides", "stage_strides"]
CHOICES = ["block", "activation", "gamma_in", "padding", "attention", "numerics", "output_stride"]
NEITHER = ["3", True, [1], {"a": 1}, math.nan, math.inf, -math.inf]
WRONG = {
    **dict.fromkeys(INTEGERS, [*NEITHER, 3.0, None]),
    **dict.fromkeys(INTEGERS_OR_NONE, [*NEITHER, 3.0]),
    **dict.fromkeys(NUMBERS, [*NEITHER, None]),
    **dict.fromkeys(FLAGS, ["true", 1, 0, None, [True]]),
    **dict.fromkeys(SEQUENCES, ["1234", 4, None, [], [1, "2"], [1, 2.0], [1, True], [[1]], {"0": 1}]),
    **dict.fromkeys(CHOICES, ["x", "SE", 0, 1.5, True, ["se"], {}, 64]),
}


def test_every_field_is_tested_for_its_type():
    assert sorted(WRONG) == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_wrong_type_is_refused(name: str):
    for value in WRONG[name]:
        message = refusal(GOOD | {name: value})
        shown = tuple(value) if isinstance(value, list) else value
        assert f"{name} must be" in message and f"got {shown!r}" in message, f"{name}={value!r}: {message}"


def test_all_wrong_types_are_named_in_one_error():
    message = refusal({name: values[0] for name, values in WRONG.items()})
    assert [name for name in FIELDS if f"{name} must be" not in message] == []


TOO_SMALL_OR_LARGE = {
    "depths": [[0, 1, 1, 1], [-1, 1, 1, 1], [1, 1, 1, MAX_BLOCKS + 1]],
    "widths": [[32, 64, 96, 0], [32, 64, 96, 65_537], [10**30] * 4],
    "stem_widths": [[0, 8, 8, 8], [8, 8, 8, -8]],
    "stem_strides": [[0, 1, 1, 2], [3, 1, 1, 2]],
    "stage_strides": [[1, 2, 2, 4], [0, 2, 2, 2]],
    "stem_kernel": [0, 17, -3],
    "bottleneck_ratio": [0, -0.5, 17.0],
    "group_size": [0, -8, 65_537],
    "alpha": [1e4, -1e4, 10**400],
    "attention_gain": [1e4],
    "se_ratio": [0.0, 1e9],
    "se_divisor": [0, -1],
    "eca_gamma": [0.0, -2.0],
    "eca_beta": [1e9],
    "num_features": [0, 65_537],
    "channel_divisor": [0],
    "std_conv_eps": [-1e-5, 2],
    "drop_rate": [-0.1, 1, 1.5],
    "stochastic_depth": [-0.1, 1, 10**400],
    "in_channels": [0, -3],
    "num_classes": [-1, 10**9],
}


@pytest.mark.parametrize("name", TOO_SMALL_OR_LARGE)
def test_an_impossible_number_is_refused(name: str):
    for value in TOO_SMALL_OR_LARGE[name]:
        message = refusal(GOOD | {name: value})
        assert f"{name} must lie " in message, f"{name}={value!r}: {message}"
        assert f"got {tuple(value) if isinstance(value, list) else value}"[:100] in message, (
            f"{name}={value!r}: {message}"
        )


def test_all_impossible_numbers_are_named_in_one_error():
    message = refusal(GOOD | {name: values[0] for name, values in TOO_SMALL_OR_LARGE.items()})
    assert [name for name in TOO_SMALL_OR_LARGE if f"{name} must lie " not in message] == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"depths": [1, 1, 1]}, "depths, widths and stage_strides need one entry a stage, got (1, 1, 1)"),
        ({"stage_strides": [1, 2]}, "depths, widths and stage_strides need one entry a stage"),
        ({"stem_strides": [2]}, "stem_widths and stem_strides need one entry a convolution"),
        ({"depths": [200, 200, 200, 200]}, "depths add up to 800 blocks, more than 256"),
        ({"stem_widths": [8] * 17, "stem_strides": [1] * 17}, f"stem_widths has 17 entries, more than {MAX_STEM}"),
        ({"stem_kernel": 4}, "stem_kernel must be odd where padding is 'symmetric', got 4"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes: dict[str, Any], named: str):
    assert named in refusal(GOOD | changes)


def test_a_megabyte_of_nonsense_makes_a_short_error():
    assert len(refusal(GOOD | {"x" * 10**6: "y" * 10**6, "padding": "z" * 10**6, "widths": [-1] * 10**6})) < 2000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@hypothesis.given(st.dictionaries(st.sampled_from([*FIELDS, "unknown"]), JSON, max_size=6))
def test_whatever_a_file_holds_is_a_config_or_an_input_error(fields: dict[str, Any]):
    try:
        config = NFNetConfig.from_dict(GOOD | fields)
    except InputError:
        return
    assert NFNetConfig.from_dict(config.to_dict()) == config


def test_create_model_refuses_impossible_numbers(getkey):
    with pytest.raises(InputError, match="num_classes must lie between 0 and 1000000, got 10000000000"):
        create_model("test_nfnet", key=getkey(), num_classes=10**10)
    with pytest.raises(InputError, match="in_channels must lie between 1 and 65536, got 0"):
        create_model("test_nfnet", key=getkey(), in_channels=0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.75 * 48, 40), (0.75 * 104, 80), (0.75 * 440, 328), (72, 72), (1, 8), (11.9, 16), (8.9, 16), (8.8, 8)],
)
def test_widths_are_rounded_as_in_timm(value: float, expected: int):
    assert make_divisible(value, 8) == expected


def test_without_a_limit_rounding_may_lose_more_than_a_tenth():
    assert make_divisible(11.9, 8, round_limit=0.0) == 8
