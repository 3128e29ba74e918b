"""`jax.export` with sizes that are known only when the function is called."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
import pytest

from nfnet_eqx import NFNet, NFNetConfig


def exported(model: NFNet, sizes: str) -> jax.export.Exported:
    shape = jax.export.symbolic_shape(sizes)
    return jax.export.export(jax.jit(lambda x: jax.vmap(model)(x)))(jax.ShapeDtypeStruct(shape, "float32"))


@pytest.mark.parametrize("family_", ["dm_nfnet", "nf_seresnet"])
def test_batch_height_and_width_may_be_free(family_: str, tiny: dict[str, NFNetConfig], trained: Callable):
    """One family pads as TensorFlow, the other symmetrically with a pool in the stem; both have strided shortcuts."""
    model = trained(tiny[family_])
    free = exported(model, "b, 3, h, w")
    for shape in ((2, 3, 64, 48), (1, 3, 51, 33)):  # even sizes and odd ones: other paddings, other window counts
        x = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
        expected = eqx.filter_jit(lambda model, x: jax.vmap(model)(x))(model, x)
        np.testing.assert_allclose(free.call(x), expected, rtol=0, atol=5e-6)


def test_dilated_stages_may_be_free_too(tiny: dict[str, NFNetConfig], trained: Callable):
    stages = {"depths": (1, 1), "widths": (32, 32), "stage_strides": (2, 2)}
    config = dataclasses.replace(tiny["dm_nfnet"], output_stride=8, **stages)
    model = trained(config)
    x = np.random.RandomState(0).standard_normal((1, 3, 41, 32)).astype(np.float32)
    expected = eqx.filter_jit(lambda model, x: jax.vmap(model)(x))(model, x)
    np.testing.assert_allclose(exported(model, "1, 3, h, w").call(x), expected, rtol=0, atol=5e-6)
