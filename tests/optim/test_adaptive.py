"""AdamW and Adafactor: steps of a float64 port, their groups, their state, and what they have in common with SGD."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import nfnet_eqx as nfx
from nfnet_eqx.models import is_parameter, skeleton
from nfnet_eqx.optim import adafactor, adamw, nfnet_sgd

BOTH = pytest.mark.parametrize("optimizer", [adamw, adafactor])
ALL = pytest.mark.parametrize("optimizer", [adamw, adafactor, nfnet_sgd])
SHAPES = {"conv": (40, 36, 3, 3), "linear": (33, 64), "narrow": (8, 64), "bias": (40,), "scale": ()}


def gradients(seed: int) -> dict[str, np.ndarray]:
    """Some to clip at norm 1 (all but the last step's) and some so small that float32 squares would be 0."""
    random, size = np.random.default_rng(seed), 1e-4 if seed == 4 else 0.1
    return {
        name: size * random.standard_normal(shape) * 10.0 ** random.integers(-3, 1) for name, shape in SHAPES.items()
    }


def clipped(grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    return {name: g / max(norm, 1) for name, g in grads.items()}


def adam_port(beta2: float) -> Callable[[str, np.ndarray, int], np.ndarray]:
    m, v = {name: np.zeros(s) for name, s in SHAPES.items()}, {name: np.zeros(s) for name, s in SHAPES.items()}

    def step(name: str, g: np.ndarray, t: int) -> np.ndarray:
        m[name] = 0.9 * m[name] + 0.1 * g
        v[name] = beta2 * v[name] + (1 - beta2) * g**2
        return m[name] / (1 - 0.9**t) / (np.sqrt(v[name] / (1 - beta2**t)) + 1e-8)

    return step


def adafactor_port(beta2: float) -> Callable[[str, np.ndarray, int], np.ndarray]:
    # The averages of rows and columns where two axes have 32 entries or more: of the two longest ones.
    axes = {"conv": (0, 1), "linear": (1, 0)}
    rows, columns, m = {name: 0.0 for name in SHAPES}, {name: 0.0 for name in SHAPES}, {}

    def step(name: str, g: np.ndarray, t: int) -> np.ndarray:
        decay = min(1 - t**-0.8, beta2)
        square = g**2 + 1e-30
        if name in axes:
            long, short = axes[name]
            rows[name] = decay * rows[name] + (1 - decay) * square.mean(long, keepdims=True)
            columns[name] = decay * columns[name] + (1 - decay) * square.mean(short, keepdims=True)
            second = rows[name] * columns[name] / rows[name].mean(short, keepdims=True)
        else:
            second = rows[name] = decay * rows[name] + (1 - decay) * square
        update = 0.9 * m.get(name, np.zeros_like(g)).astype(np.float64) + 0.1 * g / np.sqrt(second)
        m[name] = update.astype(np.float32).astype(ml_dtypes.bfloat16)
        return update

    return step


@pytest.mark.parametrize("beta2", [0.999, 0.3])  # 0.3: Adafactor's limit is reached in its second step
@pytest.mark.parametrize(("optimizer", "port"), [(adamw, adam_port), (adafactor, adafactor_port)])
def test_four_steps_are_those_of_a_port_in_float64(optimizer, port, beta2: float):
    rule, transform = port(beta2), optimizer(0.01, beta2=beta2, head_weight_decay=None)
    params = {name: jnp.ones(shape, jnp.float32) for name, shape in SHAPES.items()}
    state = transform.init(params)
    update = jax.jit(transform.update)
    for t in range(1, 5):
        grads = gradients(t)
        updates, state = update(jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads), state, params)
        for name, g in clipped(grads).items():
            expected = -0.01 * rule(name, g, t)
            # Where float32 is at a middle of two bfloat16, the port may keep the other one of them.
            strays = np.abs(updates[name] - expected) > 2e-5 * np.abs(expected) + 1e-8
            assert np.mean(strays) <= (0 if optimizer is adamw else 1e-3), f"{name}, step {t}"


def vit_parameters() -> Any:
    """Every kind of parameter that a ViT has, 2 everywhere."""
    config = nfx.ViTConfig(
        image_size=16, patch_size=8, width=8, depth=1, heads=2, mlp_width=8, num_classes=3, pool="map",
        class_token=True, registers=1, prefix_positions=True,
    )  # fmt: skip
    params, _ = eqx.partition(skeleton(config), is_parameter)
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 2.0), params)


def decay_of(transform: optax.GradientTransformation, params: Any) -> dict[str, float]:
    """By name, which part of a parameter a step takes off where the gradient is 0; those left alone are left out."""
    zero = jax.tree.map(jnp.zeros_like, params)
    updates = jax.jit(lambda params: transform.update(zero, transform.init(params), params)[0])(params)
    leaves = zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True)
    parts = {
        jax.tree_util.keystr(path, simple=True, separator="."): float(np.asarray(u / p).mean(dtype=np.float64))
        for (path, u), p in leaves
    }
    return {name: -part for name, part in parts.items() if part}


