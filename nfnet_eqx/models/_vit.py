"""The vision transformer that the claim is measured against: patches, equal blocks, a head."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from nfnet_eqx._errors import InputError
from nfnet_eqx.models._layers import InitKey, cut_normal, draw, missing_key, split
from nfnet_eqx.models._network import Network, Remat, Taps, check_image, replaced
from nfnet_eqx.models._positions import resample_positions, sincos_positions
from nfnet_eqx.models._vit_config import ViTConfig
from nfnet_eqx.models._vit_layers import AttentionPool, Block, LayerNorm, Linear, Tokens


class PatchProjection(eqx.Module):
    """A convolution whose stride is its kernel: one matrix product over the patches."""

    weight: Float[Array, "width channels patch patch"]
    bias: Float[Array, " width"]

    def __call__(self, x: Float[Array, "channels height width_"]) -> Tokens:
        channels, height, width = x.shape
        side = self.weight.shape[-1]
        patches = x.reshape(channels, height // side, side, width // side, side).transpose(1, 3, 0, 2, 4)
        rows = patches.reshape((height // side) * (width // side), channels * side * side)
        return Linear(self.weight.reshape(self.weight.shape[0], -1), self.bias)(rows)


class PatchEmbed(eqx.Module):
    """Pixels to tokens, row by row."""

    proj: PatchProjection

    @staticmethod
    def init(config: ViTConfig, *, key: InitKey) -> "PatchEmbed":
        """A projection that starts from a normal of variance 1 / fan-in, cut at two standard deviations."""
        shape = (config.width, config.in_channels, config.patch_size, config.patch_size)
        # The constant gives the cut distribution unit variance.
        std = (config.in_channels * config.patch_size**2) ** -0.5 / 0.87962566103423978
        weight = draw(cut_normal, key, shape) * std
        return PatchEmbed(proj=PatchProjection(weight=weight, bias=jnp.zeros(config.width, jnp.float32)))


class ViT(Network):
    """A vision transformer: a pure function of one image.

    Attribute paths are timm's tensor names: `model.blocks[0].attn.qkv.weight` is `blocks.0.attn.qkv.weight`.

    Fresh parameters are those of the papers' code (big_vision): matrices from Glorot's uniform distribution (queries,
    keys and values each by its own shape), biases 0 (in MLPs N(0, 1e-6^2)), the patches' projection from a cut normal
    of variance 1 / fan-in, learned positions N(0, 1 / width), class token and registers N(0, 1e-6^2), and the
    classifier 0: a fresh network gives equal probabilities.

    Example:
        >>> import jax, nfnet_eqx as nfx
        >>> model = nfx.ViT(nfx.get_config("vit_micro_patch4_32"), key=jax.random.key(0))
        >>> jax.vmap(model)(jax.numpy.zeros((2, 3, 32, 32))).shape
        (2, 1000)

    References:
        2010.11929, section 3.1; 2106.04560, section 3.3 (attention pooling).
    """

    cls_token: Float[Array, "1 1 width"] | None
    reg_token: Float[Array, "1 registers width"] | None
    pos_embed: Float[Array, "1 positions width"] | None
    patch_embed: PatchEmbed
    blocks: tuple[Block, ...]
    norm: LayerNorm | None
    attn_pool: AttentionPool | None
    fc_norm: LayerNorm | None
    head_drop: eqx.nn.Dropout
    head: Linear | None
    config: ViTConfig = eqx.field(static=True)

    def __init__(self, config: ViTConfig, *, key: InitKey):
        """A network with fresh parameters, in float32; `replaced` copies it with other parts.

        Args:
            config: the architecture.
            key: randomness of the initial weights.

        Raises:
            InputError: the key is missing.
        """
        if key is None:
            raise InputError(
                "key (=None) is needed: it draws the initial weights. Give a jax.random.key(0), or take "
                "nfnet_eqx.models.skeleton(config) for the shapes alone"
            )
        token_key, register_key, position_key, patch_key, pool_key, *block_keys = split(key, 5 + config.depth)

        def normal(key: InitKey, count: int, std: float) -> Float[Array, "1 count width"] | None:
            return draw(jr.normal, key, (1, count, config.width)) * std if count else None

        self.config = config
        self.cls_token = normal(token_key, int(config.class_token), 1e-6)
        self.reg_token = normal(register_key, config.registers, 1e-6)
        self.pos_embed = normal(position_key, config.stored_positions, config.width**-0.5)
        self.patch_embed = PatchEmbed.init(config, key=patch_key)
        # Rates that rise from 0 to the last block's.
        rates = [config.stochastic_depth * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = tuple(Block.init(config, rate, key=k) for rate, k in zip(rates, block_keys, strict=True))
        self.norm = None if config.pool == "mean" else LayerNorm.init(config)
        self.attn_pool = AttentionPool.init(config, key=pool_key) if config.pool == "map" else None
        self.fc_norm = LayerNorm.init(config) if config.pool == "mean" else None
        self.head_drop = eqx.nn.Dropout(config.drop_rate)
        self.head = _classifier(config)

    def features_and_logits(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Taps, Float[Array, " classes"]]:
        """What `features` and calling the network give, from one forward pass."""
        check_image(x, self.config)
        _, height, width = x.shape
        if not (isinstance(height, int) and isinstance(width, int)):
            raise InputError(
                f"x must have a known height and width, got {x.shape}: a ViT's positions follow from them. Export one "
                "function for each image size; the batch may be a symbol"
            )
        grid = (height // self.config.patch_size, width // self.config.patch_size)
        tokens = self._with_positions(self.patch_embed.proj(jnp.asarray(x)), grid)
        taps = []
        for index, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, key=_child(key, index), inference=inference)
            taps.append(tokens[self.config.prefix_tokens :].T.reshape(self.config.width, *grid))
        return tuple(taps), self._logits(self._pooled(tokens), key=_child(key, 0), inference=inference)

    def with_classifier(self, num_classes: int, *, key: PRNGKeyArray) -> "ViT":
        """The network with a fresh classifier, which starts at 0 whatever the key; see `replace_head`."""
        config = dataclasses.replace(self.config, num_classes=num_classes)
        return replaced(self, config=config, head=_classifier(config))

    def with_remat(self) -> "ViT":
        """The network whose blocks' activations are computed again in the backward pass, to save memory."""
        return replaced(self, blocks=tuple(Remat(block) for block in self.blocks))

    def at_image_size(self, side: int) -> "ViT":
        """The same function of images of another size, with learned positions that are stored for it.

        Raises:
            InputError: `side` is no multiple of the patches' side.
        """
        config = self.config.at_image_size(side)
        if self.pos_embed is None:
            return replaced(self, config=config)
        positions = self._positions((config.grid_size, config.grid_size), self.pos_embed[0])
        return replaced(self, config=config, pos_embed=positions[None])

    def _positions(
        self, grid: tuple[int, int], stored: Float[Array, "stored width"]
    ) -> Float[Array, "positions width"]:
        prefix = self.config.stored_positions - self.config.grid_size**2
        return resample_positions(stored, prefix, self.config.grid_size, grid)

    def _with_positions(self, patches: Float[Array, "patches width"], grid: tuple[int, int]) -> Tokens:
        """The patches with their positions, behind class token and registers."""
        width, dtype = self.config.width, patches.dtype
        if self.pos_embed is None:
            positions = jnp.asarray(sincos_positions(grid, width))
        else:
            positions = self._positions(grid, self.pos_embed[0])
        positions = positions.astype(dtype)
        prefix = [token[0].astype(dtype) for token in (self.cls_token, self.reg_token) if token is not None]
        if self.config.prefix_positions:
            return jnp.concatenate([*prefix, patches]) + positions
        return jnp.concatenate([*prefix, patches + positions])

    def _pooled(self, tokens: Tokens) -> Float[Array, " width"]:
        """What the classifier sees."""
        if self.norm is not None:
            tokens = self.norm(tokens)
        patches = tokens[self.config.prefix_tokens :]
        if self.attn_pool is not None:
            return self.attn_pool(patches)
        if self.fc_norm is not None:
            return self.fc_norm(jnp.mean(patches, axis=0))
        return tokens[0]

    def _logits(
        self, pooled: Float[Array, " width"], *, key: PRNGKeyArray | None, inference: bool | None
    ) -> Float[Array, " classes"]:
        if self.head is None:
            return pooled
        drop = self.head_drop
        if key is None and drop.p > 0 and not (drop.inference if inference is None else inference):
            raise InputError(missing_key("dropout", float(drop.p)))
        return self.head(drop(pooled, key=key, inference=inference))


def _classifier(config: ViTConfig) -> Linear | None:
    return Linear.zeros(config.width, config.num_classes) if config.num_classes else None


def _child(key: PRNGKeyArray | None, index: int) -> PRNGKeyArray | None:
    return None if key is None else jr.fold_in(key, index)
