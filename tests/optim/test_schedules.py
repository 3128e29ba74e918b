"""The learning rate by step: without jumps, down after the warm-up, at 0 in the end; the cosine's values: test_sgd."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfnet_eqx.optim import warmup_cosine, warmup_rsqrt

PEAK = 0.5
LONGEST = 600  # steps


@st.composite
def runs(draw: st.DrawFn) -> tuple[int, int, int]:
    """Warm-up, all and cool-down steps of a run."""
    total = draw(st.integers(2, LONGEST))
    warmup = draw(st.integers(0, total - 1))
    return warmup, total, draw(st.integers(0, total - warmup))


def rates(schedule, total: int) -> np.ndarray:
    return np.asarray(schedule(np.arange(LONGEST + 1)))[: total + 1]


@given(runs())
def test_rsqrt_rises_to_the_peak_then_falls_and_never_jumps(run: tuple[int, int, int]):
    warmup, total, cooldown = run
    rate = rates(warmup_rsqrt(PEAK, warmup, total, cooldown), total)
    assert np.all(np.diff(rate[: warmup + 1]) > 0) and np.all(np.diff(rate[warmup:]) <= 0)
    assert rate.max() == pytest.approx(PEAK, rel=1e-5) and (rate.argmax() == warmup or cooldown == total)
    # No step is steeper than the steepest of the three parts: rise, decay and cool-down.
    steepest = PEAK * (1 / max(warmup, 1) + 0.5 / max(warmup, 1) + 1 / max(cooldown, 1))
    assert np.abs(np.diff(rate)).max() <= steepest * 1.001


@given(runs())
def test_rsqrt_ends_at_0_where_it_has_a_cooldown_and_stays_there(run: tuple[int, int, int]):
    warmup, total, cooldown = run
    schedule = warmup_rsqrt(PEAK, warmup, total, cooldown)
    ends = [float(schedule(total)), float(schedule(total + 7))]
    assert (ends == [0, 0]) if cooldown else min(ends) > 0


def test_rsqrt_before_its_cooldown_does_not_depend_on_the_length_of_the_run():
    short, long = (rates(warmup_rsqrt(PEAK, 100, total, 200), 400) for total in (600, 50_000))
    np.testing.assert_array_equal(short, long)


def test_rsqrt_is_the_released_codes():
    # `base / sqrt(1 + (step - warmup) / timescale)`, then both ramps; 10,000 steps for warm-up and time scale.
    for step, expected in {
        0: 0.0, 2500: 2e-4, 10_000: 8e-4, 40_000: 4e-4, 640_000: 1e-4, 950_000: 8e-4 / 95**0.5,
        975_000: 8e-4 / 97.5**0.5 / 2, 1_000_000: 0.0,
    }.items():  # fmt: skip
        rate = float(warmup_rsqrt(8e-4, 10_000, 1_000_000, 50_000)(step))
        assert rate == pytest.approx(expected, rel=1e-6, abs=1e-12), step


@pytest.mark.parametrize("schedule", [warmup_cosine(PEAK, 3, 9), warmup_rsqrt(PEAK, 3, 9, 4)])
def test_a_step_may_be_a_traced_array_of_any_kind(schedule):
    for step in (5, np.int32(5), jnp.asarray(5), jnp.asarray(5.0)):
        assert float(jax.jit(schedule)(step)) == pytest.approx(float(schedule(5)), rel=1e-6)
        assert jax.jit(schedule)(step).dtype == jnp.float32
