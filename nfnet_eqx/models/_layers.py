"""The layers of a normalizer-free network. Feature maps are `(height, width, channels)`, see `_conv.py`.

Every layer is a plain dataclass of its parts. A fresh one comes from its static `init`, which knows the config.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import _config
from nfnet_eqx.models._activations import ACTIVATIONS, ActivationName, gamma
from nfnet_eqx.models._config import Numerics, Padding, make_divisible
from nfnet_eqx.models._conv import ConvWeight, FeatureMap, conv2d


class ShapesOnly:
    """Stands for the key where a network's shapes are wanted and no numbers: a sampler takes long to trace."""


InitKey = PRNGKeyArray | ShapesOnly


class Activation(eqx.Module):
    """`scale * f(x)`."""

    name: ActivationName = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    numerics: Numerics = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        if self.name == "gelu" and self.numerics == "deepmind":
            y = jax.nn.gelu(x, approximate=True)
        else:
            y = ACTIVATIONS[self.name][0](x)
        return y if self.scale == 1 else y * jnp.asarray(self.scale, y.dtype)


class Conv2d(eqx.Module):
    """A plain convolution with bias: what a `WSConv2d` becomes when it is folded."""

    weight: ConvWeight
    bias: Float[Array, " out"]
    stride: int = eqx.field(static=True)
    dilation: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        y = conv2d(
            x,
            self.weight.astype(x.dtype),
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            padding=self.padding,
        )
        return y + self.bias.astype(x.dtype)[None, None]


class WSConv2d(eqx.Module):
    r"""A convolution with scaled weight standardization and a learnable gain for each output channel.

    .. math:: \hat W = \gamma \cdot g \cdot \frac{W - \mu}{\sigma \sqrt{\text{fan\_in}}}

    with mean and variance over `(in, height, width)` of each output channel.

    References:
        2101.08692, section 3; 2102.06171, equation 1.
    """

    weight: ConvWeight
    bias: Float[Array, " out"]
    gain: Float[Array, "out 1 1 1"]
    stride: int = eqx.field(static=True)
    dilation: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    gamma: float = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    numerics: Numerics = eqx.field(static=True)

    @staticmethod
    def init(
        config: _config.NFNetConfig,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        gain: float = 1.0,
        key: InitKey,
    ) -> "WSConv2d":
        """A convolution that starts from N(0, 1 / fan-in), without bias, with this gain."""
        fan_in = in_channels // groups * kernel**2
        return WSConv2d(
            weight=draw(jr.normal, key, (out_channels, in_channels // groups, kernel, kernel)) * fan_in**-0.5,
            bias=jnp.zeros(out_channels, jnp.float32),
            gain=jnp.full((out_channels, 1, 1, 1), gain, jnp.float32),
            stride=stride,
            dilation=dilation,
            groups=groups,
            padding=config.padding,
            gamma=gamma(config.activation) if config.gamma_in == "weight" else 1.0,
            eps=config.std_conv_eps,
            numerics=config.numerics,
        )

    def standardized(self) -> ConvWeight:
        """The weight that the convolution uses, in float32 whatever the parameters' dtype.

        In bfloat16 a kernel with a large mean would lose up to 4 % here.
        """
        weight = self.weight.astype(jnp.float32)
        fan_in = math.prod(weight.shape[1:])
        mean = jnp.mean(weight, axis=(1, 2, 3), keepdims=True)
        var = jnp.var(weight, axis=(1, 2, 3), keepdims=True)
        if self.numerics == "deepmind":
            scale = jax.lax.rsqrt(jnp.maximum(var * fan_in, 1e-4))
        else:
            scale = jax.lax.rsqrt(var + self.eps) * fan_in**-0.5
        return (weight - mean) * (scale * self.gain.astype(jnp.float32) * self.gamma)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        plain = Conv2d(self.standardized(), self.bias, self.stride, self.dilation, self.groups, self.padding)
        return plain(x)


class Pointwise(eqx.Module):
    """A fully connected layer kept as a 1x1 convolution's `(out, in, 1, 1)`, as squeeze-and-excite stores it."""

    weight: Float[Array, "out in 1 1"]
    bias: Float[Array, " out"]

    @staticmethod
    def init(config: _config.NFNetConfig, in_features: int, out_features: int, *, key: InitKey) -> "Pointwise":
        """A layer that starts from a normal of variance 1 / in (DeepMind's is cut), without bias."""
        # Haiku's Linear: a normal cut at two standard deviations, not widened again.
        sample = cut_normal if config.numerics == "deepmind" else jr.normal
        return Pointwise(
            weight=draw(sample, key, (out_features, in_features, 1, 1)) * in_features**-0.5,
            bias=jnp.zeros(out_features, jnp.float32),
        )

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        return self.weight[:, :, 0, 0].astype(x.dtype) @ x + self.bias.astype(x.dtype)


class SqueezeExcite(eqx.Module):
    """`sigmoid(fc2(relu(fc1(mean(x))))) * x`. The papers' text says GELU; all released code and weights use ReLU.

    References:
        2102.06171, appendix C; Hu et al., "Squeeze-and-Excitation Networks" (1709.01507).
    """

    fc1: Pointwise
    fc2: Pointwise

    @staticmethod
    def init(config: _config.NFNetConfig, channels: int, *, key: InitKey) -> "SqueezeExcite":
        """Attention on `channels`."""
        hidden = se_hidden(config, channels)
        key1, key2 = split(key, 2)
        return SqueezeExcite(
            fc1=Pointwise.init(config, channels, hidden, key=key1),
            fc2=Pointwise.init(config, hidden, channels, key=key2),
        )

    def __call__(self, x: FeatureMap) -> FeatureMap:
        pooled = jnp.mean(x, axis=(0, 1))
        return x * jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(pooled))))[None, None]


