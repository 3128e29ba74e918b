"""The network: stem, stages of residual blocks, head. Every member of the family is this one class."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._conv import FeatureMap, avg_pool2d, max_pool2d
from nfnet_eqx.models._layers import (
    Activation,
    Conv2d,
    EfficientChannelAttention,
    InitKey,
    SqueezeExcite,
    StochasticDepth,
    WSConv2d,
    draw,
    gamma,
    missing_key,
    split,
)
from nfnet_eqx.models._network import Network, Remat, Taps, check_image, replaced
from nfnet_eqx.models._plan import BlockPlan, plan_blocks

AnyConv = WSConv2d | Conv2d
AnyAttention = SqueezeExcite | EfficientChannelAttention


class Downsample(eqx.Module):
    """The shortcut where width or resolution changes: average pool, then a 1x1 convolution."""

    conv: AnyConv
    pool_stride: int | None = eqx.field(static=True)

    def __call__(self, x: FeatureMap) -> FeatureMap:
        pooled = x if self.pool_stride is None else avg_pool2d(x, self.pool_stride, padding=self.conv.padding)
        return self.conv(pooled)


class Block(eqx.Module):
    r"""One residual block in pre-activation form.

    .. math:: x \mapsto h(x) + \alpha \cdot g \cdot f(\beta \cdot \mathrm{act}(x))

    `f` is 1x1, 3x3, (3x3,) 1x1 with attention; `g` is `skipinit_gain` or, without it, 1 (the last convolution's gain
    then starts at 0); the shortcut `h` is the identity, or a convolution of the activated input.

    References:
        2102.06171, sections 3 and 4, figure 6.
    """

    conv1: AnyConv
    conv2: AnyConv
    conv2b: AnyConv | None
    conv3: AnyConv
    downsample: Downsample | None
    attn: AnyAttention | None
    attn_last: AnyAttention | None
    skipinit_gain: Float[Array, ""] | None
    stochastic_depth: StochasticDepth
    act: Activation
    alpha: float = eqx.field(static=True)
    beta: float = eqx.field(static=True)
    attention_gain: float = eqx.field(static=True)

    def __call__(self, x: FeatureMap, *, key: PRNGKeyArray | None = None, inference: bool | None = None) -> FeatureMap:
        out = self.act(x) * jnp.asarray(self.beta, x.dtype)
        shortcut = x if self.downsample is None else self.downsample(out)
        out = self.conv1(out)
        out = self.conv2(self.act(out))
        if self.conv2b is not None:
            out = self.conv2b(self.act(out))
        if self.attn is not None:
            out = self.attn(out) * jnp.asarray(self.attention_gain, x.dtype)
        out = self.conv3(self.act(out))
        if self.attn_last is not None:
            out = self.attn_last(out) * jnp.asarray(self.attention_gain, x.dtype)
        out = self.stochastic_depth(out, key=key, inference=inference)
        if self.skipinit_gain is not None:
            out = out * self.skipinit_gain.astype(x.dtype)
        return out * jnp.asarray(self.alpha, x.dtype) + shortcut


class Head(eqx.Module):
    """Global average pool, dropout, classifier; without a classifier, the pooled features."""

    fc: eqx.nn.Linear | None
    dropout: eqx.nn.Dropout

    @staticmethod
    def init(config: NFNetConfig, *, key: InitKey) -> "Head":
        """A head whose classifier starts from N(0, 0.01^2), or from 0, without bias."""
        fc = None
        if config.num_classes:
            std = 0.0 if config.zero_init_head else 0.01
            weight = draw(jr.normal, key, (config.num_classes, config.feature_width)) * std
            fc = eqx.nn.Linear(config.feature_width, config.num_classes, key=jr.key(0))  # numbers that are replaced
            fc = eqx.tree_at(lambda m: (m.weight, m.bias), fc, (weight, jnp.zeros(config.num_classes, jnp.float32)))
        return Head(fc=fc, dropout=eqx.nn.Dropout(config.drop_rate))

    def __call__(
        self, x: FeatureMap, *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, " out"]:
        pooled = jnp.mean(x, axis=(0, 1))
        if self.fc is None:
            return pooled
        if key is None and self.dropout.p > 0 and not (self.dropout.inference if inference is None else inference):
            raise InputError(missing_key("dropout", float(self.dropout.p)))
        pooled = self.dropout(pooled, key=key, inference=inference)
        assert self.fc.bias is not None  # `init` makes one
        return self.fc.weight.astype(x.dtype) @ pooled + self.fc.bias.astype(x.dtype)


class NFNet(Network):
    """A normalizer-free network: a pure function of one picture.

    Attribute paths are timm's tensor names: `model.stages[0][1].conv2b.weight` is `stages.0.1.conv2b.weight`.

    Example:
        >>> import jax, nfnet_eqx as nfx
        >>> model = nfx.NFNet(nfx.get_config("test_nfnet"), key=jax.random.key(0))
        >>> jax.vmap(model)(jax.numpy.zeros((2, 3, 64, 64))).shape
        (2, 1000)

    References:
        2102.06171, section 4 and appendix C.
    """

    stem: dict[str, AnyConv]
    stages: tuple[tuple[Block, ...], ...]
    final_conv: AnyConv | None
    head: Head
    stem_act: Activation
    final_act: Activation
    config: NFNetConfig = eqx.field(static=True)

    def __init__(self, config: NFNetConfig, *, key: InitKey):
        """A network with fresh parameters, in float32.

        This is the one class with a constructor of its own; `replaced` copies it with other parts.

        Args:
            config: the architecture.
            key: randomness of the initial weights.

        Raises:
            InputError: the config describes no network (see `plan_blocks`), or the key is missing.
        """
        if key is None:
            raise InputError(
                "key (=None) is needed: it draws the initial weights. Give a jax.random.key(0), or take "
                "nfnet_eqx.models.skeleton(config) for the shapes alone"
            )
        plans = plan_blocks(config)
        stem_key, final_key, head_key, *stage_keys = split(key, 3 + len(plans))
        self.config = config
        self.stem = _init_stem(config, stem_key)
        self.stages = tuple(
            tuple(_init_block(config, plan, k) for plan, k in zip(stage, split(stage_key, len(stage)), strict=True))
            for stage, stage_key in zip(plans, stage_keys, strict=True)
        )
        self.final_conv = (
            None
            if config.num_features is None
            else WSConv2d.init(config, config.widths[-1], config.num_features, 1, key=final_key)
        )
        self.head = Head.init(config, key=head_key)
        self.stem_act = self.final_act = _activation(config)

    def features_and_logits(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Taps, Float[Array, " classes"]]:
        """What `features` and calling the network give, from one forward pass."""
        check_image(x, self.config)
        out = jnp.transpose(jnp.asarray(x), (1, 2, 0))

        taps: list[FeatureMap] = []
        convs = list(self.stem.values())
        for i, conv in enumerate(convs):
            out = conv(out if i == 0 else self.stem_act(out))
            if i == max(len(convs) - 2, 0):
                taps.append(out)
        if self.config.stem_pool:
            out = max_pool2d(out)

        index = 1
        for stage in self.stages:
            for block in stage:
                out = block(out, key=_child(key, index), inference=inference)
                index += 1
            taps.append(out)

        if self.final_conv is not None:
            out = taps[-1] = self.final_conv(out)
        logits = self.head(self.final_act(out), key=_child(key, 0), inference=inference)
        return tuple(jnp.transpose(tap, (2, 0, 1)) for tap in taps), logits

    def with_classifier(self, num_classes: int, *, key: PRNGKeyArray) -> "NFNet":
        """The network with a fresh classifier; see `replace_head`."""
        config = dataclasses.replace(self.config, num_classes=num_classes)
        # The dropout stays as it is: its rate and its inference flag may have been set since.
        return replaced(
            self, config=config, head=dataclasses.replace(Head.init(config, key=key), dropout=self.head.dropout)
        )

    def with_remat(self) -> "NFNet":
        """The network whose blocks' activations are computed again in the backward pass, to save memory."""
        return replaced(self, stages=tuple(tuple(Remat(block) for block in stage) for stage in self.stages))


