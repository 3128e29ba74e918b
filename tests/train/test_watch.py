"""The clock of a run: what it counts, when a line is due, and what is said while nothing moves."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest

from nfnet_eqx.train import Diverged, TrainConfig, Window
from nfnet_eqx.train._watch import compiling, is_logged

CONFIG = TrainConfig(model="nfnet_cifar10", data=Path("data"), out=Path("run"), batch_size=16)
METRICS = {name: jnp.ones(()) for name in ("loss", "top1", "grad_norm", "param_norm")}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, in a list of one number that a test moves."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    yield now


def test_the_speed_of_a_run_does_not_count_its_compilation(clock: list[float]):
    window = Window(CONFIG, lambda step: 0.1, lambda: None)
    clock[0] += 120  # the first step waits for the compiler
    window.add(1, METRICS, 0)
    assert "images_per_second" not in window.line(), "of the first step alone nothing is known"
    for step in range(2, 6):
        clock[0] += 2
        window.add(step, METRICS, 0)
    assert window.line()["images_per_second"] == pytest.approx(CONFIG.batch_size / 2)


def test_the_first_line_is_right_also_where_it_comes_late(clock: list[float]):
    window = Window(CONFIG, lambda step: 0.1, lambda: None)
    for step in range(1, 6):
        clock[0] += 120 if step == 1 else 2
        window.add(step, METRICS, 0)
        if step == 1:
            window.finish()
    assert window.line()["images_per_second"] == pytest.approx(CONFIG.batch_size / 2)


def test_what_is_no_training_is_not_counted_either(clock: list[float]):
    window = Window(CONFIG, lambda step: 0.1, lambda: None)
    for step in range(1, 4):
        clock[0] += 2
        window.add(step, METRICS, 0)
    window.finish()
    clock[0] += 500  # an evaluation
    window.restart()
    clock[0] += 4
    window.add(4, METRICS, 0)
    assert window.line()["images_per_second"] == pytest.approx(CONFIG.batch_size / 4)


def test_the_seconds_of_a_run_are_those_of_its_steps(clock: list[float]):
    window = Window(CONFIG, lambda step: 0.1, lambda: None, seconds=1000.0)
    for step in range(1, 4):
        clock[0] += 2
        window.add(step, METRICS, 0)
    clock[0] += 1
    window.finish()
    assert window.seconds == 1007, "from where it was resumed, with the first step"
    clock[0] += 500  # an evaluation
    window.restart()
    clock[0] += 4
    window.add(4, METRICS, 0)
    window.line()
    clock[0] += 60  # the curves are drawn
    window.restart()
    clock[0] += 2
    window.add(5, METRICS, 0)
    window.finish()
    assert window.seconds == 1007 + 4 + 2


def test_of_a_run_whose_earlier_time_is_not_known_none_is_stated(clock: list[float]):
    window = Window(CONFIG, lambda step: 0.1, lambda: None, seconds=None)
    clock[0] += 2
    window.add(1, METRICS, 0)
    window.finish()
    assert window.seconds is None


@pytest.mark.parametrize(
    ("interval", "total", "lines"),
    [(None, 5, 5), (None, 70, 25), (None, 135, 24), (None, 1_000, 21), (None, 100_000, 2001), (4, 12, 3), (50, 70, 2)],
)
def test_a_short_run_has_points_enough_for_a_curve_unless_told_otherwise(interval: int | None, total: int, lines: int):
    logged = [step for step in range(1, total + 1) if is_logged(step, interval, total)]
    assert len(logged) == lines and logged[-1] == total
    assert interval is not None or logged[0] == 1


def test_compiling_is_said_before_and_after(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    with compiling("the training step"):
        assert "compiling the training step" in caplog.text and "minute" in caplog.text
        assert "compiled in" not in caplog.text
    assert "compiled in 0 s" in caplog.text


@pytest.mark.parametrize("name", ["loss", "grad_norm", "param_norm"])
def test_what_is_no_longer_finite_is_told_with_its_step_one_step_late(name: str):
    window = Window(CONFIG, lambda step: 0.1, lambda: None)
    window.add(1, METRICS, 0)
    window.add(2, METRICS | {name: jnp.inf * jnp.ones(())}, 0)
    with pytest.raises(Diverged, match=r"run: step 2: .*lower optimizer.learning_rate") as error:
        window.add(3, METRICS, 0)
    assert error.value.step == 2


@pytest.mark.parametrize(
    ("limits", "remedy"),
    [
        ({}, r"smaller optimizer.clipping \(=0.01\)"),
        ({"clipping": None, "clip_norm": 1.0}, r"smaller optimizer.clip_norm \(=1.0\)"),
    ],
)
def test_the_limit_to_lower_is_one_that_the_run_has(limits: dict, remedy: str):
    optimizer = dataclasses.replace(CONFIG.optimizer, **limits)
    window = Window(dataclasses.replace(CONFIG, optimizer=optimizer), lambda step: 0.1, lambda: None)
    window.add(1, METRICS | {"loss": jnp.nan * jnp.ones(())}, 0)
    with pytest.raises(Diverged, match=remedy):
        window.finish()