class ChannelConv(eqx.Module):
    """A 1-D convolution along the channel axis, zero padded, without bias."""

    weight: Float[Array, "1 1 kernel"]

    @staticmethod
    def init(kernel: int, *, key: InitKey) -> "ChannelConv":
        """A convolution that starts uniform within +- 1 / sqrt(kernel), as PyTorch's do."""
        limit = kernel**-0.5
        sample = functools.partial(jr.uniform, minval=-limit, maxval=limit)
        return ChannelConv(weight=draw(sample, key, (1, 1, kernel)))

    def __call__(self, x: Float[Array, " channels"]) -> Float[Array, " channels"]:
        # jnp.convolve flips its kernel; a neural "convolution" does not. Its own padding is wrong for kernels longer
        # than x.
        kernel = self.weight[0, 0, ::-1].astype(x.dtype)
        return jnp.convolve(jnp.pad(x, kernel.size // 2), kernel, mode="valid")


class EfficientChannelAttention(eqx.Module):
    """`sigmoid(conv1d(mean(x))) * x`: attention with a handful of weights.

    References:
        Wang et al., "ECA-Net" (1910.03151).
    """

    conv: ChannelConv

    @staticmethod
    def init(config: _config.NFNetConfig, channels: int, *, key: InitKey) -> "EfficientChannelAttention":
        """Attention on `channels`."""
        return EfficientChannelAttention(conv=ChannelConv.init(eca_kernel(config, channels), key=key))

    def __call__(self, x: FeatureMap) -> FeatureMap:
        return x * jax.nn.sigmoid(self.conv(jnp.mean(x, axis=(0, 1))))[None, None]


def se_hidden(config: _config.NFNetConfig, channels: int) -> int:
    """Hidden width of squeeze-and-excite on `channels`."""
    return make_divisible(channels * config.se_ratio, config.se_divisor, round_limit=0.0)


def eca_kernel(config: _config.NFNetConfig, channels: int) -> int:
    """Kernel size of efficient channel attention on `channels`: odd, at least 3."""
    kernel = int(abs(math.log2(channels) + config.eca_beta) / config.eca_gamma)
    return max(kernel if kernel % 2 else kernel + 1, 3)


class StochasticDepth(eqx.Module):
    """Drops a whole residual branch, in training, with probability `rate`.

    `rate` and `inference` are not static, so that `equinox.tree_at` and `equinox.nn.inference_mode` can change them.

    References:
        Huang et al., "Deep Networks with Stochastic Depth" (1603.09382).
    """

    rate: float
    rescale: bool = eqx.field(static=True)
    inference: bool = False

    def __call__(
        self, x: Float[Array, "*shape"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*shape"]:
        if (self.inference if inference is None else inference) or self.rate == 0:
            return x
        if key is None:
            raise InputError(missing_key("stochastic_depth", self.rate))
        keep = 1.0 - self.rate
        # The draw is made in float32: in bfloat16 a keep-rate of 0.95 would come out as 0.945.
        mask = jr.bernoulli(key, jnp.float32(keep)).astype(x.dtype)
        return x * (mask / jnp.asarray(keep, x.dtype) if self.rescale else mask)


def draw(sample: Callable[..., Array], key: InitKey, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """Random numbers in float32, also where JAX's default is float64."""
    return jnp.zeros(shape, jnp.float32) if isinstance(key, ShapesOnly) else sample(key, shape, dtype=jnp.float32)


def split(key: InitKey, count: int) -> Sequence[InitKey]:
    """Independent keys."""
    return [key] * count if isinstance(key, ShapesOnly) else list(jr.split(key, count))


def cut_normal(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Array:
    """Standard normal numbers, those beyond two standard deviations drawn again."""
    return jr.truncated_normal(key, -2.0, 2.0, shape, dtype)


def missing_key(layer: str, rate: float) -> str:
    """What to say when training needs randomness and got none."""
    return (
        f"key (=None) is needed in training: {layer} drops with rate {rate}. Call model(x, key=key), "
        "one key for each example, or evaluate with inference=True or equinox.nn.inference_mode(model)"
    )
