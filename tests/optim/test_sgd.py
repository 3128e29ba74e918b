"""The papers' optimizer: six steps of DeepMind's own, its groups, its schedule and its average."""

import hashlib
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nfnet_eqx as nfx
from nfnet_eqx.optim import nfnet_sgd, update_ema, warmup_cosine

DATA = Path(__file__).parents[1] / "data" / "deepmind"
PROVENANCE = json.loads((DATA / "provenance.json").read_text())

# DeepMind's modules and arrays, where they stand in ours, and the way from its layout to ours.
LAYOUT = {
    ("NFNet/~/stem_conv0", "w"): ("stem.conv1.weight", lambda w: w.transpose(3, 2, 0, 1)),
    ("NFNet/~/stem_conv0", "gain"): ("stem.conv1.gain", lambda g: g[:, None, None, None]),
    ("NFNet/~/stem_conv0", "bias"): ("stem.conv1.bias", lambda b: b),
    ("NFNet/~/nf_block", "skip_gain"): ("stages.0.0.skipinit_gain", lambda g: g),
    ("NFNet/~/nf_block/~/conv1", "w"): ("stages.0.0.conv2.weight", lambda w: w.transpose(3, 2, 0, 1)),
    ("NFNet/~/nf_block/~/conv1", "gain"): ("stages.0.0.conv2.gain", lambda g: g[:, None, None, None]),
    ("NFNet/~/nf_block/~/conv1", "bias"): ("stages.0.0.conv2.bias", lambda b: b),
    ("NFNet/~/nf_block/~/squeeze_excite/~/linear", "w"): (
        "stages.0.0.attn_last.fc1.weight",
        lambda w: w.T[:, :, None, None],
    ),
    ("NFNet/~/nf_block/~/squeeze_excite/~/linear", "b"): ("stages.0.0.attn_last.fc1.bias", lambda b: b),
    ("NFNet/~/linear", "w"): ("head.fc.weight", lambda w: w.T),
    ("NFNet/~/linear", "b"): ("head.fc.bias", lambda b: b),
}


@pytest.fixture(scope="module")
def reference() -> Any:
    return np.load(DATA / "train_steps.npz")


def tree_of(reference: Any, prefix: str) -> dict[str, Any]:
    """The arrays under `prefix`, as a nested dictionary with our names and layout."""
    tree: dict[str, Any] = {}
    for (module, name), (path, to_ours) in LAYOUT.items():
        *folders, leaf = path.split(".")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[leaf] = jnp.asarray(to_ours(reference[f"{prefix}|{module}|{name}"]))
    return tree


def assert_close(tree: Any, expected: Any, what: str) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # The same paths in the same order, however the two dictionaries were built.
    others = dict(jax.tree_util.tree_leaves_with_path(expected))
    assert len(others) == len(leaves)
    for path, leaf in leaves:
        # The classifier grows to 50, where one rounding is 4e-6: 1e-6 is meant on the scale of the array.
        tolerance = 1e-6 * max(1.0, float(jnp.abs(others[path]).max()))
        np.testing.assert_allclose(leaf, others[path], rtol=0, atol=tolerance, err_msg=what + str(path))


