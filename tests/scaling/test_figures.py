"""Figures of known laws: what they show, what they refuse, and that they leave matplotlib as it was."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.cli.scaling import scaling
from nfnet_eqx.scaling import (
    Parametric,
    Point,
    compare,
    fit_parametric,
    fit_power_law,
    plot_compare,
    plot_finetune,
    plot_isoflop,
    plot_learning_rates,
    plot_loss,
)
from nfnet_eqx.scaling._drawing import log_ticks, number

LAW = Parametric(E=0.5, A=60.0, alpha=0.4, B=30.0, beta=0.35)
RATES = (0.2, 0.4, 0.8, 1.6)


def study(families: tuple[str, ...] = ("NFNet", "ViT"), sizes: int = 4, seeds: int = 2) -> list[Point]:
    """Sizes x budgets x learning rates x seeds; the best rate falls with the budget, the highest of some diverges."""
    generator, points = np.random.default_rng(0), []
    for i, family in enumerate(families):
        for j, parameters in enumerate(2e4 * 4.0 ** np.arange(sizes)):
            for k, epochs in enumerate((0.25, 0.5, 1.0, 2.0, 4.0, 8.0)):
                images = 50_000 * epochs
                for rate in RATES:
                    off = np.log2(rate) - (0.6 - 0.3 * k - 0.15 * j)
                    for seed in range(seeds):
                        loss = LAW.loss(parameters, images) * (1 + 0.02 * off**2 + 0.05 * i)
                        points.append(
                            Point(
                                run=f"{family}{j}-{epochs}-{rate}-{seed}",
                                model=f"{family.lower()}_{j}",
                                family=family,
                                dataset="synthetic",
                                parameters=float(parameters),
                                images=images,
                                epochs=epochs,
                                flops=float(6 * images * parameters * (1 + i) ** 0.3),
                                learning_rate=rate,
                                seed=seed,
                                loss=float(loss * np.exp(0.01 * generator.normal())),
                                top1=float(100 - 8 * loss),
                            )
                        )
                        if j == sizes - 1 and rate == 1.6 and epochs >= 4:
                            points[-1] = dataclasses.replace(points[-1], loss=None, top1=None, status="diverged")
    return points


STUDY = study()


def svg(file: Path) -> str:
    """The words of an SVG."""
    return " ".join(re.findall(r">([^<]+)<", file.read_text()))


@pytest.fixture(scope="module")
def laws() -> list:
    return [fit_power_law(STUDY, family=family, samples=100) for family in ("NFNet", "ViT")]


def test_loss_shows_models_envelope_laws_with_intervals_and_diverged_runs(laws: list, tmp_path: Path):
    plot_loss(STUDY, tmp_path / "loss.svg", fits=laws)
    words = svg(tmp_path / "loss.svg")
    for word in (
        "nfnet_0",
        "vit_3",
        "lower envelope",
        "NFNet: L =",
        "ViT: L =",
        "Training compute, FLOPs",
        "nats",
        "diverged",
    ):
        assert word in words, word


def test_png_and_svg_are_the_same_bytes_again_and_nothing_of_matplotlib_is_changed(tmp_path: Path):
    # dict.items: its own way to look up the setting "backend" would itself load pyplot.
    before = list(dict.items(matplotlib.rcParams))
    for kind in ("png", "svg"):
        for name in ("a", "b"):
            plot_loss(STUDY, tmp_path / f"{name}.{kind}")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert list(dict.items(matplotlib.rcParams)) == before
    assert "matplotlib.pyplot" not in sys.modules
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000


def test_models_of_two_families_differ_in_greyscale(tmp_path: Path):
    from nfnet_eqx.scaling._drawing import model_styles

    styles = model_styles(STUDY)
    assert len({(style.marker, str(style.line), style.filled) for style in styles.values()}) == len(styles) == 8
    luminance = [np.dot(style.color[:3], (0.299, 0.587, 0.114)) for style in list(styles.values())[:4]]
    assert all(np.diff(luminance) < -0.08), "from the smallest to the largest they get darker"


def test_learning_rates_show_the_edge_of_what_was_tried(tmp_path: Path):
    plot_learning_rates(STUDY, tmp_path / "rates.svg")
    words = svg(tmp_path / "rates.svg")
    for word in ("at the edge of those tried", "diverged", "0.25", "1.6", "Epochs", "lowest and highest tried"):
        assert word in words, word


def test_finetune_shows_errors_and_leaves_out_rows_without_accuracy(tmp_path: Path):
    rows = [p for p in STUDY if p.learning_rate == 0.4 and p.seed == 0]
    rows[0] = dataclasses.replace(rows[0], top1=None)
    plot_finetune(rows, tmp_path / "error.svg")
    assert "Top-1 error, %" in svg(tmp_path / "error.svg")


def test_isoflop_shows_budgets_and_optima(tmp_path: Path):
    fit = fit_parametric(STUDY, family="NFNet", samples=100)
    plot_isoflop(fit, tmp_path / "isoflop.svg")
    words = svg(tmp_path / "isoflop.svg")
    assert "optimum, 95 % interval" in words and "FLOPs" in words and "Parameters" in words


def test_a_comparison_shows_both_frontiers_the_gap_and_the_ratio(tmp_path: Path):
    plot_compare(compare(STUDY, "NFNet", "ViT", samples=100), tmp_path / "compare.svg")
    words = svg(tmp_path / "compare.svg")
    for word in ("NFNet: law and interval", "ViT: best of each", "Loss of NFNet less", "Compute of NFNet / compute"):
        assert word in words, word


@pytest.mark.parametrize(
    "points",
    [
        [p for p in STUDY if p.model == "nfnet_0"],
        [p for p in STUDY if p.epochs == 1],
        [Point(run="one", flops=1e15, loss=2.0)],
        [dataclasses.replace(p, model="", family="", parameters=None, learning_rate=None) for p in STUDY],
        [dataclasses.replace(p, model=f"$\\frac{p.model}") for p in STUDY],
    ],
    ids=["one model", "one budget", "one point", "compute and loss alone", "names that look like mathematics"],
)
def test_few_and_awkward_results_are_drawn(points: list[Point], tmp_path: Path):
    plot_loss(points, tmp_path / "loss.png")
    plot_loss(points, tmp_path / "loss.svg")


def test_what_cannot_be_drawn_is_refused_in_words(laws: list, tmp_path: Path):
    bare = [Point(run="a", flops=1e15, loss=2.0)]
    mixed = [*bare, dataclasses.replace(bare[0], dataset="a"), dataclasses.replace(bare[0], dataset="b")]
    lost = [Point(run="a", flops=1e15, status="diverged")]
    for draw, match in (
        (lambda: plot_loss(bare, tmp_path / "a.pdf"), "png or an .svg"),
        (lambda: plot_loss(bare, tmp_path / "no" / "a.png"), "folder does not exist"),
        (lambda: plot_loss(lost, tmp_path / "a.png"), "nothing to draw"),
        (lambda: plot_loss(mixed, tmp_path / "a.png"), "different data"),
        (lambda: plot_learning_rates(bare, tmp_path / "a.png"), "more than one learning rate"),
        (lambda: plot_finetune(bare, tmp_path / "a.png"), "top-1"),
        (lambda: plot_isoflop(laws[0], tmp_path / "a.png"), "--form parametric"),
    ):
        with pytest.raises(InputError, match=match):
            draw()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("low", "high"), [(2.35, 3.05), (0.9, 1.1), (11.0, 13.9), (1e12, 1e21), (3e14, 8e14), (0.2, 40.0), (4.99, 5.01)]
)
def test_a_logarithmic_axis_has_labelled_ticks_at_any_range(low: float, high: float):
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 9 and all(low <= tick <= high for tick in ticks)
    assert len({number(tick) for tick in ticks}) == len(ticks)


def test_the_command_draws_a_sweeps_results(tmp_path: Path):
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in STUDY))
    for what in ("loss", "learning-rate", "finetune"):
        scaling(["plot", str(results), "--what", what, "--save", str(tmp_path / f"{what}.svg")])
        assert "nfnet_0" in svg(tmp_path / f"{what}.svg")
    with pytest.raises(InputError, match="--form parametric"):
        scaling(["plot", str(results), "--what", "isoflop", "--save", str(tmp_path / "a.png")])


def test_the_command_draws_fine_tuned_error_of_any_table(tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("core_hours,accuracy\n400,86\n11000,89.5\n110000,90.3\n")
    arguments = ["plot", str(table), "--what", "finetune", "--compute", "core_hours", "--save", str(tmp_path / "a.svg")]
    scaling([*arguments, "--top1", "accuracy"])
    assert "10⁵" in svg(tmp_path / "a.svg")
    with pytest.raises(InputError, match="no column 'top1'; name it with --top1"):
        scaling(arguments)
