"""Folding: the same function, nothing left but plain convolutions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from nfnet_eqx.models._families import fold
from nfnet_eqx.models._layers import Conv2d, WSConv2d
from nfnet_eqx.models._names import named_parameters
from nfnet_eqx.models._nfnet import NFNet

TOLERANCE = 2e-5


def test_a_folded_network_computes_the_same(family, tiny, trained):
    model = trained(tiny[family])
    images = jax.random.normal(jax.random.key(1), (2, 3, 48, 40))
    folded = fold(model)
    for what, run in (("logits", NFNet.__call__), ("features", NFNet.features)):
        before = eqx.filter_jit(jax.vmap(run, (None, 0)))(model, images)
        after = eqx.filter_jit(jax.vmap(run, (None, 0)))(folded, images)
        for index, (a, b) in enumerate(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)):
            scale = max(1.0, float(jnp.abs(a).max()))
            np.testing.assert_allclose(b / scale, a / scale, rtol=0, atol=TOLERANCE, err_msg=f"{what} {index}")


def test_a_folded_network_has_plain_convolutions_without_factors(family, tiny, trained):
    folded = fold(trained(tiny[family]))
    is_conv = lambda node: isinstance(node, Conv2d | WSConv2d)  # noqa: E731
    convs = [node for node in jax.tree.leaves(folded, is_leaf=is_conv) if is_conv(node)]
    assert convs and all(isinstance(conv, Conv2d) for conv in convs)
    assert not [name for name in named_parameters(folded) if name.endswith(".gain")]
    assert all(block.act.scale == 1 and block.beta == 1 for stage in folded.stages for block in stage)


def test_folding_twice_changes_nothing(tiny, trained):
    once = fold(trained(tiny["dm_nfnet"]))
    twice = named_parameters(fold(once))
    for name, array in named_parameters(once).items():
        np.testing.assert_array_equal(twice[name], array, err_msg=name)
