"""The network that the optimizers are tried on."""

import jax.numpy as jnp
import numpy as np
import pytest

import nfnet_eqx as nfx
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.models._names import with_parameters


@pytest.fixture(scope="package")
def model() -> nfx.NFNet:
    """Two blocks with every kind of parameter, all of them random: a skip gain of 0 would hide its branch."""
    fields = nfx.get_config("dm_nfnet_f0").to_dict() | {
        "depths": [1, 1], "widths": [16, 16], "stage_strides": [1, 1], "stem_widths": [8], "stem_strides": [2],
        "group_size": 8, "num_features": 16, "num_classes": 3, "drop_rate": 0.0, "stochastic_depth": 0.0,
    }  # fmt: skip
    empty, random = skeleton(nfx.NFNetConfig.from_dict(fields)), np.random.RandomState(0)
    parameters = {name: random.standard_normal(a.shape) for name, a in nfx.named_parameters(empty).items()}
    return with_parameters(empty, {name: jnp.asarray(z, jnp.float32) for name, z in parameters.items()})