def test_the_reference_file_is_the_one_described():
    content = (DATA / "train_steps.npz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == PROVENANCE["files"]["train_steps.npz"]["sha256"]


def test_every_array_of_the_reference_is_compared(reference: Any):
    names = {tuple(key.split("|")[1:]) for key in reference.files if key.startswith("p0|")}
    assert names == set(LAYOUT)


def test_six_steps_are_deepminds(reference: Any):
    at = jnp.asarray(reference["itr"])
    schedule = warmup_cosine(1.6, 250, 2000)
    optimizer = nfnet_sgd(lambda count: schedule(at[count]))
    params = tree_of(reference, "p0")
    ema, state = params, optimizer.init(params)

    @jax.jit
    def step(params, ema, state, grads, t):
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return params, update_ema(ema, params, t), state

    for t in range(1, len(at) + 1):
        params, ema, state = step(params, ema, state, tree_of(reference, f"g{t}"), at[t - 1])
        assert_close(params, tree_of(reference, f"p{t}"), f"step {t}: ")
        assert_close(ema, tree_of(reference, f"ema{t}"), f"average after step {t}: ")


def test_the_schedule_is_deepminds(reference: Any):
    schedule = warmup_cosine(1.6, 250, 2000)
    ours = [float(schedule(step)) for step in reference["lr_at"]]
    np.testing.assert_allclose(ours, reference["lr"], rtol=0, atol=1e-6)
    assert ours[0] == 0 and max(ours) == pytest.approx(1.6) and ours[-1] == pytest.approx(0, abs=1e-6)


def updates_of(model: nfx.NFNet, grad: float, **options: float) -> dict[str, jax.Array]:
    """The first update where every gradient is `grad`, by name, at learning rate 1 and without momentum."""
    optimizer = nfnet_sgd(1.0, momentum=0.0, **options)
    params = eqx.filter(model, eqx.is_inexact_array)
    grads = jax.tree.map(lambda p: jnp.full_like(p, grad), params)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    return nfx.named_parameters(updates)


def test_the_classifiers_weight_alone_is_not_clipped(model: nfx.NFNet):
    updates = updates_of(model, 1.0, weight_decay=0.0)
    assert list(updates) == list(nfx.named_parameters(model))
    assert [name for name, update in updates.items() if bool(jnp.all(update == -1))] == ["head.fc.weight"]


def test_weights_are_decayed_and_gains_and_biases_are_not(model: nfx.NFNet):
    updates, params = updates_of(model, 0.0, weight_decay=0.1), nfx.named_parameters(model)
    for name, update in updates.items():
        expected = -0.1 * params[name] if name.endswith("weight") else jnp.zeros_like(update)
        np.testing.assert_allclose(update, expected, rtol=1e-6, atol=0, err_msg=name)
    decayed = {name.rsplit(".", 1)[-1] for name, update in updates.items() if update.any()}
    assert decayed == {"weight"}


def test_decay_is_added_to_the_clipped_gradient(model: nfx.NFNet):
    updates, params = updates_of(model, 1e3, weight_decay=0.5), nfx.named_parameters(model)
    name = "stages.0.0.conv2.weight"
    clipped = -(updates[name] + 0.5 * params[name])
    norms = jnp.sqrt(jnp.sum(jnp.square(clipped), axis=(1, 2, 3)) / jnp.sum(jnp.square(params[name]), axis=(1, 2, 3)))
    np.testing.assert_allclose(norms, 0.01, rtol=1e-4)


def test_momentum_is_nesterovs(model: nfx.NFNet):
    params = {"head": {"fc": {"weight": jnp.zeros((2, 2))}}}
    optimizer = nfnet_sgd(0.5, momentum=0.9, weight_decay=0.0)
    state, grads, steps = optimizer.init(params), jax.tree.map(jnp.ones_like, params), []
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
        steps.append(float(updates["head"]["fc"]["weight"][0, 0]))
    # buffer 1, then 1.9; a step is lr * (gradient + 0.9 * buffer).
    assert steps == pytest.approx([-0.5 * (1 + 0.9), -0.5 * (1 + 0.9 * 1.9)])


@pytest.mark.parametrize(("step", "decay", "expected"), [(0, 0.99999, 0.1), (90, 0.99999, 0.91), (10**6, 0.99, 0.99)])
def test_the_average_forgets_quickly_at_first(step: int, decay: float, expected: float):
    ema, params = {"a": jnp.ones(3), "b": None}, {"a": jnp.zeros(3), "b": None}
    np.testing.assert_allclose(update_ema(ema, params, jnp.asarray(step), decay)["a"], expected, rtol=1e-5)


def test_the_average_keeps_the_parameters_dtype():
    params = jnp.ones(3, jnp.bfloat16)
    assert update_ema(params, params, jnp.asarray(5)).dtype == jnp.bfloat16
