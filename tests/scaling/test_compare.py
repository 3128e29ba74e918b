"""Two families at equal compute: known ratios are found, equal families are equal, nothing is said beyond the data."""

import dataclasses
import json
import math

import numpy as np
import pytest

from nfnet_eqx import InputError
from nfnet_eqx.scaling import Parametric, Point, compare

LAW = Parametric(E=0.4, A=8.0, alpha=0.25, B=60.0, beta=0.35)
EPOCHS = tuple(2.0**n for n in range(-2, 4))
SIZES = tuple(np.geomspace(1e4, 3e6, 5))
IMAGES = 50_000


def runs(
    family: str,
    *,
    sizes: tuple[float, ...] = SIZES,
    epochs: tuple[float, ...] = EPOCHS,
    noise: float = 0.01,
    seed: int = 0,
    compute: float = 1.0,
    law: Parametric = LAW,
) -> list[Point]:
    """A sweep of models x budgets x three learning rates, as a law and noise have it."""
    random = np.random.default_rng(seed)
    points = []
    for size in sizes:
        for passes in epochs:
            best = np.clip(0.2 * np.log2(passes) - 0.3 * np.log10(size / 1e5), -1, 1)
            for step in (-1, 0, 1):
                loss = law.loss(size, passes * IMAGES) * (1 + 0.01 * (step + best) ** 2)
                flops = 24 * size * passes * IMAGES * compute
                points.append(
                    Point(
                        run=f"{family}-{size}-{passes}-{step}",
                        model=f"{family}-{size:.0f}",
                        family=family,
                        dataset="cifar10",
                        parameters=size,
                        images=passes * IMAGES,
                        epochs=passes,
                        flops=flops,
                        seconds=flops / 1e12,
                        learning_rate=0.4 * 2.0**step,
                        loss=float(loss * np.exp(noise * random.standard_normal())),
                    )
                )
    return points


def both(seed: int, **b) -> list[Point]:
    return [*runs("NFNet", seed=2 * seed), *runs("ViT", seed=2 * seed + 1, **b)]


@pytest.mark.parametrize("axis", ["flops", "seconds"])
def test_a_family_that_needs_half_the_compute_is_found_to(axis):
    found = compare(both(0, compute=2.0), "NFNet", "ViT", axis=axis)
    assert found.mean_ratio is not None and found.mean_gap is not None
    assert found.mean_ratio.value == pytest.approx(0.5, rel=0.1)
    assert found.mean_ratio.low < 0.5 < found.mean_ratio.high < 1
    assert found.mean_gap.high < 0
    assert found.verdict.startswith("NFNet is better than ViT: NFNet takes 0.")
    assert {"flops": "FLOPs", "seconds": "seconds"}[axis] in found.verdict
    turned = compare(both(0, compute=2.0), "ViT", "NFNet", axis=axis)
    assert turned.verdict.startswith("NFNet is better than ViT: ViT takes")


