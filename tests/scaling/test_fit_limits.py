"""What a fit refuses, and what it says that the data cannot carry, each with the reason."""

import dataclasses

import numpy as np
import pytest

from nfnet_eqx import InputError
from nfnet_eqx.scaling import Point, fit_parametric, fit_power_law, fit_repeated
from tests.scaling.laws import PARAMETRIC, grid_runs, power_runs, repeated_runs


def known(number: float | None) -> float:
    assert number is not None
    return number


def changed(points: list[Point], **values: object) -> list[Point]:
    return [dataclasses.replace(point, **values) for point in points]


def refused(fit, points: list[Point], message: str, **settings: object):
    with pytest.raises(InputError, match=message):
        fit(points, samples=100, **settings)


def test_one_model_alone_is_refused():
    refused(fit_parametric, grid_runs(sizes=1, budgets=9), "1 model size: to tell the exponent of parameters takes 3")


def test_one_budget_alone_is_refused():
    refused(fit_parametric, grid_runs(sizes=9, budgets=1), "1 number of images: to tell the exponent of images takes 3")


def test_losses_that_are_all_equal_are_refused():
    refused(fit_parametric, changed(grid_runs(), loss=2.0), "all 36 losses are 2; there is nothing to fit")


def test_two_points_are_refused():
    refused(fit_power_law, power_runs(noise=0.0)[2:8:5], "2 different points .* 4 are the fewest for the 3 numbers")


def test_an_E_above_the_smallest_loss_or_below_0_is_refused():
    for fixed in (9.0, -1.0, float("nan")):
        refused(fit_parametric, grid_runs(), "fixed_E .* below the smallest loss, which is", fixed_E=fixed)


def test_one_run_repeated_is_one_run():
    refused(fit_power_law, power_runs()[:1] * 20, "1 different points .* 4 are the fewest")


def test_parameters_and_images_that_grow_in_step_are_refused():
    diagonal = [p for p in grid_runs(sizes=9, budgets=9) if round(np.log(known(p.parameters) / 1e4) / np.log(3)) ==
                round(np.log2(known(p.images) / 5e4))]  # fmt: skip
    refused(fit_parametric, diagonal, "grow in step .* cannot be told apart")


def test_a_loss_that_grows_with_compute_is_refused():
    rising = [Point(run=str(n), flops=1e15 * 2**n, loss=1 + 0.1 * n) for n in range(9)]
    refused(fit_power_law, rising, "since the loss grows with compute")


def test_mixed_data_and_mixed_families_are_refused_together():
    runs = grid_runs()
    mixed = changed(runs[:18], dataset="a", family="NFNet") + changed(runs[18:], dataset="b", family="ViT")
    refused(fit_parametric, mixed, "more than one dataset .* more than one family .* choose one with --family")


def test_a_family_that_is_not_there_is_refused():
    refused(fit_parametric, changed(grid_runs(), family="ViT"), "no row is of it; there are 'ViT'", family="NFNet")


def test_runs_that_all_diverged_are_refused():
    refused(fit_parametric, changed(grid_runs(), status="diverged", loss=None), "none of the 36 rows is of a run")
    refused(fit_parametric, [], "there are no points")


def test_what_the_points_lack_is_named_with_its_flag():
    refused(
        fit_parametric, changed(grid_runs(), images=None, parameters=None), "no parameters.*no images.*--images, or"
    )
    refused(fit_power_law, changed(grid_runs(), flops=None), "36 of 36 points have no flops.*--compute")


def test_images_that_are_all_fresh_or_of_one_data_set_tell_nothing_of_repetition():
    fresh = [dataclasses.replace(p, unique_images=p.images) for p in grid_runs()]
    refused(fit_repeated, fresh, "no image is seen twice")
    refused(fit_repeated, changed(grid_runs(), unique_images=50_000.0), "unique_images is the same everywhere")


@pytest.mark.parametrize(("name", "value"), [("delta", 0.0), ("samples", 10)])
def test_settings_that_mean_nothing_are_refused(name: str, value: float):
    with pytest.raises(InputError, match=name):
        fit_parametric(grid_runs(), **{"samples": 100, name: value})


def notes(found) -> str:
    return "; ".join(found.notes)


def test_few_models_and_few_budgets_are_told():
    found = notes(fit_parametric(grid_runs(sizes=3, budgets=4), samples=100))
    assert "too few models: 3" in found and "too few budgets: 4" in found


def test_a_range_that_no_study_spans_is_told():
    runs = [Point(run=str(n), flops=10.0 ** (3 * n), loss=1 + 20 * 10.0 ** (-0.15 * n)) for n in range(9)]
    assert "flops spans 24 decades" in notes(fit_power_law(runs, samples=100))


def test_an_optimum_at_the_end_of_the_sizes_is_told():
    inside = notes(fit_power_law(power_runs(noise=0.0), samples=100))
    assert "interior optimum" not in inside
    outside = [p for p in power_runs(noise=0.0) if p.parameters >= 0.9 * known(p.flops) ** 0.5 / 100]
    assert "no interior optimum: the smallest model is the best at every compute" in notes(
        fit_power_law(outside, samples=100)
    )


def test_an_interval_below_0_is_not_told_to_contain_it():
    # The loss rises with the images, which no term of the form does.
    generator = np.random.default_rng(0)
    runs = [
        dataclasses.replace(
            p, loss=float(known(p.loss) * (known(p.images) / 5e4) ** 0.2 * np.exp(0.01 * generator.normal()))
        )
        for p in grid_runs()
    ]
    told = [note for note in fit_parametric(runs, samples=100).notes if "interval of beta" in note]
    assert told and "contains" not in told[0] and "lies below 0" in told[0]


def test_an_E_that_runs_to_0_is_0():
    falling = [Point(run=f"{c}", flops=c, loss=float(200 * c**-0.15)) for c in 1e15 * 2.0 ** np.arange(8)]
    found = fit_power_law(falling, samples=100)
    assert found.law.E == 0.0 and found.interval("E")[0] == 0.0


def test_an_interval_that_contains_0_is_told():
    # More images do next to nothing here, and the noise is as large.
    runs = grid_runs(noise=0.02, law=dataclasses.replace(PARAMETRIC, B=1.0))
    assert "the interval of beta contains 0" in notes(fit_parametric(runs, samples=100))


def test_diverged_and_failed_runs_and_repeated_rows_are_counted():
    runs = grid_runs()
    extra = [
        Point(run="d", dataset="synthetic", status="diverged"),
        Point(run="f", dataset="synthetic", status="failed"),
        runs[0],
        dataclasses.replace(runs[1], run="e", final=False),
    ]
    found = fit_parametric([*runs, *extra], samples=100)
    assert (found.rows.diverged, found.rows.failed, found.rows.repeated, found.rows.not_final) == (1, 1, 1, 1)
    assert found.law == fit_parametric(runs, samples=100).law
    assert "1 runs diverged and 1 failed" in notes(found) and "1 rows say the same" in notes(found)


def test_images_that_are_seen_again_are_told_where_the_form_does_not_know_of_it():
    assert "images are seen up to 128 times" in notes(fit_parametric(repeated_runs(), samples=100))


def test_runs_with_nothing_to_tell_get_no_word_of_influence_or_convergence():
    found = notes(fit_parametric(grid_runs(noise=0.003), samples=100))
    assert "converge" not in found and "carr" not in found and "starts" not in found
