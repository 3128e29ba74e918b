"""Tiny networks of every family: a name's settings at a width and depth that compile in a second or two."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from nfnet_eqx.models._config import NFNetConfig
from nfnet_eqx.models._families import get_config, skeleton
from nfnet_eqx.models._names import named_parameters, with_parameters
from nfnet_eqx.models._network import Network, NetworkConfig
from nfnet_eqx.models._vit_config import ViTConfig


def _shrunk(name: str, **changes) -> NFNetConfig:
    # One block that changes width and resolution, and one that does not.
    changes = {"depths": (2,), "widths": (32,), "stage_strides": (2,)} | changes
    return dataclasses.replace(get_config(name), num_classes=10, **changes)


_DEEP_STEM = {"stem_widths": (8, 12, 16, 24), "group_size": 8, "num_features": 48}
TINY = {
    "dm_nfnet": _shrunk("dm_nfnet_f0", **_DEEP_STEM),
    "nfnet": _shrunk("nfnet_f0", **_DEEP_STEM),
    "nfnet_l": _shrunk("nfnet_l0", **_DEEP_STEM),
    "eca_nfnet": _shrunk("eca_nfnet_l0", **_DEEP_STEM),
    "nf_regnet": _shrunk("nf_regnet_b0", stem_widths=(16,), num_features=48),
    "nf_resnet": _shrunk("nf_resnet26", stem_widths=(16,)),
    "nf_seresnet": _shrunk("nf_seresnet26", stem_widths=(16,)),
    "nf_ecaresnet": _shrunk("nf_ecaresnet26", stem_widths=(16,)),
    # For small pictures, with an even kernel.
    "small": _shrunk("dm_nfnet_f0", **_DEEP_STEM | {"stem_widths": (16,), "stem_strides": (2,), "stem_kernel": 4}),
}


_VIT = dataclasses.replace(
    get_config("vit_micro_patch4_32"), image_size=16, width=32, depth=2, heads=4, mlp_width=48, num_classes=10
)
_TOKEN = dataclasses.replace(_VIT, pool="token", class_token=True, prefix_positions=True)
TINY_VITS = {
    "map": _VIT,
    "token": _TOKEN,
    "mean": dataclasses.replace(_VIT, pool="mean", registers=2),
    "token, registers": dataclasses.replace(_TOKEN, registers=2, activation="quick_gelu", qkv_bias=False),
    "token without a position": dataclasses.replace(_TOKEN, registers=1, prefix_positions=False),
    "sincos2d": dataclasses.replace(_VIT, positions="sincos2d", class_token=True, activation="gelu_tanh"),
}


@pytest.fixture(params=TINY_VITS)
def vit(request: pytest.FixtureRequest) -> ViTConfig:
    """Runs the test once for each kind of vision transformer."""
    return TINY_VITS[request.param]


@pytest.fixture(scope="session")
def vits() -> dict[str, ViTConfig]:
    """A tiny config of each kind of vision transformer."""
    return TINY_VITS


@pytest.fixture(params=TINY)
def family(request: pytest.FixtureRequest) -> str:
    """Runs the test once for each family."""
    return request.param


@pytest.fixture(scope="session")
def tiny() -> dict[str, NFNetConfig]:
    """A tiny config of each family."""
    return TINY


@pytest.fixture(scope="session")
def trained() -> Callable[..., Network]:
    """A function: config -> a network whose parameters are all away from their start.

    A fresh NFNet's skip gains (or last gains) are 0 and hide every residual branch, a fresh ViT's classifier is 0; the
    biases of both are 0 as well.
    """

    def trained(config: NetworkConfig, seed: int = 0) -> Network:
        empty, random = skeleton(config), np.random.RandomState(seed)

        def value(name: str, shape: tuple[int, ...]) -> jax.Array:
            z = random.standard_normal(shape)
            if name.endswith("skipinit_gain"):
                z = 0.5 + 0.1 * z
            elif name.endswith("gain") or (name.endswith("weight") and "norm" in name):
                z = 1 + 0.1 * z
            elif name.endswith("bias"):
                z = 0.1 * z
            elif name.endswith(("_token", "pos_embed")):
                z = 0.5 * z
            else:
                z = z * math.prod(shape[1:]) ** -0.5
            return jnp.asarray(z, jnp.float32)

        return with_parameters(empty, {name: value(name, a.shape) for name, a in named_parameters(empty).items()})

    return trained


@pytest.fixture
def picture() -> Callable[..., jax.Array]:
    """A function: size -> a picture of noise, `(3, size, size)`."""

    def picture(size: int, width: int | None = None, channels: int = 3, seed: int = 0) -> jax.Array:
        return jr.normal(jr.key(seed), (channels, size, width or size))

    return picture
