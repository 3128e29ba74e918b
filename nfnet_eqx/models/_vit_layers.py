"""The layers of a vision transformer. Tokens are `(tokens, width)`; parameters are named and laid out as timm's."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from nfnet_eqx.models._layers import InitKey, StochasticDepth, draw, split
from nfnet_eqx.models._vit_config import ViTActivation, ViTConfig

Tokens = Float[Array, "tokens width"]

ACTIVATIONS: dict[ViTActivation, Callable[[Array], Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(jnp.asarray(1.702, x.dtype) * x),
}


class Linear(eqx.Module):
    """`x W^T + b`, along the last axis."""

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"] | None

    @staticmethod
    def init(
        inputs: int, outputs: int, *, stacked: int = 1, bias: bool = True, bias_std: float = 0.0, key: InitKey
    ) -> "Linear":
        """A layer that starts from Glorot's uniform distribution, as big_vision's do.

        Args:
            inputs: features that it takes.
            outputs: features that it gives.
            stacked: how many matrices stand on each other in the weight; each starts by its own shape.
            bias: whether there is one.
            bias_std: of its normal distribution; 0: it starts at 0.
            key: randomness.
        """
        weight_key, bias_key = split(key, 2)
        limit = (6 / (inputs + outputs // stacked)) ** 0.5
        weight = draw(within(limit), weight_key, (outputs, inputs))
        start = draw(jr.normal, bias_key, (outputs,)) * bias_std if bias_std else jnp.zeros(outputs, jnp.float32)
        return Linear(weight=weight, bias=start if bias else None)

    @staticmethod
    def zeros(inputs: int, outputs: int) -> "Linear":
        """A layer that starts at 0."""
        return Linear(weight=jnp.zeros((outputs, inputs), jnp.float32), bias=jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        y = x @ self.weight.T.astype(x.dtype)
        return y if self.bias is None else y + jnp.broadcast_to(self.bias.astype(x.dtype), y.shape)


class LayerNorm(eqx.Module):
    """Layer normalization along the last axis: in float32 also where the tokens are bfloat16."""

    weight: Float[Array, " width"]
    bias: Float[Array, " width"]
    eps: float = eqx.field(static=True)

    @staticmethod
    def init(config: ViTConfig) -> "LayerNorm":
        """A normalization that starts with weight 1 and bias 0."""
        return LayerNorm(
            weight=jnp.ones(config.width, jnp.float32), bias=jnp.zeros(config.width, jnp.float32), eps=config.norm_eps
        )

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        exact = x.astype(_wide(x.dtype))
        centred = exact - jnp.mean(exact, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + jnp.asarray(self.eps, exact.dtype))
        scale, shift = (jnp.broadcast_to(a.astype(exact.dtype), x.shape) for a in (self.weight, self.bias))
        return (normal * scale + shift).astype(x.dtype)


class MLP(eqx.Module):
    """`fc2(act(fc1(x)))`."""

    fc1: Linear
    fc2: Linear
    activation: ViTActivation = eqx.field(static=True)

    @staticmethod
    def init(config: ViTConfig, *, key: InitKey) -> "MLP":
        """An MLP whose biases start from N(0, 1e-6^2)."""
        key1, key2 = split(key, 2)
        return MLP(
            fc1=Linear.init(config.width, config.mlp_width, bias_std=1e-6, key=key1),
            fc2=Linear.init(config.mlp_width, config.width, bias_std=1e-6, key=key2),
            activation=config.activation,
        )

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class Attention(eqx.Module):
    """Self-attention in several heads."""

    qkv: Linear
    proj: Linear
    heads: int = eqx.field(static=True)

    @staticmethod
    def init(config: ViTConfig, *, key: InitKey) -> "Attention":
        """Attention with as many heads as the config says."""
        qkv_key, proj_key = split(key, 2)
        width = config.width
        return Attention(
            qkv=Linear.init(width, 3 * width, stacked=3, bias=config.qkv_bias, key=qkv_key),
            proj=Linear.init(width, width, key=proj_key),
            heads=config.heads,
        )

    def __call__(self, x: Tokens) -> Tokens:
        return self.proj(attend(*jnp.split(self.qkv(x), 3, axis=-1), heads=self.heads))


class AttentionPool(eqx.Module):
    """One learned query's attention to all patches, and an MLP: multihead attention pooling (MAP).

    References:
        Zhai et al., "Scaling Vision Transformers" (2106.04560), section 3.3; Lee et al., "Set Transformer"
        (1810.00825).
    """

    latent: Float[Array, "1 1 width"]
    q: Linear
    kv: Linear
    proj: Linear
    norm: LayerNorm
    mlp: MLP
    heads: int = eqx.field(static=True)

    @staticmethod
    def init(config: ViTConfig, *, key: InitKey) -> "AttentionPool":
        """A head whose query starts from Glorot's uniform distribution, as a matrix of one row."""
        latent_key, q_key, kv_key, proj_key, mlp_key = split(key, 5)
        width = config.width
        return AttentionPool(
            latent=draw(within((6 / (1 + width)) ** 0.5), latent_key, (1, 1, width)),
            q=Linear.init(width, width, key=q_key),
            kv=Linear.init(width, 2 * width, stacked=2, key=kv_key),
            proj=Linear.init(width, width, key=proj_key),
            norm=LayerNorm.init(config),
            mlp=MLP.init(config, key=mlp_key),
            heads=config.heads,
        )

    def __call__(self, x: Tokens) -> Float[Array, " width"]:
        query = self.q(self.latent[0].astype(x.dtype))
        pooled = self.proj(attend(query, *jnp.split(self.kv(x), 2, axis=-1), heads=self.heads))
        return (pooled + self.mlp(self.norm(pooled)))[0]


