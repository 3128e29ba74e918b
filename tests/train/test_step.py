"""One step: the same on any layout, with its share of the work on each device, and what the papers say it is."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from nfnet_eqx import NFNetConfig, get_config
from nfnet_eqx.models._families import skeleton
from nfnet_eqx.models._names import named_parameters, with_parameters
from nfnet_eqx.models._nfnet import NFNet
from nfnet_eqx.optim import nfnet_sgd
from nfnet_eqx.train import TrainConfig
from nfnet_eqx.train._mesh import put_batch
from nfnet_eqx.train._step import Step, TrainState, make_program, mean_loss
from tests.train.tiny import PREPROCESS, TINY


def mesh_of(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def awake(config: NFNetConfig) -> NFNet:
    """The network with random parameters: a fresh one's skip gains are 0 and hide its residual branches."""
    random = np.random.RandomState(0)
    draw = {
        name: 0.1 * random.standard_normal(leaf.shape) + (name.endswith("gain"))
        for name, leaf in named_parameters(skeleton(config)).items()
    }
    return with_parameters(skeleton(config), {name: jnp.asarray(z, jnp.float32) for name, z in draw.items()})


def batch(size: int, side: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (size, side, side, 3), np.uint8), random.integers(0, 4, size, np.int32)


def set_up(config: TrainConfig, mesh: Mesh, network: NFNetConfig = TINY) -> tuple[Step, TrainState]:
    """The step of a run, and its first state."""
    program = make_program(config, network, PREPROCESS, mesh, total_steps=10)
    return program.step, program.start(awake(network))


def after(config: TrainConfig, devices: int, steps: int = 2) -> tuple[TrainState, dict[str, Any]]:
    mesh = mesh_of(devices)
    step, state = set_up(config, mesh)
    metrics = {}
    for i in range(steps):
        state, metrics = step(state, *put_batch(batch(config.batch_size, seed=i), mesh))
    return state, metrics


def assert_same(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    leaves, others = (jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b))
    for (path, leaf), (same_path, other) in zip(leaves, others, strict=True):
        assert path == same_path
        np.testing.assert_allclose(
            np.asarray(leaf), np.asarray(other), rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        )


@pytest.fixture
def config(config: TrainConfig, changed: Callable[..., TrainConfig]) -> TrainConfig:
    # From the first step on at a rate at which parameters move by more than the tolerance.
    return changed(config, warmup=0.0, learning_rate=2.0)


@pytest.mark.parametrize("fsdp", [False, True])
def test_the_number_of_devices_and_the_layout_change_nothing(
    config: TrainConfig, changed, fsdp: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nfnet_eqx.train._mesh._SMALLEST_SHARDED", 16)  # the tiny network's arrays too
    one, metrics = after(config, devices=1)
    eight, others = after(changed(config, fsdp=fsdp), devices=8)
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(eight)) == fsdp
    assert_same(eight.params, one.params)
    assert_same(eight.ema, one.ema)
    assert_same(eight.opt_state, one.opt_state)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, others[name], rtol=1e-5, err_msg=name)
    moved = max(float(jnp.abs(p - q).max()) for p, q in zip(*map(jax.tree.leaves, (one.params, one.ema)), strict=True))
    assert moved > 1e-3


def test_accumulated_over_four_parts_a_batch_of_256_is_the_same(config: TrainConfig, changed):
    whole, metrics = after(changed(config, batch_size=256), devices=1)
    parts, others = after(changed(config, batch_size=256, micro_batches=4), devices=1)
    assert_same(parts.params, whole.params)
    np.testing.assert_allclose(others["loss"], metrics["loss"], rtol=1e-6)


def test_accumulation_in_a_loop_is_the_same(config: TrainConfig, changed, monkeypatch: pytest.MonkeyPatch):
    config = changed(config, batch_size=32, micro_batches=4)
    unrolled, _ = after(config, devices=2)
    # What other platforms than a CPU compile.
    real = jax.shard_map
    monkeypatch.setattr(
        "nfnet_eqx.train._step.jax.shard_map",
        lambda f, **kwargs: real(functools.partial(f, unroll=False), **kwargs),
    )
    looped, _ = after(config, devices=2)
    assert_same(looped.params, unrolled.params)


