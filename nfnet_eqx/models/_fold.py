"""Exact folding of what only training needs: afterwards a network is plain convolutions."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

from nfnet_eqx.models._layers import Conv2d
from nfnet_eqx.models._network import replaced
from nfnet_eqx.models._nfnet import AnyConv, Block, NFNet


def fold_nfnet(model: NFNet) -> NFNet:
    """An NFNet with weight standardization, gains and gamma folded into plain convolutions, for inference.

    Nothing is approximated: a convolution is linear in its weight, and the factors gamma and beta on its input move
    into it. The result has fewer parameters (no `gain`), is no longer meant to be trained, and cannot be saved as a
    checkpoint.

    References:
        2102.06171, section 2 (the factors); the folding is ours.
    """
    scale = model.stem_act.scale
    stem = {
        name: _fold_conv(conv, 1.0 if index == 0 else scale) for index, (name, conv) in enumerate(model.stem.items())
    }
    return replaced(
        model,
        stem=stem,
        stem_act=dataclasses.replace(model.stem_act, scale=1.0),
        stages=tuple(tuple(_fold_block(block) for block in stage) for stage in model.stages),
        # The last activation keeps its factor: the pooled features need it whether or not a classifier follows.
        final_conv=None if model.final_conv is None else _fold_conv(model.final_conv, 1.0),
    )


def _fold_block(block: Block) -> Block:
    gamma, beta = block.act.scale, block.beta
    shortcut = block.downsample
    return dataclasses.replace(
        block,
        conv1=_fold_conv(block.conv1, gamma * beta),
        conv2=_fold_conv(block.conv2, gamma),
        conv2b=None if block.conv2b is None else _fold_conv(block.conv2b, gamma),
        conv3=_fold_conv(block.conv3, gamma),
        downsample=None
        if shortcut is None
        else dataclasses.replace(shortcut, conv=_fold_conv(shortcut.conv, gamma * beta)),
        act=dataclasses.replace(block.act, scale=1.0),
        beta=1.0,
    )


def _fold_conv(conv: AnyConv, scale: float) -> Conv2d:
    """`x -> conv(scale * x)` as a plain convolution."""
    if isinstance(conv, Conv2d):
        return eqx.tree_at(lambda c: c.weight, conv, conv.weight * jnp.asarray(scale, conv.weight.dtype))
    return Conv2d(
        weight=(conv.standardized() * scale).astype(conv.weight.dtype),
        bias=conv.bias,
        stride=conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
        padding=conv.padding,
    )