def _init_stem(config: NFNetConfig, key: InitKey) -> dict[str, AnyConv]:
    widths = (config.in_channels, *config.stem_widths)
    # timm numbers the convolutions of a deep stem only.
    names = ["conv"] if len(config.stem_widths) == 1 else [f"conv{i + 1}" for i in range(len(config.stem_widths))]
    keys = split(key, len(names))
    return {
        name: WSConv2d.init(
            config, widths[i], widths[i + 1], config.stem_kernel, stride=config.stem_strides[i], key=keys[i]
        )
        for i, name in enumerate(names)
    }


def _init_block(config: NFNetConfig, plan: BlockPlan, key: InitKey) -> Block:
    key1, key2, key2b, key3, shortcut_key, attention_key = split(key, 6)
    mid, groups = plan.mid_width, plan.groups
    regnet = config.block == "regnet"
    attention = _init_attention(config, mid if regnet else plan.out_width, attention_key)
    return Block(
        conv1=WSConv2d.init(config, plan.in_width, mid, 1, key=key1),
        conv2=WSConv2d.init(config, mid, mid, 3, stride=plan.stride, dilation=plan.dilation, groups=groups, key=key2),
        conv2b=WSConv2d.init(config, mid, mid, 3, dilation=plan.extra_dilation, groups=groups, key=key2b)
        if config.extra_conv
        else None,
        conv3=WSConv2d.init(config, mid, plan.out_width, 1, gain=1.0 if config.skipinit else 0.0, key=key3),
        downsample=Downsample(
            conv=WSConv2d.init(config, plan.in_width, plan.out_width, 1, key=shortcut_key),
            pool_stride=plan.shortcut_pool,
        )
        if plan.shortcut_conv
        else None,
        attn=attention if regnet else None,
        attn_last=None if regnet else attention,
        skipinit_gain=jnp.zeros((), jnp.float32) if config.skipinit else None,
        stochastic_depth=StochasticDepth(plan.drop_rate, rescale=config.numerics == "timm"),
        act=_activation(config),
        alpha=config.alpha,
        beta=plan.beta,
        attention_gain=config.attention_gain,
    )


def _init_attention(config: NFNetConfig, channels: int, key: InitKey) -> AnyAttention | None:
    if config.attention is None:
        return None
    kind = SqueezeExcite if config.attention == "se" else EfficientChannelAttention
    return kind.init(config, channels, key=key)


def _activation(config: NFNetConfig) -> Activation:
    scale = gamma(config.activation) if config.gamma_in == "activation" else 1.0
    return Activation(name=config.activation, scale=scale, numerics=config.numerics)


def _child(key: PRNGKeyArray | None, index: int) -> PRNGKeyArray | None:
    return None if key is None else jr.fold_in(key, index)
