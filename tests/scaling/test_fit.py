"""Fits of known laws: exact without noise, intervals that hold the truth as often as they should, one answer a seed."""

import dataclasses
import json

import numpy as np
import pytest

from nfnet_eqx import InputError
from nfnet_eqx.scaling import Fit, Parametric, Point, envelope, fit_parametric, fit_power_law, fit_repeated
from tests.scaling.laws import PARAMETRIC, POWER, REPEATED, grid_runs, power_runs, repeated_runs

FORMS = {
    "power": (fit_power_law, power_runs, POWER, ("b",)),
    "parametric": (fit_parametric, grid_runs, PARAMETRIC, ("alpha", "beta", "size_exponent", "data_exponent")),
    "repeated": (fit_repeated, repeated_runs, REPEATED, ("alpha", "beta", "gamma", "delta")),
}


@pytest.mark.parametrize("form", FORMS)
def test_without_noise_a_law_is_found_exactly(form: str):
    fit, runs, law, _ = FORMS[form]
    found = fit(runs(noise=0.0), samples=100)
    for field in dataclasses.fields(law):
        assert getattr(found.law, field.name) == pytest.approx(getattr(law, field.name), rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_minimum_is_proven(form: str):
    fit, runs, _, _ = FORMS[form]
    how = fit(runs(), samples=100).convergence
    assert how.gradient < 1e-6
    assert how.reached >= how.starts / 2 >= 8
    assert how.bootstrap_converged >= 0.95 * how.bootstrap


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_intervals_hold_the_true_exponents_in_90_to_99_of_100_seeds(form: str, monkeypatch: pytest.MonkeyPatch):
    # What says how far to trust a fit takes half of its time, and does not touch the intervals.
    monkeypatch.setattr("nfnet_eqx.scaling._forms.held_out", lambda *_: None)
    monkeypatch.setattr("nfnet_eqx.scaling._forms.influence", lambda *_: None)
    fit, runs, law, names = FORMS[form]
    held = dict.fromkeys(names, 0)
    for seed in range(100):
        found = fit(runs(seed), samples=200, seed=seed)
        for name in names:
            low, high = found.interval(name)
            held[name] += low <= getattr(law, name) <= high
    assert all(90 <= count <= 99 for count in held.values()), held


def known(number: float | None) -> float:
    assert number is not None
    return number


def test_the_published_law_comes_back_from_points_like_those_it_is_of():
    # 2404.10102's law of 240 runs of language models, at sizes and tokens like theirs, with the spread that they have.
    law = Parametric(E=1.8172, A=482.01, alpha=0.3478, B=2085.43, beta=0.3658)
    found = fit_parametric(published_runs(law), samples=200)
    errors = {"E": 0.03, "A": 124.58, "alpha": 0.02, "B": 1293.23, "beta": 0.02}
    for name, error in errors.items():
        assert getattr(found.law, name) == pytest.approx(getattr(law, name), abs=error)
    assert not any("carry" in note for note in found.notes), found.notes


def test_five_points_that_carry_an_exponent_are_told():
    # Rounded, the five runs of the fewest tokens of 2203.15556, which lie far above the law of all others.
    law = Parametric(E=1.8172, A=482.01, alpha=0.3478, B=2085.43, beta=0.3658)
    five = [(6.8e9, 2.5e8, 5.0), (3.0e9, 5.2e8, 4.7), (2.6e9, 6.2e8, 3.8), (2.3e9, 7.0e8, 3.8), (2.0e9, 8.1e8, 3.5)]
    odd = [
        Point(run=f"odd{i}", parameters=parameters, images=images, flops=6 * parameters * images, loss=loss)
        for i, (parameters, images, loss) in enumerate(five)
    ]
    found = fit_parametric([*odd, *published_runs(law)], samples=200)
    assert found.influence.name == "beta"
    assert set(found.influence.runs) == {point.run for point in odd}
    assert found.influence.without == pytest.approx(0.3658, abs=0.02)
    assert any(note.startswith("five points carry beta (the fewest images") for note in found.notes), found.notes


def published_runs(law: Parametric) -> list[Point]:
    generator, points = np.random.default_rng(1), []
    for flops in np.geomspace(6e18, 3e21, 8):
        for ratio in np.geomspace(2, 600, 30):  # tokens of a parameter
            parameters = (flops / (6 * ratio)) ** 0.5
            images = ratio * parameters
            if images > 1.2e9:
                loss = law.loss(parameters, images) * np.exp(0.006 * generator.normal())
                name = f"run{len(points)}"
                points.append(Point(run=name, parameters=parameters, images=images, flops=flops, loss=float(loss)))
    return points


def test_a_seed_gives_the_same_fit_and_another_one_another_interval():
    runs = grid_runs()
    one, same, other = (fit_parametric(runs, samples=100, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert other.law == one.law
    assert other.interval("alpha") != one.interval("alpha")


def test_a_fit_goes_through_json_unrounded():
    found = fit_parametric(grid_runs(), samples=100)
    assert Fit.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    with pytest.raises(InputError, match="not a fit"):
        Fit.from_json({"form": "cubic"})


def test_an_interval_of_what_is_no_number_of_the_law_is_refused():
    with pytest.raises(InputError, match=r"name \(='b'\) must be one of E, A, alpha"):
        fit_parametric(grid_runs(), samples=100).interval("b")


def test_the_optimal_sizes_exponents_are_those_of_the_paper():
    assert PARAMETRIC.size_exponent == pytest.approx(0.35 / 0.75)
    assert PARAMETRIC.data_exponent == pytest.approx(0.4 / 0.75)


def test_the_order_of_the_rows_does_not_matter_to_the_law():
    runs = grid_runs()
    shuffled = [runs[i] for i in np.random.default_rng(0).permutation(len(runs))]
    one, other = (fit_parametric(points, samples=100).law for points in (runs, shuffled))
    assert other.alpha == pytest.approx(one.alpha, rel=1e-6)


@pytest.mark.parametrize(("n", "d", "nats"), [(1e-6, 1e6, 1e3), (1e6, 1e3, 1e-3)])
def test_units_change_the_scales_and_no_exponent(n: float, d: float, nats: float):
    runs = grid_runs(sizes=4, budgets=4)
    scaled = [
        dataclasses.replace(
            p, parameters=known(p.parameters) * n, images=known(p.images) * d, loss=known(p.loss) * nats
        )
        for p in runs
    ]
    one, other = (fit_parametric(points, samples=100).law for points in (runs, scaled))
    assert other.alpha == pytest.approx(one.alpha, rel=1e-4)
    assert other.beta == pytest.approx(one.beta, rel=1e-4)
    assert other.E == pytest.approx(one.E * nats, rel=1e-3, abs=1e-6 * nats)


def test_a_few_runs_that_went_wrong_do_not_move_a_law():
    runs = grid_runs(noise=0.002)
    spoilt = [dataclasses.replace(p, loss=known(p.loss) * 1.5) if i in (7, 22) else p for i, p in enumerate(runs)]
    found = fit_parametric(spoilt, samples=100).law
    assert found.alpha == pytest.approx(0.4, abs=0.03)
    assert found.beta == pytest.approx(0.35, abs=0.03)


def test_a_power_law_with_E_of_0_is_a_straight_line():
    runs = [Point(run=str(n), flops=1e15 * 2**n, loss=30 * (1e15 * 2**n) ** -0.05) for n in range(8)]
    found = fit_power_law(runs, fixed_E=0, samples=100)
    assert (found.law.E, found.fixed_E) == (0, 0)
    assert found.law.b == pytest.approx(0.05)


def test_the_envelope_is_what_no_cheaper_run_matches():
    losses = {1e15: 3.0, 2e15: 3.5, 4e15: 2.0, 8e15: 2.0, 16e15: 1.9}
    points = [Point(run=f"{c}", flops=c, loss=loss) for c, loss in losses.items()]
    points.append(Point(run="diverged", flops=1.0, status="diverged"))
    points.append(Point(run="early", flops=1.0, loss=0.1, final=False))
    assert [point.flops for point in envelope(points[::-1])] == [1e15, 4e15, 16e15]


def rates(best: float) -> list[Point]:
    """Three learning rates a point, the losses of the law at `best`, and two seeds."""
    return [
        dataclasses.replace(
            p, run=f"{p.run}-{rate}-{seed}", model=f"{p.parameters}", learning_rate=rate, seed=seed,
            loss=p.loss * (1 + 0.1 * abs(np.log2(rate / best))) * (1.001 if seed else 0.999),
        )
        for p in grid_runs(noise=0.0)
        for rate in (0.1, 0.2, 0.4)
        for seed in (0, 1)
    ]  # fmt: skip


def test_of_each_model_and_budget_the_best_learning_rate_is_fitted():
    found = fit_parametric(rates(best=0.2), samples=100)
    assert found.rows.runs == 216 and found.rows.fitted == 36
    assert {point.learning_rate for point in found.points} == {0.2}
    assert found.law.alpha == pytest.approx(0.4, rel=1e-3)
    assert found.rows.learning_rates == "the best of 3 for each model and budget, by the loss, the mean over seeds"
    assert found.rows.at_edge == 0


def test_a_best_learning_rate_at_the_edge_of_its_grid_is_told():
    found = fit_parametric(rates(best=0.4), samples=100)
    assert found.rows.at_edge == found.rows.chosen == 36
    assert any("edge of its grid for 36 of 36 points" in note for note in found.notes)


def test_the_bootstrap_draws_runs_and_keeps_the_rows_of_one_together():
    # Ten rows of each run, all alike: as uncertain as one of each, not a third of that.
    once = grid_runs(noise=0.02)
    often = [
        dataclasses.replace(p, run=f"of{i}", loss=known(p.loss) * (1 + 1e-9 * copy))
        for i, p in enumerate(once)
        for copy in range(10)
    ]
    widths = []
    for points in (once, often):
        low, high = fit_parametric(points, samples=300).interval("alpha")
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def test_extrapolation_is_measured_on_the_largest_computes():
    held = fit_parametric(grid_runs(noise=0.003), samples=100).held_out
    assert held.fitted + held.predicted == 36 and held.predicted >= 6
    assert held.error_percent < 2
