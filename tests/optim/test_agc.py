"""Adaptive gradient clipping against DeepMind's rule, ported to NumPy in float64."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfnet_eqx import InputError
from nfnet_eqx.optim import agc, unit_norm


def deepminds_rule(grad: np.ndarray, param: np.ndarray, clipping: float, eps: float) -> np.ndarray:
    """Norms unit by unit, the slow way; a unit is a row of the first axis, or a whole vector or scalar."""
    grad, param = np.asarray(grad, np.float64), np.asarray(param, np.float64)
    vector = np.squeeze(grad).ndim <= 1
    units = [...] if vector else list(range(len(grad)))
    clipped = grad.copy()
    for unit in units:
        norm = np.sqrt(np.sum(grad[unit] ** 2))
        limit = clipping * max(np.sqrt(np.sum(param[unit] ** 2)), eps)
        if norm > limit:
            clipped[unit] = grad[unit] * limit / max(norm, 1e-6)
    return clipped


SHAPES = [(6, 3, 3, 3), (6, 4, 1, 1), (6, 1, 1, 1), (1, 4, 3, 3), (1, 1, 5), (5, 7), (1, 7), (7,), (1,), ()]


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 1000),
    scales=st.tuples(*[st.sampled_from([0.0, 1e-8, 1e-4, 1e-2, 1.0, 100.0])] * 2),
    clipping=st.sampled_from([0.01, 0.02, 1.0]),
)
def test_it_is_deepminds_rule(shape: tuple[int, ...], seed: int, scales: tuple[float, float], clipping: float):
    random = np.random.RandomState(seed)
    grad, param = (np.asarray(scale * random.standard_normal(shape), np.float32) for scale in scales)
    transform = agc(clipping, eps=1e-3)
    clipped, _ = transform.update(jnp.asarray(grad), transform.init(param), jnp.asarray(param))
    expected = deepminds_rule(grad, param, clipping, 1e-3)
    np.testing.assert_allclose(clipped, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 1, 1), (3, 1, 2)])
def test_norms_broadcast_against_their_array(shape: tuple[int, ...]):
    x = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
    norms = unit_norm(jnp.asarray(x))
    assert norms.shape == (*(shape[:1] if np.squeeze(x).ndim > 1 else (1,) * x.ndim), *(1,) * (x.ndim - 1))[: x.ndim]
    assert float(jnp.sum(norms**2)) == pytest.approx(float(np.sum(x**2)), rel=1e-5)


def ratios(grad: jax.Array, param: jax.Array) -> np.ndarray:
    return np.linalg.norm(np.reshape(grad, (len(grad), -1)), axis=1) / np.linalg.norm(
        np.reshape(param, (len(param), -1)), axis=1
    )


def test_optaxs_own_clipping_is_wrong_on_these_weights_and_ours_is_right():
    """One unit's gradient a hundred times too large: that unit is cut to the limit and no other is touched."""
    random = np.random.RandomState(0)
    param = jnp.asarray(random.standard_normal((32, 32, 3, 3)), jnp.float32)
    grad = np.asarray(param) * 0.009 * random.uniform(0.5, 1, (32, 1, 1, 1)).astype(np.float32)
    grad[7] *= 100
    before = ratios(jnp.asarray(grad), param)

    ours, _ = agc(0.01).update(jnp.asarray(grad), optax.EmptyState(), param)
    after = ratios(ours, param)
    assert after[7] == pytest.approx(0.01, rel=1e-5)
    np.testing.assert_array_equal(np.delete(ours, 7, axis=0), np.delete(grad, 7, axis=0))

    theirs, _ = optax.adaptive_grad_clip(0.01).update(jnp.asarray(grad), optax.EmptyState(), param)
    wrong = ratios(theirs, param)
    assert wrong[7] > 0.02, "optax leaves the large one above the limit"
    assert np.all(np.delete(wrong, 7) < 0.5 * np.delete(before, 7)), "and crushes those that were fine"


def test_optaxs_axis_serves_one_kind_of_parameter_only():
    """What the docstring says of optax from 0.2.6 on."""
    random = np.random.RandomState(0)
    param, grad = (jnp.asarray(random.standard_normal((8, 4, 3, 3)), jnp.float32) for _ in range(2))
    theirs = optax.adaptive_grad_clip(0.01, axis=(1, 2, 3))
    ours, _ = agc(0.01).update(grad, optax.EmptyState(), param)
    np.testing.assert_allclose(theirs.update(grad, optax.EmptyState(), param)[0], ours, rtol=1e-5)
    with pytest.raises(ValueError, match="axis"):
        theirs.update((grad, grad[:, 0, 0, 0]), optax.EmptyState(), (param, param[:, 0, 0, 0]))


def test_zero_gradients_and_zero_parameters_are_safe():
    grads = {"none": jnp.zeros((4, 3, 1, 1)), "some": jnp.ones((4, 3, 1, 1)), "skipinit_gain": jnp.ones(())}
    params = jax.tree.map(jnp.zeros_like, grads)
    clipped, _ = agc(0.01, eps=1e-3).update(grads, optax.EmptyState(), params)
    assert not clipped["none"].any()
    # A parameter at zero may still move: by lambda * eps.
    np.testing.assert_allclose(unit_norm(clipped["some"]), 1e-5, rtol=1e-5)
    assert float(clipped["skipinit_gain"]) == pytest.approx(1e-5)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(clipped))


def test_what_is_within_the_limit_is_returned_to_the_bit():
    param = jnp.asarray(np.random.RandomState(0).standard_normal((8, 4, 3, 3)), jnp.float32)
    grad = param * 0.0099
    clipped, _ = agc(0.01).update(grad, optax.EmptyState(), param)
    np.testing.assert_array_equal(clipped, grad)


def test_missing_arrays_stay_missing():
    """What `equinox.filter` and `equinox.partition` leave out."""
    clipped, _ = agc().update({"a": None, "b": jnp.ones(3)}, optax.EmptyState(), {"a": None, "b": jnp.ones(3)})
    assert clipped["a"] is None


def test_without_parameters_it_says_that_it_needs_them():
    with pytest.raises(InputError, match=r"params \(=None\) is needed"):
        agc().update(jnp.ones(3), optax.EmptyState())
