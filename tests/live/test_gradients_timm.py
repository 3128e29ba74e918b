"""Gradients of a scalar loss with respect to every parameter, and to the picture, against torch's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nfnet_eqx import Network, named_parameters
from nfnet_eqx.models._names import with_parameters
from tests.live.measured import note
from tests.live.pair import Pair, arrays, pair, picture, small, torch
from tests.live.test_outputs_timm import TINY

LABEL = 3
TOLERANCE = 1e-4
FAMILIES = [
    "dm_nfnet_f0",
    "nfnet_f0",
    "nfnet_l0",
    "eca_nfnet_l0",
    "nf_regnet_b1",
    "nf_resnet26",
    "nf_seresnet26",
    "nf_ecaresnet26",
]

# Every head, with registers and without.
VITS: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {"reg_tokens": 2},
    "vit_small_patch16_224": {"global_pool": "avg", "class_token": False},
    "vit_so400m_patch14_siglip_224": {},
}


def our_gradients(model: Network, x: np.ndarray) -> dict[str, np.ndarray]:
    def loss(parameters: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return -jax.nn.log_softmax(with_parameters(model, parameters)(x))[LABEL]

    by_parameter, by_picture = jax.grad(loss, argnums=(0, 1))(named_parameters(model), jnp.asarray(x))
    return {name: np.asarray(g) for name, g in by_parameter.items()} | {"picture": np.asarray(by_picture)}


def their_gradients(networks: Pair, x: np.ndarray) -> dict[str, np.ndarray]:
    batch = torch.from_numpy(x[None]).requires_grad_()
    loss = torch.nn.functional.cross_entropy(networks.theirs(batch), torch.tensor([LABEL]))
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in networks.theirs.named_parameters()}
    return gradients | {"picture": batch.grad[0].numpy()}


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_of_a_loss_are_torchs(name: str) -> None:
    settings = TINY | ({"group_size": 0, "num_features": 0} if "resnet" in name else {"group_size": 8})
    assert_equal_gradients(pair(name, **settings), picture(33), name)


@pytest.mark.parametrize("name", VITS)
def test_gradients_of_a_vit_are_torchs(name: str) -> None:
    settings = small(name) | VITS[name]
    assert_equal_gradients(pair(name, **settings, num_classes=10), picture(settings["img_size"]), name)


def assert_equal_gradients(networks: Pair, x: np.ndarray, name: str) -> None:
    ours, theirs = our_gradients(networks.ours, x), their_gradients(networks, x)
    assert ours.keys() == theirs.keys() == {*arrays(networks.theirs), "picture"}
    for parameter, expected in theirs.items():
        size = np.linalg.norm(expected)
        assert size > 0, f"{parameter}: nothing reaches it"
        difference = float(np.linalg.norm(ours[parameter] - expected) / size)
        assert note("difference to torch's gradient, relative", difference, f"{name}, {parameter}") <= TOLERANCE, (
            parameter
        )
