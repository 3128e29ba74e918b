"""Fresh networks: the numbers that a key means, float32 whatever JAX's default, and parts that can be replaced."""

import dataclasses
import hashlib
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import nfnet_eqx as nfx
from nfnet_eqx.models._layers import StochasticDepth

# sha256 of all names and bytes, by the version before modules had an `init`, on a CPU: a key means these numbers.
DIGESTS = {
    "dm_nfnet": "62009eb6baf24fe2",
    "eca_nfnet": "876455c4f9898449",
}


def digest(model: nfx.NFNet) -> str:
    total = hashlib.sha256()
    for name, array in nfx.named_parameters(model).items():
        total.update(name.encode() + np.asarray(array).tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize("family_", DIGESTS)
def test_a_key_means_the_same_numbers_as_ever(family_: str, tiny: dict[str, nfx.NFNetConfig]):
    assert digest(nfx.NFNet(tiny[family_], key=jax.random.key(5))) == DIGESTS[family_]


def test_without_a_key_there_is_no_network(tiny: dict[str, nfx.NFNetConfig], monkeypatch: pytest.MonkeyPatch):
    """Not one of zeros, as it was."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the types forbid it, too
    with pytest.raises(nfx.InputError, match=r"key \(=None\) is needed.*jax.random.key"):
        nfx.NFNet(tiny["nfnet"], key=None)  # pyright: ignore[reportArgumentType]


def test_parts_can_be_replaced(tiny: dict[str, nfx.NFNetConfig], trained: Callable):
    model = trained(tiny["dm_nfnet"])
    block = model.stages[0][0]
    parts = [block, block.conv1, block.downsample, block.attn_last, block.attn_last.fc1, model.head]
    for part in [*parts, trained(tiny["eca_nfnet"]).stages[0][0].attn_last]:
        assert eqx.tree_equal(dataclasses.replace(part), part)
    wider = dataclasses.replace(block.conv2, bias=block.conv2.bias + 1)
    np.testing.assert_array_equal(wider.bias, block.conv2.bias + 1)
    assert dataclasses.replace(StochasticDepth(0.25, rescale=True), rate=0.5).rate == 0.5


@pytest.mark.parametrize("family_", ["dm_nfnet", "eca_nfnet", "nf_seresnet"])
def test_under_x64_all_parameters_are_float32(family_: str, tiny: dict[str, nfx.NFNetConfig]):
    with jax.enable_x64(True):
        assert jnp.zeros(1).dtype == jnp.float64
        model = eqx.filter_eval_shape(nfx.NFNet, tiny[family_], key=jax.random.key(0))
        model = eqx.filter_eval_shape(lambda model: nfx.replace_head(model, 3, key=jax.random.key(1)), model)
        assert {str(a.dtype) for a in nfx.named_parameters(model).values()} == {"float32"}
        out = eqx.filter_eval_shape(lambda m, x: m(x), model, jax.ShapeDtypeStruct((3, 32, 32), jnp.float32))
    assert (out.shape, out.dtype) == ((3,), jnp.float32)


def test_the_bits_survive_in_a_new_head(tiny: dict[str, nfx.NFNetConfig], trained: Callable):
    head = nfx.replace_head(trained(tiny["nfnet"]), 7, key=jax.random.key(1)).head
    np.testing.assert_array_equal(head.fc.weight, jax.random.normal(jax.random.key(1), (7, 48)) * 0.01)
    assert not head.fc.bias.any() and head.fc.bias.dtype == jnp.float32
