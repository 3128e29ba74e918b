"""Sharpness-aware minimization: against a step written by hand, and against optax's own."""

from typing import Any

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jaxtyping import Array, Float, Int

import nfnet_eqx as nfx
from nfnet_eqx import InputError
from nfnet_eqx.optim import nfnet_sgd, sam_ascent


def ascent_of(grads: Any, rho: float) -> Any:
    transform = sam_ascent(rho)
    up, _ = transform.update(grads, transform.init(grads))
    return up


@hypothesis.settings(max_examples=40)
@hypothesis.given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-6, 1e-3, 1.0, 1e4]), rho=st.floats(0.01, 2))
def test_the_perturbation_is_the_whole_gradient_at_length_rho(seed: int, scale: float, rho: float):
    random = np.random.RandomState(seed)
    grads = {"w": random.standard_normal((3, 2, 3, 3)) * scale, "b": random.standard_normal(5), "gain": random.randn()}
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
    up = ascent_of(jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads), rho)
    for name, g in grads.items():
        np.testing.assert_allclose(up[name], rho * g / norm, rtol=1e-5, atol=1e-12, err_msg=name)


def test_a_zero_gradient_is_no_perturbation():
    with jax.debug_nans(True), jax.debug_infs(True):
        up = ascent_of({"a": jnp.zeros((2, 3)), "b": jnp.zeros(())}, 0.05)
    assert all(not leaf.any() for leaf in jax.tree.leaves(up))


def test_the_norm_is_taken_in_float32_and_the_dtype_stays():
    # In bfloat16 a sum of 4096 ones stops at 256; in float16 the squares of 300 overflow.
    up = ascent_of({"a": jnp.ones(4096, jnp.bfloat16)}, 1.0)
    assert up["a"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(up["a"], np.float32), 1 / 64)
    up = ascent_of({"a": jnp.full(4, 300, jnp.float16)}, 1.0)
    np.testing.assert_array_equal(np.asarray(up["a"], np.float32), 0.5)


def test_missing_arrays_stay_missing():
    up = ascent_of({"a": None, "b": jnp.array([3.0, 4.0])}, 0.5)
    assert up["a"] is None
    np.testing.assert_allclose(up["b"], [0.3, 0.4], rtol=1e-6)


def test_a_negative_rho_is_refused():
    with pytest.raises(InputError, match=r"rho must not be negative, got -0\.05"):
        sam_ascent(-0.05)


def test_on_a_quadratic_the_steps_are_those_of_the_paper():
    """The gradient of p.A.p / 2 is A.p, so SAM's is A.(p + rho * A.p / |A.p|)."""
    random = np.random.RandomState(0)
    half = random.standard_normal((6, 6))
    a, p = half @ half.T / 6, random.standard_normal(6)
    matrix, params = jnp.asarray(a, jnp.float32), jnp.asarray(p, jnp.float32)
    optimizer, ascent = optax.sgd(0.1), sam_ascent(0.3)
    state = optimizer.init(params)
    gradient = jax.grad(lambda p: p @ matrix @ p / 2)
    for _ in range(10):
        up, _ = ascent.update(gradient(params), ascent.init(params))
        updates, state = optimizer.update(gradient(optax.apply_updates(params, up)), state)
        params = optax.apply_updates(params, updates)
        g = a @ p
        p = p - 0.1 * a @ (p + 0.3 * g / np.sqrt(g @ g))
        np.testing.assert_allclose(params, p, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def task(model: nfx.NFNet) -> tuple[Any, Any]:
    """The network's arrays, and the loss of ten pictures and its gradient as a function of them."""
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params: Any, x: Float[Array, "10 3 8 8"], y: Int[Array, "10"]) -> Float[Array, ""]:
        logits = jax.vmap(eqx.nn.inference_mode(eqx.combine(params, static)))(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return params, jax.jit(jax.value_and_grad(loss))


X, Y = jnp.asarray(np.random.RandomState(1).standard_normal((10, 3, 8, 8)), jnp.float32), jnp.arange(10) % 3


def test_on_a_network_the_steps_are_optaxs_own(task: tuple[Any, Any]):
    params, loss_and_grads = task
    inner, ascent = nfnet_sgd(0.05), sam_ascent(0.05)
    uphill = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(inner, uphill, sync_period=2, opaque_mode=True, reset_state=False)

    def gradient(params: Any, step: int = 0) -> Any:
        return loss_and_grads(params, X, Y)[1]

    ours, our_state, other, their_state = params, inner.init(params), params, theirs.init(params)
    for step in range(3):
        up, _ = ascent.update(gradient(ours), ascent.init(ours))
        updates, our_state = inner.update(gradient(optax.apply_updates(ours, up)), our_state, ours)
        ours = optax.apply_updates(ours, updates)
        updates, their_state = theirs.update(gradient(other), their_state, other, grad_fn=gradient)
        other = optax.apply_updates(other, updates)
        expected = nfx.named_parameters(other)
        for name, leaf in nfx.named_parameters(ours).items():
            np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=1e-6, err_msg=f"step {step}: {name}")


def test_a_fifth_of_the_batch_may_choose_the_direction(task: tuple[Any, Any]):
    """The paper's cheap form differs from the full one by its direction: the length is rho, and it is uphill."""
    params, loss_and_grads = task
    before, _ = loss_and_grads(params, X, Y)
    # Two of ten pictures, five times each: the mean is theirs, and nothing is compiled anew.
    _, grads = loss_and_grads(params, jnp.tile(X[:2], (5, 1, 1, 1)), jnp.tile(Y[:2], 5))
    up = ascent_of(grads, 0.05)
    assert np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(up))) == pytest.approx(0.05, rel=1e-5)
    after, _ = loss_and_grads(optax.apply_updates(params, up), X, Y)
    assert float(after) > float(before)