class Block(eqx.Module):
    r"""One pre-norm residual block.

    .. math:: y = x + \mathrm{attn}(\mathrm{norm1}(x)), \quad y + \mathrm{mlp}(\mathrm{norm2}(y))

    Stochastic depth drops the two branches independently.

    References:
        2010.11929, equations 2 and 3.
    """

    norm1: LayerNorm
    attn: Attention
    norm2: LayerNorm
    mlp: MLP
    stochastic_depth: StochasticDepth

    @staticmethod
    def init(config: ViTConfig, drop_rate: float, *, key: InitKey) -> "Block":
        """A block that drops its branches with this rate, in training."""
        attention_key, mlp_key = split(key, 2)
        return Block(
            norm1=LayerNorm.init(config),
            attn=Attention.init(config, key=attention_key),
            norm2=LayerNorm.init(config),
            mlp=MLP.init(config, key=mlp_key),
            stochastic_depth=StochasticDepth(drop_rate, rescale=True),
        )

    def __call__(self, x: Tokens, *, key: PRNGKeyArray | None = None, inference: bool | None = None) -> Tokens:
        keys = (None, None) if key is None else (jr.fold_in(key, 0), jr.fold_in(key, 1))
        x = x + self.stochastic_depth(self.attn(self.norm1(x)), key=keys[0], inference=inference)
        return x + self.stochastic_depth(self.mlp(self.norm2(x)), key=keys[1], inference=inference)


def attend(
    queries: Float[Array, "queries width"],
    keys: Float[Array, "keys width"],
    values: Float[Array, "keys width"],
    *,
    heads: int,
) -> Float[Array, "queries width"]:
    """Scaled dot-product attention: each head in its own part of the width, the softmax in float32."""
    q, k, v = (x.reshape(x.shape[0], heads, x.shape[1] // heads) for x in (queries, keys, values))
    scale = jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    scores = jnp.einsum("qhd,khd->hqk", q * scale, k, preferred_element_type=_wide(q.dtype))
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("hqk,khd->qhd", weights, v).reshape(queries.shape)


def within(limit: float) -> Callable[..., Array]:
    """A sampler of uniform numbers between `-limit` and `limit`."""
    return functools.partial(jr.uniform, minval=-limit, maxval=limit)


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """The type in which sums over many numbers are made: float32 at least."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
