"""Evaluation: the same numbers on any number of devices and hosts, over every picture once, with honest intervals."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh

from nfnet_eqx import NFNet, NFNetConfig
from nfnet_eqx._errors import InputError
from nfnet_eqx.data import EvalBatch
from nfnet_eqx.train import _evaluate as module
from nfnet_eqx.train._evaluate import Evaluation, evaluate
from nfnet_eqx.train._mesh import make_mesh, partition_specs, put, put_batch

CLASSES, SIDE = 7, 32
CONFIG = NFNetConfig(
    depths=(1,),
    widths=(16,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    num_classes=CLASSES,
)


def network(config: NFNetConfig = CONFIG, scale: float = 100.0) -> NFNet:
    model = NFNet(config, key=jax.random.key(0))
    # A fresh classifier says nothing: its weights are tiny.
    return eqx.tree_at(lambda m: m.head.fc.weight, model, scale * model.head.fc.weight)


def mesh(devices: int) -> Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def pictures(count: int = 29) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.standard_normal((count, 3, SIDE, SIDE), np.float32), random.integers(0, CLASSES, count, np.int32)


def batches(images: np.ndarray, labels: np.ndarray, size: int) -> Iterator[EvalBatch]:
    """In order; the last one is filled up."""
    for start in range(0, len(labels), size):
        image, label = images[start : start + size], labels[start : start + size]
        filling = size - len(label)
        yield EvalBatch(
            np.pad(image, ((0, filling), (0, 0), (0, 0), (0, 0))), np.pad(label, (0, filling), constant_values=-1)
        )


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """What the network says to all pictures at once, on one device."""
    model, (images, _) = network(), pictures()
    return np.asarray(eqx.filter_jit(jax.vmap(lambda x: model(x, inference=True)))(jnp.asarray(images)))


# --- running a network ---


@pytest.mark.parametrize(("devices", "size"), [(1, 8), (8, 8), (8, 6), (3, 29), (2, 1), (8, 64)])
def test_every_picture_is_scored_once_and_in_order_on_any_number_of_devices(
    devices: int, size: int, logits: np.ndarray
):
    images, labels = pictures()
    found = evaluate(network(), batches(images, labels, size), mesh=mesh(devices))
    own = logits[np.arange(len(labels)), labels]
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.predictions, logits.argmax(1))
    np.testing.assert_array_equal(found.ranks, (logits > own[:, None]).sum(1))
    expected = np.log(np.exp(logits.astype(np.float64)).sum(1)) - own
    np.testing.assert_allclose(found.losses, expected, rtol=0, atol=5e-6)
    assert (found.num_classes, found.broken) == (CLASSES, 0)
    assert len(set(found.ranks)) > 3, "the network says the same to all pictures; this test then sees little"


def test_what_has_no_label_counts_nowhere_and_broken_pictures_are_counted():
    images, labels = pictures()
    kept = np.arange(len(labels)) % 5 != 2
    stream = batches(np.where(kept[:, None, None, None], images, np.nan), np.where(kept, labels, -1), 8)
    found = evaluate(network(), stream, mesh=make_mesh(), num_pictures=len(labels))
    whole = evaluate(network(), batches(images[kept], labels[kept], 8), mesh=make_mesh())
    assert found.broken == 6
    for name in ("labels", "predictions", "ranks"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
    np.testing.assert_allclose(found.losses, whole.losses, rtol=0, atol=5e-6)


def test_sharded_parameters_give_the_same_as_copied_ones():
    images, labels = pictures()
    model = network(NFNetConfig.from_dict(CONFIG.to_dict() | {"widths": [64]}))
    params, static = eqx.partition(model, eqx.is_array)
    sharded = put(params, partition_specs(params, make_mesh(), fsdp=True), make_mesh())
    assert not all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(sharded)), "nothing is sharded"
    found = evaluate(eqx.combine(sharded, static), batches(images, labels, 8), mesh=make_mesh())
    expected = evaluate(model, batches(images, labels, 8), mesh=make_mesh())
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=0, atol=5e-6)


def test_bfloat16_is_near_and_its_losses_are_float32():
    images, labels = pictures()
    half = evaluate(network(), batches(images, labels, 8), mesh=make_mesh(), precision="bfloat16")
    full = evaluate(network(), batches(images, labels, 8), mesh=make_mesh())
    assert half.losses.dtype == np.float32
    np.testing.assert_allclose(half.losses, full.losses, rtol=0, atol=0.1)
    assert not np.array_equal(half.losses, full.losses), "bfloat16 was not used"


def test_one_compilation_serves_all_batches_and_all_later_evaluations(caplog: pytest.LogCaptureFixture):
    images, labels = pictures(40)
    config = NFNetConfig.from_dict(CONFIG.to_dict() | {"widths": [24]})  # that no other test has compiled
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        for scale in (100.0, 50.0):
            evaluate(network(config, scale), batches(images, labels, 8), mesh=make_mesh())
    compiled = [r.getMessage() for r in caplog.records if re.search(r"Finished XLA.*_answer", r.getMessage())]
    assert len(compiled) == 1, compiled


def test_each_device_computes_its_own_pictures_and_receives_no_others():
    model, (images, labels) = network(), pictures(64)
    answer: Any = module._answer

    def compiled(devices: int) -> Any:
        where = mesh(devices)
        image, label = put_batch((images, labels), where)
        return answer.lower(module._on_mesh(model, where), image, label, where, "float32").compile().compiled

    alone, together = compiled(1), compiled(8)
    share = together.cost_analysis()["flops"] / alone.cost_analysis()["flops"]
    assert share <= 1.02 / 8, f"a device does {share:.3f} of the work"
    gathered = re.findall(r"= \(?(\w+\[[\d,]*\])\S*[^=]*? all-gather(?:-start)?\(", together.as_text())
    assert gathered and all(shape.count(",") == 0 for shape in gathered), (
        f"more than the answers is gathered: {gathered}"
    )


@pytest.mark.slow
def test_two_processes_both_see_the_result_of_one(tmp_path):
    images, labels = pictures()
    expected = evaluate(network(), batches(images, labels, 6), mesh=mesh(4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = (
        "import json, sys, jax\n"
        "jax.config.update('jax_num_cpu_devices', 2)\n"
        f"jax.distributed.initialize('127.0.0.1:{port}', 2, int(sys.argv[1]))\n"
        "from tests.train.test_evaluate import *\n"
        "half = slice(3 * int(sys.argv[1]), 3 * int(sys.argv[1]) + 3)\n"
        "mine = (EvalBatch(b.image[half], b.label[half]) for b in batches(*pictures(), 6))\n"
        "found = evaluate(network(), mine, mesh=make_mesh())\n"
        "print(json.dumps([found.labels.tolist(), found.ranks.tolist(), found.losses.tolist()]))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank)],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
        found_labels, ranks, losses = json.loads(out.splitlines()[-1])
        np.testing.assert_array_equal(found_labels, expected.labels)
        np.testing.assert_array_equal(ranks, expected.ranks)
        np.testing.assert_allclose(losses, expected.losses, rtol=0, atol=5e-6)


def test_nothing_to_evaluate_or_to_evaluate_with_is_refused():
    images, labels = pictures(8)
    with pytest.raises(InputError, match="no picture to evaluate on"):
        evaluate(network(), iter(()), mesh=make_mesh())
    with pytest.raises(InputError, match="no picture to evaluate on"):
        evaluate(network(), batches(images, np.full_like(labels, -1), 8), mesh=make_mesh())
    with pytest.raises(InputError, match="class 7, the network has 7 classes .0 to 6."):
        evaluate(network(), batches(images, labels + CLASSES - labels.max(), 8), mesh=make_mesh())
    headless = NFNet(NFNetConfig.from_dict(CONFIG.to_dict() | {"num_classes": 0}), key=jax.random.key(0))
    with pytest.raises(InputError, match="no classifier"):
        evaluate(headless, batches(images, labels, 8), mesh=make_mesh())


# --- judging one picture ---

# Few values, so that many are equal.
LOGITS = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=CLASSES, max_size=CLASSES)


@given(LOGITS, st.integers(0, CLASSES - 1))
def test_the_rank_is_the_place_in_the_order_of_the_logits_even_of_equal_ones(values: list[float], label: int):
    found = jax.jit(module._score)(jnp.asarray(values, jnp.float32), jnp.asarray(label, jnp.int32))
    order = np.argsort(-np.asarray(values), kind="stable")
    assert found.ranks == list(order).index(label)
    assert found.predictions == order[0]


@given(LOGITS, st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1))
def test_a_logit_that_is_no_number_never_makes_a_picture_right(values: list[float], label: int, where: int):
    values[where] = float("nan")
    found = jax.jit(module._score)(jnp.asarray(values, jnp.float32), jnp.asarray(label, jnp.int32))
    assert found.ranks > 0
    assert jnp.isnan(found.losses)


# --- what follows from the answers ---


def random_evaluation(count: int = 400, classes: int = 8, seed: int = 0) -> Evaluation:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes - 1, count, np.int32)  # the last class has no picture
    ranks = random.choice(classes, count, p=[0.5, *[0.5 / (classes - 1)] * (classes - 1)]).astype(np.int32)
    wrong = (labels + random.integers(1, classes, count, np.int32)) % classes
    return Evaluation(
        labels=labels,
        predictions=np.where(ranks == 0, labels, wrong).astype(np.int32),
        ranks=ranks,
        losses=random.exponential(1.0, count).astype(np.float32),
        num_classes=classes,
    )


def test_the_measures_are_what_their_names_say():
    found = random_evaluation()
    assert found.top1 == pytest.approx(100 * np.mean(found.predictions == found.labels), abs=1e-9)
    assert found.top5 == pytest.approx(100 * sum(r in range(5) for r in found.ranks) / 400, abs=1e-9)
    assert found.loss == pytest.approx(sum(map(float, found.losses)) / 400, abs=1e-9)
    assert found.top1 < found.top5 < 100


def test_the_confusion_counts_each_pair_of_label_and_prediction():
    found = random_evaluation()
    expected = np.zeros((8, 8), int)
    for label, prediction in zip(found.labels, found.predictions, strict=True):
        expected[label, prediction] += 1
    np.testing.assert_array_equal(found.confusion, expected)
    share = 100 * expected.diagonal()[:7] / expected.sum(1)[:7]
    np.testing.assert_allclose(found.per_class_top1[:7], share, rtol=1e-12)
    assert np.isnan(found.per_class_top1[7]), "a class without pictures has no accuracy"


@pytest.mark.parametrize("which", ["top1", "top5", "loss"])
def test_the_interval_is_scipys_percentile_bootstrap(which: module.Measure):
    found = random_evaluation()
    low, high = found.interval(which)
    assert low < getattr(found, which) < high
    values = {"top1": 100.0 * (found.ranks < 1), "top5": 100.0 * (found.ranks < 5), "loss": found.losses}[which]
    theirs = scipy.stats.bootstrap(
        (values.astype(np.float64),), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # Both are random; each end of theirs scatters by about a twentieth of the width.
    np.testing.assert_allclose([low, high], theirs, rtol=0, atol=0.15 * (theirs.high - theirs.low))


def test_the_interval_repeats_and_widens_with_its_level_and_with_fewer_pictures():
    found = random_evaluation()
    assert found.interval("loss") == found.interval("loss")
    assert found.interval("loss") != found.interval("loss", seed=1)
    widths = [high - low for low, high in (found.interval("top1", level=level) for level in (0.5, 0.9, 0.99))]
    assert widths == sorted(widths) and widths[0] < widths[-1]
    low, high = random_evaluation(100).interval("top1")
    assert high - low == pytest.approx(2 * widths[1] * 1.96 / 1.645, rel=0.25)


def test_the_draws_in_memory_do_not_grow_with_the_pictures(monkeypatch: pytest.MonkeyPatch):
    found = random_evaluation()
    expected = found.interval("loss")
    monkeypatch.setattr(module, "_DRAWS", 1000)
    assert found.interval("loss") == pytest.approx(expected, abs=0.02)


def test_a_loss_that_is_no_number_has_no_interval_and_a_certain_measure_a_point():
    found = random_evaluation()
    broken = Evaluation(**vars(found) | {"losses": np.where(found.ranks == 1, np.nan, found.losses).astype(np.float32)})
    assert np.isnan(broken.loss) and np.isnan(broken.interval("loss")).all()
    right = Evaluation(**vars(found) | {"ranks": np.zeros_like(found.ranks)})
    assert right.interval("top1") == (100.0, 100.0)


@pytest.mark.parametrize("arguments", [{"level": 0.0}, {"level": 1.0}, {"level": float("nan")}, {"samples": 0}])
def test_an_impossible_interval_is_refused(arguments: dict[str, float]):
    with pytest.raises(InputError, match="level .*samples"):
        random_evaluation().interval("top1", **arguments)
