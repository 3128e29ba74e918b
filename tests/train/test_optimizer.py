"""Which optimizer a run has: what its settings mean, and that each kind trains, resumes and divides over devices."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import named_parameters, skeleton
from nfnet_eqx.optim import agc, warmup_cosine
from nfnet_eqx.train import OptimizerConfig, TrainConfig
from nfnet_eqx.train._checkpoint import Checkpoints
from nfnet_eqx.train._mesh import put_batch
from nfnet_eqx.train._optimizer import make_optimizer, make_schedule
from nfnet_eqx.train._step import Program, make_program
from tests.train.test_step import awake, batch, mesh_of
from tests.train.tiny import PREPROCESS, TINY

ADAPTIVE = pytest.mark.parametrize("kind", ["adamw", "adafactor"])

# Some of its weights are wide enough for Adafactor's rows and columns.
NETWORK = dataclasses.replace(TINY, widths=(32,))


def program(config: TrainConfig, devices: int) -> Program:
    return make_program(config, NETWORK, PREPROCESS, mesh_of(devices), total_steps=6)


@pytest.fixture
def config(config: TrainConfig, changed: Callable[..., TrainConfig]) -> TrainConfig:
    """Six steps with all that may stand before and behind the rule."""
    return changed(
        config, learning_rate=2e-3, schedule="rsqrt", warmup=0.2, cooldown=0.5, weight_decay=0.03,
        head_weight_decay=3.0, clipping=0.1, clip_norm=1.0, layer_decay=0.8, sam_rho=0.05, frozen=("stem",),
    )  # fmt: skip


@pytest.mark.slow
@ADAPTIVE
def test_an_adaptive_run_is_resumed_to_the_bit_and_the_same_on_two_devices_with_fsdp(
    config: TrainConfig, changed, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nfnet_eqx.train._mesh._SMALLEST_SHARDED", 16)  # the rows and columns too
    config = changed(config, kind=kind)
    one, two = program(config, 1), program(changed(config, fsdp=True), 2)
    batches = [batch(16, seed=i) for i in range(4)]

    def run(of: Program, devices: int, state: Any, data: list) -> Any:
        for images_and_labels in data:
            state, _ = of.step(state, *put_batch(images_and_labels, mesh_of(devices)))
        return state

    whole = run(one, 1, one.start(awake(NETWORK)), batches)
    half = run(one, 1, one.start(awake(NETWORK)), batches[:2])
    with closing(Checkpoints(tmp_path, keep=1)) as states:
        states.save(2, half)
        states.wait()
        again = run(one, 1, states.restore(2, one.abstract, one.specs, mesh_of(1)), batches[2:])
        sharded = states.restore(2, two.abstract, two.specs, mesh_of(2))
    assert jax.tree.structure(again) == jax.tree.structure(whole)
    for leaf, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(other))

    averages = [leaf for leaf in jax.tree.leaves(sharded.opt_state) if not leaf.sharding.is_fully_replicated]
    assert averages and ({jnp.dtype(jnp.bfloat16)} <= {leaf.dtype for leaf in averages}) == (kind == "adafactor")
    divided = run(two, 2, sharded, batches[2:])
    names = named_parameters(whole.params)
    moved = 0.0
    for name, leaf in named_parameters(divided.params).items():
        # A gradient that is all rounding has an adaptive step as large as any other: not to 1e-6, as SGD's.
        np.testing.assert_allclose(np.asarray(leaf), np.asarray(names[name]), rtol=0, atol=2e-4, err_msg=name)
        moved = max(moved, float(jnp.abs(names[name] - named_parameters(awake(NETWORK))[name]).max()))
    assert moved > 2e-3


@pytest.mark.parametrize(
    ("kind", "rate", "loss"), [("sgd", 0.2, "sigmoid"), ("adamw", 0.01, "softmax"), ("adafactor", 0.01, "sigmoid")]
)
def test_every_kind_learns_a_batch_with_whichever_loss(config: TrainConfig, changed, kind: str, rate: float, loss: str):
    config = dataclasses.replace(
        config, loss=loss, label_smoothing=0.0, drop_rate=0.0, stochastic_depth=0.0,
        augment=dataclasses.replace(config.augment, mixup=0.0, cutmix=False),
        optimizer=OptimizerConfig(
            kind=kind, learning_rate=rate * (16 if kind == "sgd" else 1), warmup=0.0, clipping=None, clip_norm=1.0,
            ema_decay=None,
        ),
    )  # fmt: skip
    made = make_program(config, TINY, PREPROCESS, mesh_of(1), total_steps=1000)
    state, losses = made.start(None), []
    for _ in range(12):
        state, metrics = made.step(state, *put_batch(batch(16), mesh_of(1)))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0], losses


def by_name(test: Callable[[str], bool]) -> Any:
    def mask(params: Any) -> dict[str, bool]:
        return {name: test(name) for name in params}

    return mask


def test_without_any_of_the_new_settings_the_state_is_what_it_was(config: TrainConfig):
    # Spelt out as it was when SGD was the only kind: its runs are still resumed, and Orbax goes by the structure.
    params = {name: jnp.zeros(leaf.shape) for name, leaf in named_parameters(skeleton(TINY)).items()}
    before = optax.chain(
        optax.masked(agc(0.01, 1e-3), by_name(lambda name: name != "head.fc.weight")),
        optax.add_decayed_weights(2e-5, by_name(lambda name: name.endswith(".weight"))),
        optax.sgd(warmup_cosine(0.1, 1, 9), momentum=0.9, nesterov=True),
        optax.identity(),
    )
    now = make_optimizer(OptimizerConfig(), make_schedule(OptimizerConfig(), batch_size=256, total_steps=9))
    assert jax.tree.structure(now.init(params)) == jax.tree.structure(before.init(params))


def test_sgds_rate_follows_the_batch_and_the_others_do_not():
    for kind, peak in {"sgd": 0.4, "adamw": 0.1, "adafactor": 0.1}.items():
        config = OptimizerConfig(kind=kind, learning_rate=0.1, warmup=0.1)
        assert float(make_schedule(config, batch_size=1024, total_steps=100)(10)) == pytest.approx(peak), kind


def test_the_cooldown_is_the_end_of_the_run_whatever_its_length():
    config = OptimizerConfig(kind="adafactor", learning_rate=1.0, schedule="rsqrt", warmup=0.25, cooldown=0.5)
    for total in (1, 2, 3, 7, 400):
        schedule = make_schedule(config, batch_size=256, total_steps=total)
        rates = np.asarray(schedule(np.arange(total + 1)))
        assert rates[-1] == 0 and 0 < rates.max() <= 1 and np.all(rates[:-1] >= 0), total
    assert [float(schedule(step)) for step in (50, 100, 200, 300)] == pytest.approx([0.5, 1, 0.5**0.5, 0.5 / 3**0.5])


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"cooldown": 0.1}, r"cooldown \(=0.1\) is for schedule 'rsqrt', a cosine ends at 0 by itself; set it to 0"),
        ({"schedule": "rsqrt", "warmup": 0.0}, "warmup must be positive for schedule 'rsqrt'"),
        ({"schedule": "rsqrt", "warmup": 0.6, "cooldown": 0.5}, "are more than the whole run"),
        ({"beta2": 0.95}, r"beta2 \(=0.95\) is for kind 'adamw' or 'adafactor'"),
        (
            {"clip_norm": 0.0, "head_weight_decay": -1.0},
            "head_weight_decay must be 0 or more, got -1.0; clip_norm must",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(values: dict[str, Any], fault: str):
    with pytest.raises(InputError, match=fault):
        OptimizerConfig(**values)