@ALL
def test_weights_alone_are_decayed_and_the_classifiers_by_its_own_coefficient(optimizer):
    parts = ("patch_embed.proj", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "pool.q", "pool.kv", "pool.proj")
    body = [n for n in nfx.named_parameters(vit_parameters()) if n.endswith(tuple(f"{part}.weight" for part in parts))]
    assert len(body) == 10
    options = {"momentum": 0.0, "weight_decay": 0.03}
    alike = decay_of(optimizer(0.5, **options, head_weight_decay=None), vit_parameters())
    assert alike == pytest.approx(dict.fromkeys([*body, "head.weight"], 0.5 * 0.03))
    apart = decay_of(optimizer(0.5, **options, head_weight_decay=3.0), vit_parameters())
    assert apart == pytest.approx(dict.fromkeys(body, 0.5 * 0.03) | {"head.weight": 0.5 * 3.0})
    none = decay_of(optimizer(0.5, **options, head_weight_decay=0.0), vit_parameters())
    assert none == pytest.approx(dict.fromkeys(body, 0.5 * 0.03))


@ALL
def test_an_nfnets_weights_are_decayed_and_its_gains_and_biases_are_not(optimizer, model: nfx.NFNet):
    transform = optimizer(1.0, momentum=0.0, weight_decay=0.1, head_weight_decay=None)
    decayed = decay_of(transform, eqx.filter(model, eqx.is_inexact_array))
    assert list(decayed) == [name for name in nfx.named_parameters(model) if name.endswith(".weight")]


@BOTH
def test_decay_follows_the_schedule_and_not_the_gradient(optimizer):
    transform = optimizer(lambda count: jnp.where(count < 1, 0.5, 0.25), weight_decay=0.1, head_weight_decay=None)
    params = vit_parameters()
    state, zero, update = transform.init(params), jax.tree.map(jnp.zeros_like, params), jax.jit(transform.update)
    for rate in (0.5, 0.25):
        updates, state = update(zero, state, params)
        np.testing.assert_allclose(updates.head.weight, -2 * 0.1 * rate, rtol=1e-6)


@ALL
def test_the_norm_of_all_gradients_together_is_limited(optimizer):
    # Momentum sees the clipped gradients: a first one that is a hundred times too large does not rule the next step.
    transform = optimizer(1.0, weight_decay=0.0, head_weight_decay=None, clipping=None, clip_norm=1.0)
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    grads = jax.tree.map(jnp.ones_like, params)
    huge = jax.tree.map(lambda g: 1e3 * g, grads)
    once, _ = transform.update(grads, transform.init(params), params)
    clipped_once, _ = transform.update(huge, transform.init(params), params)
    np.testing.assert_allclose(jax.tree.leaves(clipped_once)[0], jax.tree.leaves(once)[0], rtol=1e-5)


@ALL
def test_agc_may_come_first_and_leaves_the_classifiers_weight_alone(optimizer, model: nfx.NFNet):
    params = eqx.filter(model, eqx.is_inexact_array)
    grads = jax.tree.map(jnp.ones_like, params)

    def second_step(clipping: float | None) -> dict[str, jax.Array]:
        # The first gradient is small, so that what is clipped shows in an adaptive step too.
        transform = optimizer(1.0, weight_decay=0.0, head_weight_decay=None, clipping=clipping, clip_norm=None)
        state = transform.init(params)
        update = jax.jit(transform.update)
        _, state = update(jax.tree.map(lambda g: 1e-3 * g, grads), state, params)
        return nfx.named_parameters(update(grads, state, params)[0])

    free, limited = second_step(None), second_step(0.01)
    assert [name for name in free if np.array_equal(free[name], limited[name])] == ["head.fc.weight"]


@BOTH
def test_missing_parts_stay_missing_and_layers_have_their_rates(optimizer, model: nfx.NFNet):
    params = eqx.filter(model, nfx.parameter_mask(model, lambda name: not name.startswith("stem.")))
    grads = jax.tree.map(jnp.ones_like, params)

    def step(layer_decay: float) -> dict[str, jax.Array]:
        transform = optimizer(1.0, layer_decay=layer_decay)
        updates, state = jax.jit(transform.update)(grads, transform.init(params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        assert not any("stem" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state))
        return nfx.named_parameters(updates)

    whole, halved = step(1.0), step(0.5)
    for name, factor in {"head.fc.weight": 1, "stages.1.0.conv1.weight": 0.5, "stages.0.0.conv1.weight": 0.25}.items():
        np.testing.assert_allclose(halved[name], factor * whole[name], rtol=1e-6, err_msg=name)


def test_adafactor_needs_a_quarter_of_adamws_state():
    params = {"a": {"weight": jnp.zeros((256, 512))}, "b": {"weight": jnp.zeros((256, 256, 3, 3))}}

    def state_bytes(transform: optax.GradientTransformation) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(transform.init, params)))

    assert state_bytes(adafactor(1.0)) / state_bytes(adamw(1.0)) == pytest.approx(0.25, abs=0.01)
    momentum = [leaf for leaf in jax.tree.leaves(adafactor(1.0).init(params)) if leaf.dtype == jnp.bfloat16]
    assert [leaf.shape for leaf in momentum] == [(256, 512), (256, 256, 3, 3)]