def test_remat_changes_nothing(config: TrainConfig, changed):
    assert_same(after(changed(config, remat=True), devices=1)[0].params, after(config, devices=1)[0].params)


def test_in_bfloat16_parameters_and_averages_stay_float32_and_the_loss_is_close(config: TrainConfig, changed):
    state, metrics = after(changed(config, precision="bfloat16"), devices=1, steps=1)
    _, exact = after(config, devices=1, steps=1)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.ema))} == {"float32"}
    np.testing.assert_allclose(metrics["loss"], exact["loss"], rtol=0.02)
    assert metrics["loss"] != exact["loss"] and metrics["loss"].dtype == jnp.float32


def test_frozen_parameters_stay_equal_to_the_bit_and_have_no_momentum(config: TrainConfig, changed):
    state, _ = after(changed(config, frozen=("stem", "stages.0")), devices=2)
    start = named_parameters(awake(TINY))
    moved = {name for name, leaf in named_parameters(state.params).items() if np.any(leaf != start[name])}
    assert {name.split(".")[0] for name in moved} == {"final_conv", "head"}
    momentum = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)]
    assert any("head" in path for path in momentum) and not any("stem" in path for path in momentum)


def losses_of(config: TrainConfig, network: NFNet, count: int = 6) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mean loss of some images, their labels and their logits."""
    images, labels = map(jnp.asarray, batch(count))
    keys = jax.random.split(jax.random.key(0), count)
    mean, _ = mean_loss(network, images, labels, keys, config=config, preprocess=PREPROCESS)
    x = (np.asarray(images, np.float32) / 255 - PREPROCESS.mean) / PREPROCESS.std
    return mean, labels, jax.vmap(network)(jnp.asarray(x.transpose(0, 3, 1, 2), jnp.float32))


def test_the_sigmoid_loss_is_that_of_every_class_on_its_own_with_the_targets_of_the_softmax(
    config: TrainConfig, changed
):
    config = changed(config, loss="sigmoid", label_smoothing=0.1, mixup=0.0, cutmix=False)
    mean, labels, logits = losses_of(config, eqx.nn.inference_mode(awake(TINY)))
    expected = 0.0
    for row, label in zip(np.asarray(logits, np.float64), labels, strict=True):
        for k, z in enumerate(row):
            target = 0.925 if k == label else 0.025  # of four classes
            expected += target * np.log1p(np.exp(-z)) + (1 - target) * np.log1p(np.exp(z))
    np.testing.assert_allclose(mean, expected / 6, rtol=1e-5)


def test_a_fresh_classifier_starts_from_its_bias_and_then_moves(config: TrainConfig, changed):
    config = changed(config, loss="sigmoid", head_bias=-2.5)
    state = make_program(config, TINY, PREPROCESS, mesh_of(1), total_steps=10).start(None)
    plain = make_program(changed(config, head_bias=0.0), TINY, PREPROCESS, mesh_of(1), total_steps=10).start(None)
    for tree, other in ((state.params, plain.params), (state.ema, plain.ema)):
        others = named_parameters(other)
        for name, leaf in named_parameters(tree).items():
            expected = np.full(4, -2.5) if name == "head.fc.bias" else others[name]
            np.testing.assert_array_equal(leaf, expected, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "ascent"), [(1.0, range(20)), (0.2, [0, 1, 10, 11])])
def test_sam_is_the_gradient_at_the_worst_point_nearby(config: TrainConfig, changed, fraction: float, ascent):
    # SAM written out, without anything random or mixed: the gradient at params + rho * g / |g|, where g is that of the
    # whole batch or, for a fifth of it, of every fifth pair.
    config = changed(
        config, batch_size=20, drop_rate=0.0, stochastic_depth=0.0, mixup=0.0, cutmix=False, sam_rho=0.05,
        sam_fraction=fraction,
    )  # fmt: skip
    images, labels = batch(20)
    params, static = eqx.partition(eqx.nn.inference_mode(awake(TINY)), eqx.is_inexact_array)

    def gradient(params: Any, of: Any) -> Any:
        chosen = np.asarray(of)
        mean, std = (np.asarray(v, np.float32)[None, :, None, None] for v in (PREPROCESS.mean, PREPROCESS.std))
        x = (jnp.asarray(images[chosen].transpose(0, 3, 1, 2), jnp.float32) / 255 - mean) / std
        targets = 0.9 * jax.nn.one_hot(labels[chosen], 4) + 0.1 / 4

        def loss(params: Any) -> jax.Array:
            logits = jax.vmap(eqx.combine(params, static))(x)
            return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(logits), axis=1))

        return jax.jit(jax.grad(loss))(params)

    grads = gradient(params, ascent)
    worst = jax.tree.map(lambda p, g: p + 0.05 * g / optax.tree.norm(grads), params, grads)
    optimizer = nfnet_sgd(2.0 * 20 / 256, eps=1.0)
    updates, _ = optimizer.update(gradient(worst, range(20)), optimizer.init(params), params)

    mesh = mesh_of(1)
    step, state = set_up(config, mesh)
    sharp = step(state, *put_batch((images, labels), mesh))[0].params
    assert_same(sharp, optax.apply_updates(params, updates), tolerance=2e-6)
    updates, _ = optimizer.update(gradient(params, range(20)), optimizer.init(params), params)
    plain = optax.apply_updates(params, updates)
    difference = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), plain, sharp)
    assert max(jax.tree.leaves(difference)) > 1e-4, "the same as without SAM"


def compiled(config: TrainConfig, devices: int, network: NFNetConfig) -> Any:
    mesh = mesh_of(devices)
    step, state = set_up(config, mesh, network)
    return step.compiled(state, put_batch(batch(config.batch_size, side=32), mesh), mesh).function


@pytest.mark.slow
def test_each_of_eight_devices_does_an_eighth_of_the_work_and_gathers_no_activations(config: TrainConfig, changed):
    # Wide enough that the parameters' own work, the optimizer's, is small beside the pictures'.
    network = dataclasses.replace(TINY, widths=(64,), stem_widths=(16,), group_size=16, num_features=64)
    config = changed(config, batch_size=64, mixup=0.0, cutmix=False)
    one = compiled(config, 1, network).cost_analysis()["flops"]
    largest = max(np.prod(leaf.shape) for leaf in named_parameters(skeleton(network)).values())
    for fsdp in (False, True):
        program = compiled(changed(config, fsdp=fsdp), 8, network)
        share = program.cost_analysis()["flops"] / one
        assert share <= 1.02 / 8, f"fsdp={fsdp}: {share:.4f} of the work on each of 8 devices"
        gathered = re.findall(r"= \w+\[([\d,]*)\]\S* all-gather(?:-start)?\(", program.as_text())
        sizes = [np.prod([int(n) for n in shape.split(",") if n], dtype=int) for shape in gathered]
        assert bool(sizes) == fsdp, f"fsdp={fsdp}: all-gathers of {gathered}"
        assert all(size <= largest for size in sizes), f"fsdp={fsdp}: larger than any parameter: {gathered}"


def test_the_state_is_donated_and_a_second_step_compiles_nothing(config: TrainConfig):
    mesh = mesh_of(8)
    step, state = set_up(config, mesh)
    old = jax.tree.leaves(state.params)[0]
    state, _ = step(state, *put_batch(batch(16), mesh))
    assert old.is_deleted()
    for i in range(3):
        state, _ = step(state, *put_batch(batch(16, seed=i), mesh))
    assert step.function._cache_size() == 1


def test_the_published_networks_have_a_step(config: TrainConfig, changed):
    # Traced, not compiled: shapes, dtypes and specs of a real one, in bfloat16 with everything on.
    network = get_config("dm_nfnet_f0")
    config = changed(config, precision="bfloat16", remat=True, micro_batches=2, sam_rho=0.05, fsdp=True, batch_size=32)
    program = make_program(config, network, PREPROCESS, mesh_of(8), total_steps=10)
    images, labels = jax.ShapeDtypeStruct((32, 64, 64, 3), jnp.uint8), jax.ShapeDtypeStruct((32,), jnp.int32)
    state, metrics = jax.eval_shape(program.step, program.abstract, images, labels)
    assert jax.tree.structure(state) == jax.tree.structure(program.abstract)
    assert set(metrics) == {"loss", "top1", "grad_norm", "param_norm"}
