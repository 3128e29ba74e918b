"""The layers against NumPy, and the constants and rates that must be right before any training starts."""

import dataclasses
import math
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from nfnet_eqx import InputError, NFNetConfig
from nfnet_eqx.models._activations import ActivationName
from nfnet_eqx.models._layers import (
    Activation,
    Conv2d,
    EfficientChannelAttention,
    SqueezeExcite,
    StochasticDepth,
    WSConv2d,
    eca_kernel,
    gamma,
    se_hidden,
)

CONFIG = NFNetConfig(depths=(1,), widths=(16,), stem_widths=(8,), stem_strides=(2,), stage_strides=(1,), group_size=8)


def config(**changes) -> NFNetConfig:
    return dataclasses.replace(CONFIG, **changes)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
DEFINITIONS: dict[Any, Any] = {
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x)),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
}
ACTIVATIONS = get_args(ActivationName)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gamma_preserves_the_variance_of_a_standard_normal_input(name: ActivationName):
    x = np.linspace(-12, 12, 100_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) * (x[1] - x[0])
    y = gamma(name) * DEFINITIONS[name](x)
    variance = np.sum(density * y**2) - np.sum(density * y) ** 2
    assert variance == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_definition(name: ActivationName):
    x = np.linspace(-8, 8, 401)
    y = Activation(name=name, scale=1.5, numerics="timm")(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, 1.5 * DEFINITIONS[name](x), rtol=0, atol=5e-6)


def test_deepminds_gelu_is_the_tanh_form_and_timms_the_erf_form():
    x = np.linspace(-4, 4, 401)
    timm, deepmind = (
        Activation(name="gelu", scale=1.0, numerics=n)(jnp.asarray(x, jnp.float32)) for n in ("timm", "deepmind")
    )
    expected = x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(deepmind, expected, rtol=0, atol=2e-6)
    assert 1e-4 < np.abs(timm - deepmind).max() < 1e-3


def test_only_gelu_depends_on_the_numerics():
    x = jnp.linspace(-4, 4, 101)
    for name in set(ACTIVATIONS) - {"gelu"}:
        timm, deepmind = (Activation(name=name, scale=1.0, numerics=n)(x) for n in ("timm", "deepmind"))
        np.testing.assert_array_equal(timm, deepmind, err_msg=name)


def wsconv(key: jax.Array, **changes) -> WSConv2d:
    return WSConv2d.init(config(**changes), 8, 12, 3, groups=2, key=key)


@pytest.mark.parametrize("numerics", ["timm", "deepmind"])
def test_every_standardized_unit_has_mean_0_and_variance_1_over_fan_in(numerics: str, getkey):
    conv = wsconv(getkey(), numerics=numerics, gamma_in="activation")
    conv = eqx.tree_at(lambda c: c.weight, conv, conv.weight * 3 + 0.5)  # neither holds before
    weight = np.asarray(conv.standardized(), np.float64)
    fan_in = 4 * 3 * 3
    np.testing.assert_allclose(weight.mean((1, 2, 3)), 0, atol=1e-7)
    np.testing.assert_allclose(weight.var((1, 2, 3)) * fan_in, 1, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 0.0], ids=["usual", "tiny", "zero"])
@pytest.mark.parametrize("gamma_in", ["activation", "weight"])
@pytest.mark.parametrize("numerics", ["timm", "deepmind"])
def test_standardization_is_the_formula(numerics: str, gamma_in: str, scale: float, getkey):
    conv = wsconv(getkey(), numerics=numerics, gamma_in=gamma_in, std_conv_eps=1e-4)
    gain = 1 + 0.1 * jr.normal(getkey(), conv.gain.shape)
    conv = eqx.tree_at(lambda c: (c.weight, c.gain), conv, (conv.weight * scale, gain))
    w, fan_in = np.asarray(conv.weight, np.float64), 4 * 3 * 3
    mean, var = w.mean((1, 2, 3), keepdims=True), w.var((1, 2, 3), keepdims=True)
    if numerics == "deepmind":
        expected = (w - mean) / np.sqrt(np.maximum(var * fan_in, 1e-4))
    else:
        expected = (w - mean) / np.sqrt((var + 1e-4) * fan_in)
    expected *= np.asarray(gain) * (1.7015043497085571 if gamma_in == "weight" else 1)
    np.testing.assert_allclose(conv.standardized(), expected, rtol=1e-5, atol=1e-7)


def test_standardization_runs_in_float32_whatever_the_parameters_are(getkey):
    conv = wsconv(getkey())
    conv = eqx.tree_at(lambda c: c.weight, conv, conv.weight + 4)  # a large mean: bfloat16 would lose the rest
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), conv)
    widened = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)
    assert half.standardized().dtype == jnp.float32
    np.testing.assert_array_equal(half.standardized(), widened.standardized())

    x = jr.normal(getkey(), (6, 6, 8), jnp.bfloat16)
    out = half(x)
    assert out.dtype == jnp.bfloat16
    exact = np.asarray(widened(x.astype(jnp.float32)))
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0, atol=0.01 * np.abs(exact).max())


def test_float32_parameters_serve_bfloat16_pictures(getkey):
    conv, x = wsconv(getkey()), jr.normal(getkey(), (6, 6, 8))
    out = conv(x.astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), conv(x), rtol=0, atol=0.05)


def test_a_ws_convolution_starts_without_bias_and_with_the_gain_it_is_given(getkey):
    conv = WSConv2d.init(CONFIG, 8, 12, 3, gain=0.0, key=getkey())
    assert not conv.bias.any() and not conv.gain.any() and conv.gain.shape == (12, 1, 1, 1)
    assert float(jnp.std(conv.weight)) == pytest.approx((8 * 9) ** -0.5, rel=0.05)