def test_without_noise_and_on_one_grid_the_ratio_is_exact_and_the_gap_is_that_of_the_law():
    points = [*runs("A", noise=0), *runs("B", noise=0, compute=4.0)]
    found = compare(points, "A", "B")
    assert [place.estimate.value for place in found.ratio] == pytest.approx([0.25] * len(found.ratio), rel=1e-9)
    law = found.a.law
    expected = [law.loss(place.x) - law.loss(place.x / 4) for place in found.gap]
    assert [place.estimate.value for place in found.gap] == pytest.approx(expected, rel=1e-6)
    # As the best sizes of the true law have it, up to the steps of five sizes.
    sizes = np.geomspace(1e3, 1e8, 2000)
    middle = found.gap[len(found.gap) // 2].x
    truth = [min(LAW.loss(sizes, c / (24 * sizes))) for c in (middle, middle / 4)]
    assert found.gap[len(found.gap) // 2].estimate.value == pytest.approx(truth[0] - truth[1], rel=0.2)


def test_equal_families_on_unlike_grids_are_equal_in_ninety_of_a_hundred_seeds_or_more():
    held = {"gap": 0, "ratio": 0, "verdict": 0}
    for seed in range(100):
        random = np.random.default_rng(seed)
        first = tuple(np.geomspace(1e4, 3e6, 5) * 10 ** random.uniform(-0.15, 0.15, 5))
        second = tuple(np.geomspace(1e4, 3e6, 4) * 10 ** random.uniform(-0.15, 0.15, 4))
        points = [
            *runs("A", sizes=first, seed=2 * seed, noise=0.03),
            *runs("B", sizes=second, seed=2 * seed + 1, noise=0.03),
        ]
        found = compare(points, "A", "B", samples=200)
        assert found.mean_gap is not None and found.mean_ratio is not None
        held["gap"] += found.mean_gap.low <= 0 <= found.mean_gap.high
        held["ratio"] += found.mean_ratio.low <= 1 <= found.mean_ratio.high
        held["verdict"] += found.verdict.startswith("No difference can be shown between A and B")
    assert 90 <= min(held.values()) and max(held.values()) <= 99


def test_twice_the_compute_is_told_from_none_in_most_seeds():
    better = sum(
        compare(both(seed, compute=2.0), "NFNet", "ViT", samples=200).verdict.startswith("NFNet is better")
        for seed in range(30)
    )
    assert better >= 27


def test_families_that_cross_are_told_to():
    steep = dataclasses.replace(LAW, A=40.0, alpha=0.37, B=400.0, beta=0.52)
    found = compare([*runs("A", noise=0.001), *runs("B", law=steep, noise=0.001)], "A", "B")
    assert found.verdict.startswith("Neither family is better throughout: at ")
    assert "below that of B" in found.verdict and "above that of B" in found.verdict


def test_a_difference_that_shows_in_one_way_alone_is_said_to():
    # With few epochs A saturates: the same at the losses that it reaches, and worse at the compute that it has.
    points = [*runs("A", seed=1, epochs=EPOCHS[:3]), *runs("B", seed=2, compute=1.5, noise=0.05)]
    found = compare(points, "A", "B", samples=300)
    assert found.verdict.startswith(
        "B is better than A at the same FLOPs, while at the same loss no difference can be shown"
    )


def test_the_ranges_end_where_the_data_of_either_family_does():
    points = [*runs("A"), *runs("B", sizes=SIZES[1:], epochs=EPOCHS[1:])]
    found = compare(points, "A", "B")
    for frontier in (found.a, found.b):
        compute = [point.flops or 0 for point in frontier.envelope]
        losses = [point.loss for point in frontier.envelope]
        assert compute == sorted(compute) and losses == sorted(losses, reverse=True)
        assert found.gap[0].x >= compute[0] * (1 - 1e-9) and found.gap[-1].x <= compute[-1] * (1 + 1e-9)
        assert frontier.curve[0].x == pytest.approx(compute[0]) and frontier.curve[-1].x == pytest.approx(compute[-1])
        assert len(frontier.tuned) == len({(point.model, point.epochs) for point in frontier.tuned})


def test_seeds_of_one_setting_are_averaged_so_that_the_luckiest_does_not_stand_for_it():
    def seeds(family: str, spread: float) -> list[Point]:
        return [
            dataclasses.replace(point, run=f"{point.run}-{s}", seed=s, loss=(point.loss or 0) * (1 + spread * s))
            for point in runs(family, noise=0)
            for s in (-1, 0, 1)
        ]

    found = compare([*seeds("A", 0.05), *seeds("B", 0.0)], "A", "B", samples=100)
    assert found.mean_gap is not None and found.mean_gap.value == pytest.approx(0, abs=1e-9)


def test_rows_of_one_run_are_drawn_together_and_unnamed_models_are_not_mixed():
    def bare(points: list[Point]) -> list[Point]:
        return [dataclasses.replace(p, model="", learning_rate=None) for p in points if p.learning_rate == 0.4]

    whole = [*bare(runs("A")), *bare(runs("B"))]
    apart = compare(whole, "A", "B", samples=300)
    assert len(apart.a.tuned) == len(SIZES) * len(EPOCHS)
    together = compare([dataclasses.replace(p, run=f"{p.family}{p.images}") for p in whole], "A", "B", samples=300)
    assert together.mean_gap is not None and apart.mean_gap is not None
    assert together.mean_gap.value == apart.mean_gap.value
    assert together.mean_gap.low != apart.mean_gap.low


def test_families_with_compute_in_common_and_no_loss_have_a_gap_and_no_ratio():
    worse = dataclasses.replace(LAW, E=30.0)
    found = compare([*runs("A"), *runs("B", law=worse)], "A", "B", samples=100)
    assert found.ratio == () and found.mean_ratio is None
    assert found.mean_gap is not None and found.mean_gap.high < -25
    assert found.verdict.startswith("A is better than B: the loss of A at the same FLOPs is 29")
    assert "they reach no loss in common" in found.verdict


def test_families_with_losses_in_common_and_no_compute_have_a_ratio_and_no_gap():
    found = compare([*runs("A"), *runs("B", compute=1e9)], "A", "B", samples=100)
    assert found.gap == () and found.mean_gap is None
    assert found.mean_ratio is not None and found.mean_ratio.high < 1e-8
    assert "at no compute do both have data" in found.verdict


def test_families_with_nothing_in_common_are_refused_in_words():
    points = [*runs("A"), *runs("B", compute=1e9, law=dataclasses.replace(LAW, E=30.0))]
    with pytest.raises(InputError, match="A and B have neither compute nor loss in common.*without extrapolation"):
        compare(points, "A", "B")


def test_everything_that_is_wrong_is_named_at_once():
    points = [*runs("A"), *(dataclasses.replace(point, dataset="digits", loss=None) for point in runs("B"))]
    with pytest.raises(InputError) as error:
        compare(points, "B", "Vit", level=2, samples=3)
    for part in ("'Vit'; there are 'A', 'B'", "B: no run has ended with a loss", "level (=2)", "samples (=3)"):
        assert part in str(error.value)
    with pytest.raises(InputError, match="different data .cifar10, digits."):
        compare([*runs("A"), *(dataclasses.replace(point, dataset="digits") for point in runs("B"))], "A", "B")
    with pytest.raises(InputError, match="both 'A'"):
        compare(runs("A"), "A", "A")
    with pytest.raises(
        InputError, match="B: 1 of 3 runs are on the lower envelope, and a power law needs 3; train more"
    ):
        compare([*runs("A"), *runs("B", sizes=(1e5,), epochs=(1.0,))], "A", "B")


def test_the_notes_tell_of_lost_runs_of_edges_and_of_an_unequal_search():
    first = [point for point in runs("A") if point.learning_rate == 0.4]
    second = [
        dataclasses.replace(point, status="diverged", loss=None) if point.learning_rate == 0.8 else point
        for point in runs("B")
    ]
    notes = " | ".join(compare([*first, *second], "A", "B", axis="seconds").notes)
    assert "B: 30 of 90 runs diverged or failed" in notes
    # 0.8 was tried as well: the best is at the edge where it is the lowest, and nowhere else.
    losses = {(p.model, p.images, p.learning_rate): p.loss for p in second if p.loss is not None}
    lowest = sum(losses[m, d, 0.2] < losses[m, d, 0.4] for m, d, rate in losses if rate == 0.2)
    assert f"B: for {lowest} of 30 pairs of model and budget the best learning rate is at the edge" in notes
    assert "learning rates a model and budget were 1 for A and 3 for B" in notes
    assert "same machine" in notes


def test_the_json_has_every_number_and_no_infinity():
    found = compare(both(0), "NFNet", "ViT", samples=100)
    assert found.mean_ratio is not None
    text = json.dumps(found.to_json(), allow_nan=False)
    back = json.loads(text)
    assert back["mean_ratio"] == found.mean_ratio._asdict()
    assert back["a"]["law"] == dataclasses.asdict(found.a.law)
    assert len(back["gap"]) == len(found.gap) and back["gap"][3]["estimate"]["low"] == found.gap[3].estimate.low
    endless = dataclasses.replace(found, mean_ratio=found.mean_ratio._replace(high=math.inf))
    assert endless.to_json()["mean_ratio"]["high"] is None