def test_the_bias_is_added_to_every_pixel(getkey):
    conv = Conv2d(jnp.zeros((4, 8, 1, 1)), jnp.arange(4.0), stride=1, dilation=1, groups=1, padding="same")
    np.testing.assert_array_equal(conv(jr.normal(getkey(), (2, 3, 8))), np.tile(np.arange(4.0), (2, 3, 1)))


def test_squeeze_excite_is_the_formula(getkey):
    attention = SqueezeExcite.init(config(se_ratio=0.5), 16, key=getkey())
    biases = jr.normal(getkey(), (8,)), jr.normal(getkey(), (16,))
    attention = eqx.tree_at(lambda a: (a.fc1.bias, a.fc2.bias), attention, biases)
    x = np.asarray(jr.normal(getkey(), (5, 4, 16)))
    w1, w2 = (np.asarray(fc.weight)[:, :, 0, 0] for fc in (attention.fc1, attention.fc2))
    hidden = np.maximum(w1 @ x.mean((0, 1)) + np.asarray(biases[0]), 0)
    expected = x * sigmoid(w2 @ hidden + np.asarray(biases[1]))
    np.testing.assert_allclose(attention(jnp.asarray(x)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("channels", "ratio", "divisor", "hidden"),
    [
        (256, 0.5, 8, 128),
        (1536, 0.25, 8, 384),
        (256, 1 / 16, 8, 16),
        (40, 0.25, 8, 8),
        (16, 0.01, 8, 8),
        (104, 0.5, 8, 56),
    ],
)
def test_squeeze_excite_widths_are_timms(channels: int, ratio: float, divisor: int, hidden: int):
    assert se_hidden(config(se_ratio=ratio, se_divisor=divisor), channels) == hidden


def test_squeeze_excite_of_deepmind_starts_from_a_cut_normal(getkey):
    std = 256**-0.5
    deepmind = SqueezeExcite.init(config(numerics="deepmind"), 256, key=getkey()).fc1.weight
    timm = SqueezeExcite.init(CONFIG, 256, key=getkey()).fc1.weight
    assert float(jnp.abs(deepmind).max()) < 2 * std + 1e-6 < float(jnp.abs(timm).max())
    assert float(jnp.std(timm)) == pytest.approx(std, rel=0.02)
    assert float(jnp.std(deepmind)) == pytest.approx(0.8796 * std, rel=0.02)  # that of a normal cut at 2


@pytest.mark.parametrize("channels", [2, 4, 16, 33])
def test_channel_attention_is_the_formula(channels: int, getkey):
    attention = EfficientChannelAttention.init(config(eca_gamma=1.0), channels, key=getkey())
    kernel = np.asarray(attention.conv.weight)[0, 0]
    assert len(kernel) == max(3, int(math.log2(channels) + 1) // 2 * 2 + 1)
    x = np.asarray(jr.normal(getkey(), (5, 4, channels)))
    pooled = np.pad(x.mean((0, 1)), len(kernel) // 2)
    correlated = [np.dot(pooled[i : i + len(kernel)], kernel) for i in range(channels)]
    expected = x * sigmoid(np.asarray(correlated))
    np.testing.assert_allclose(attention(jnp.asarray(x)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("channels", "kernel"), [(256, 5), (512, 5), (1024, 5), (2048, 7), (1536, 5), (16, 3), (2, 3)])
def test_channel_attention_kernels_are_timms(channels: int, kernel: int):
    assert eca_kernel(CONFIG, channels) == kernel


@pytest.mark.parametrize("rescale", [True, False], ids=["timm", "deepmind"])
def test_stochastic_depth_keeps_or_drops_a_whole_branch(rescale: bool, getkey):
    layer, x = StochasticDepth(0.25, rescale=rescale), jnp.ones((2, 2, 3))
    kept = np.asarray(jax.vmap(lambda key: layer(x, key=key))(jr.split(getkey(), 4000)))
    value = 1 / 0.75 if rescale else 1
    assert np.all(kept == kept[:, :1, :1, :1]), "all or nothing"
    assert sorted(np.unique(kept)) == pytest.approx([0, value])
    # The mean is the input with rescaling, and keep * input without; three standard errors.
    assert kept.mean() == pytest.approx(0.75 * value, abs=3 * value * math.sqrt(0.75 * 0.25 / 4000))


def test_stochastic_depth_draws_in_float32(getkey):
    """In bfloat16 a keep-rate of 0.9995 would be 1, and nothing would ever be dropped."""
    layer, x = StochasticDepth(0.0005, rescale=False), jnp.ones((1, 1, 1), jnp.bfloat16)
    kept = jax.vmap(lambda key: layer(x, key=key))(jr.split(getkey(), 40_000))
    assert kept.dtype == jnp.bfloat16
    assert 3 <= jnp.sum(kept == 0) <= 40


def test_stochastic_depth_does_nothing_in_inference_or_at_rate_zero(getkey):
    x = jr.normal(getkey(), (2, 2, 3))
    layer = StochasticDepth(0.999, rescale=True)
    for out in (
        layer(x, inference=True),
        eqx.nn.inference_mode(layer)(x),
        StochasticDepth(0.0, rescale=True)(x),
        StochasticDepth(0.0, rescale=True)(x, key=getkey()),
    ):
        np.testing.assert_array_equal(out, x)
    assert not eqx.nn.inference_mode(layer)(x, key=getkey(), inference=False).any(), "the argument goes before the flag"


def test_stochastic_depth_without_a_key_says_what_to_do():
    with pytest.raises(InputError, match=r"key \(=None\) is needed in training: stochastic_depth drops with rate 0.5"):
        StochasticDepth(0.5, rescale=True)(jnp.ones((1, 1, 1)))
