"""Plans: the paper's anchors are met, the best of one's own fit is chosen, and what is not known is said."""

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nfnet_eqx import InputError
from nfnet_eqx.models import DEVICES, count, flops, get_config
from nfnet_eqx.scaling import Fit, Law, Parametric, Point, PowerLaw, Repeated, fit_parametric, plan

LAW = Parametric(E=0.4, A=8.0, alpha=0.25, B=60.0, beta=0.35)
SIZES = {"s": 1e4, "m": 1e5, "l": 1e6, "xl": 1e7}
IMAGES = 50_000


def fitted(law: Law, samples: tuple[Law, ...] = (), points: tuple[Point, ...] = (), notes: tuple[str, ...] = ()) -> Fit:
    """A fit of which there is only what a plan looks at."""
    fit = object.__new__(Fit)
    for name, value in {"law": law, "samples": samples, "points": points, "notes": notes}.items():
        object.__setattr__(fit, name, value)
    return fit


def runs(epochs: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0), family: str = "NFNet") -> tuple[Point, ...]:
    """A sweep whose FLOPs are exactly 24 N D, and whose best rate halves with each fourfold budget and tenfold size."""
    points = []
    for name, size in SIZES.items():
        for passes in epochs:
            best = round(-0.5 * math.log2(passes) - math.log10(size / 1e4))
            points += [
                Point(
                    run=f"{name}-{passes}-{step}",
                    model=name,
                    family=family,
                    dataset="cifar10",
                    parameters=size,
                    images=passes * IMAGES,
                    epochs=passes,
                    flops=24 * size * passes * IMAGES,
                    learning_rate=2.0**step,
                    loss=float(LAW.loss(size, passes * IMAGES)) + 0.1 * (step - best) ** 2,
                )
                for step in range(-6, 2)
            ]
    return tuple(points)


def test_the_papers_largest_budget_is_its_largest_network_for_eight_epochs():
    made = plan("110000 tpu-v4-core-hours")
    assert made.chosen.model == "dm_nfnet_f7_plus"
    assert made.chosen.epochs == pytest.approx(8, rel=0.002)
    assert made.learning_rates == (0.025, 0.05)  # at batch 4096 the paper's lowest, 0.4, and above it
    assert made.extrapolated == ()
    assert "2310.16764" in made.source


def test_the_papers_smallest_budget_is_its_smallest_network_for_a_part_of_an_epoch_at_the_linear_rule():
    made = plan("400 tpu-v4-core-hours")
    assert made.chosen.model == "dm_nfnet_f0"
    assert 0.2 < made.chosen.epochs < 0.4
    assert made.learning_rates[0] == 0.1  # 1.6 at batch 4096
    assert not any("budget" in word for word in made.extrapolated)


@pytest.mark.parametrize("hours", [5_000, 10_000, 30_000])
def test_above_five_thousand_core_hours_more_than_one_epoch_is_best(hours: int):
    made = plan(f"{hours} tpu-v4-core-hours")
    assert 1 < made.chosen.epochs < 8
    assert made.optimum.images.value > 4e9


def test_size_and_epochs_grow_at_the_same_rate():
    small, large = plan("1e20").optimum, plan("1e22").optimum
    assert large.parameters.value / small.parameters.value == pytest.approx(10)
    assert large.images.value / small.images.value == pytest.approx(10)


def test_rates_fall_with_the_budget_and_stay_in_the_papers_range():
    rates = [plan(f"{hours} tpu-v4-core-hours").learning_rates for hours in (400, 2_000, 10_000, 40_000, 110_000)]
    assert rates == sorted(rates, key=lambda pair: -pair[0])
    assert all(0.4 <= 16 * rate <= 1.6 for pair in rates for rate in pair)
    assert all(max(pair) == 2 * min(pair) for pair in rates)


@pytest.mark.parametrize("budget", ["3e20", "64 H100-hours", "2 rtx-4090-days"])
def test_every_candidate_costs_exactly_the_budget(budget: str):
    made = plan(budget, price_per_hour=2.5)
    assert made.chosen in made.candidates
    for candidate in made.candidates:
        network = get_config(candidate.model)
        assert candidate.parameters == count(network, 224).parameters
        assert candidate.epochs * 4e9 * flops(network, 224) == pytest.approx(made.budget.flops, rel=1e-12)
    device = DEVICES[made.budget.device]
    assert made.budget.flops == pytest.approx(3600 * made.budget.hours * device.peak_flops * made.budget.utilisation)
    assert made.price == pytest.approx(2.5 * made.budget.hours)


def test_what_the_paper_does_not_cover_is_said():
    words = " | ".join(plan("1e18", images=1.28e6, image_size=288, models="dm_nfnet_f2").extrapolated)
    for part in (
        "the budget, 1e+18",
        "the size:",
        "the network, dm_nfnet_f2",
        "1,280,000 images are",
        "image size, 288",
    ):
        assert part in words
    assert "passed over" in " ".join(plan("1e21", images=1.28e6).extrapolated)
    assert "1e+23" in " ".join(plan("1e23").extrapolated)
    words = " | ".join(plan("1e21").derived)
    for part in ("no formula", "interpolated", "a utilisation of 0.2: assumed"):
        assert part in words
    assert "a utilisation" not in " ".join(plan("1e21", utilisation=0.3).derived[1:])


def test_the_command_is_one_that_train_understands():
    from nfnet_eqx.train import TrainConfig

    made = plan("5000 tpu-v4-core-hours")
    assert made.command is not None
    words = shlex.split(made.command)
    assert words[:2] == ["nfnet-eqx", "train"]
    config = parsed(words[2:])
    assert isinstance(config, TrainConfig)
    assert (config.model, config.image_size, config.eval_size, config.batch_size) == ("dm_nfnet_f1", 224, 256, 4096)
    assert config.epochs == pytest.approx(made.chosen.epochs, rel=1e-3)
    assert config.optimizer.learning_rate * config.batch_size / 256 == pytest.approx(0.8)


def parsed(arguments: list[str]) -> Any:
    """What `nfnet-eqx train` makes of its arguments, without training."""
    import importlib

    import nfnet_eqx.cli  # noqa: F401

    command = importlib.import_module("nfnet_eqx.cli.train")
    found: list[Any] = []

    class Stop(Exception):
        pass

    def run(config: Any, **_: Any) -> None:
        found.append(config)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run", run)
        with pytest.raises(Stop):
            command.train(arguments)
    return found[0]


@pytest.mark.parametrize("budget", [24 * 1e4 * 6e4, 24 * 1e5 * 2e5, 24 * 1e6 * 4e5])
def test_of_a_fit_the_lowest_loss_at_equal_compute_is_chosen_and_the_optimum_is_the_closed_forms(budget: float):
    made = plan(f"{budget}", fit=fitted(LAW, points=runs()))
    compute = budget / 24
    best = (LAW.alpha * LAW.A / (LAW.beta * LAW.B)) ** (1 / (LAW.alpha + LAW.beta)) * compute ** (
        LAW.beta / (LAW.alpha + LAW.beta)
    )
    assert made.optimum.parameters.value == pytest.approx(best, rel=1e-3)
    assert made.optimum.images.value == pytest.approx(compute / best, rel=1e-3)
    losses = {name: float(LAW.loss(size, compute / size)) for name, size in SIZES.items()}
    assert made.chosen.model == min(losses, key=losses.__getitem__)
    assert made.chosen.loss is not None
    assert made.chosen.loss.value == pytest.approx(losses[made.chosen.model], rel=1e-12)
    assert made.command is None  # "s" to "xl" are no architectures of the table
    assert made.data_images == IMAGES


def test_the_bootstrap_says_how_often_each_network_is_the_best():
    random = np.random.default_rng(0)
    samples = tuple(dataclasses.replace(LAW, A=LAW.A * factor) for factor in np.exp(0.3 * random.standard_normal(200)))
    made = plan(f"{24 * 3e5 * 1e5}", fit=fitted(LAW, samples, runs()))
    shares = {candidate.model: candidate.best_in for candidate in made.candidates}
    assert sum(share or 0 for share in shares.values()) == pytest.approx(1)
    assert 0.5 < (made.chosen.best_in or 0) <= 1
    assert made.chosen.loss is not None
    assert made.chosen.loss.low < made.chosen.loss.value < made.chosen.loss.high
    assert made.optimum.parameters.low < made.optimum.parameters.value < made.optimum.parameters.high


def test_the_rate_follows_the_best_ones_of_the_results():
    made = plan(f"{24 * 1e6 * 16 * IMAGES}", fit=fitted(LAW, points=runs()), results=runs(), models=None)
    wanted = -0.5 * math.log2(made.chosen.epochs) - math.log10(made.chosen.parameters / 1e4)
    assert abs(math.log2(made.learning_rates[0]) - wanted) < 0.8
    assert len(made.learning_rates) == 2
    nothing = tuple(dataclasses.replace(point, learning_rate=None) for point in runs())
    assert plan("1e12", fit=fitted(LAW, points=nothing)).learning_rates == ()


def test_an_epoch_passes_over_the_images_of_the_data_though_runs_have_whole_steps():
    stepped = tuple(dataclasses.replace(point, images=(point.images or 0) * 1.02) for point in runs((0.25,)))
    whole = tuple(dataclasses.replace(point, images=200_704.0, unique_images=50_000.0) for point in runs((4.0,)))
    assert plan("1e12", fit=fitted(LAW, points=(*stepped, *whole))).data_images == 50_000


def test_results_of_another_family_do_not_take_part():
    others = tuple(dataclasses.replace(point, model=f"vit-{point.model}") for point in runs(family="ViT"))
    made = plan("1e12", fit=fitted(LAW, points=runs()), results=(*runs(), *others))
    assert all(not candidate.model.startswith("vit") for candidate in made.candidates)


def test_a_run_that_diverged_does_not_say_how_many_images_there_are():
    lost = dataclasses.replace(runs()[0], run="lost", images=1_280.0, loss=None, status="diverged")
    made = plan("1e12", fit=fitted(LAW, points=runs()), results=(*runs(), lost))
    assert made.data_images == IMAGES


def test_what_the_fit_says_of_its_data_is_said_of_its_plan():
    assert plan("1e12", fit=fitted(LAW, points=runs(), notes=("too few budgets",))).notes == ("too few budgets",)


def test_repeated_data_makes_a_long_run_of_a_large_network_worse():
    law = Repeated(**dataclasses.asdict(LAW), G=0.01, gamma=0.8, delta=0.5)
    few, many = (plan("1e14", fit=fitted(law, points=runs()), images=images) for images in (5e3, 5e7))
    assert few.chosen.parameters < many.chosen.parameters
    assert few.chosen.loss is not None and many.chosen.loss is not None
    assert few.chosen.loss.value > many.chosen.loss.value


def test_where_a_fit_is_extrapolated_is_said():
    words = " | ".join(plan("1e17", fit=fitted(LAW, points=runs()), results=runs()).extrapolated)
    assert "1e+17 FLOPs: the results have 1.2e+10 to 9.6e+13" in words
    assert "takes every image as new" in words
    assert "epochs: the results have 1 to 8" in words
    assert "the learning rate: 0.015625 is at the edge of those tried" in words
    falls = fitted(dataclasses.replace(LAW, B=1e-9), points=runs())
    assert "has no optimum" in " ".join(plan("1e12", fit=falls).extrapolated)
    small = plan(f"{24 * 1e4 * 4e4}", fit=fitted(LAW, points=runs((0.5, 1.0)))).extrapolated
    assert len(small) == 1 and small[0].startswith("the size: ") and "the networks have 1e+04 to 1e+07" in small[0]
    inside = fitted(dataclasses.replace(LAW, A=80.0), points=runs((0.5, 1.0)))
    assert plan(f"{24 * 1e5 * 4e4}", fit=inside).extrapolated == ()


def test_a_fit_without_networks_plans_with_those_of_the_table():
    bare = tuple(Point(run=str(n), flops=1e18 * n, loss=2.0) for n in range(1, 5))
    made = plan("1e20", fit=fitted(LAW, points=bare), images=1e6, models="nf_resnet*", image_size=160)
    assert made.chosen.model.startswith("nf_resnet")
    assert made.command is not None and "--image-size 160 --eval-size 160" in made.command


def test_everything_that_is_wrong_is_named_at_once():
    with pytest.raises(InputError) as error:
        plan("0", models="no*", images=0, price_per_hour=-1, recipe="pizza", device="abacus", utilisation=7)
    for part in (
        "budget '0'",
        "'no*'",
        "images (=0)",
        "price_per_hour (=-1)",
        "'pizza'",
        "'abacus'",
        "utilisation (=7)",
    ):
        assert part in str(error.value)
    with pytest.raises(
        InputError, match="budget '1e9': buys .* images of dm_nfnet_f0, and one step takes 4096; plan for"
    ):
        plan("1e9")
    with pytest.raises(InputError, match="a power law of compute knows no sizes"):
        plan("1e21", fit=fitted(PowerLaw(E=0, a=1, b=0.1), points=runs()))
    with pytest.raises(InputError, match="results: they go with a fit"):
        plan("1e21", results=runs())
    with pytest.raises(InputError, match="images is needed, how many your data has: the fit does not say it"):
        plan("1e21", fit=fitted(LAW, points=(Point(run="1", flops=1.0, loss=1.0),)))
    short = dataclasses.replace(runs()[0], images=1000.0, epochs=1.0)
    with pytest.raises(InputError, match="images is needed.*the fit's runs passed over 1,000 to 50,000"):
        plan("1e12", fit=fitted(LAW, points=(*runs(), short)))
    with pytest.raises(InputError, match="different data .cifar10, digits."):
        plan("1e12", fit=fitted(LAW, points=(*runs(), dataclasses.replace(runs()[0], dataset="digits"))))
    with pytest.raises(InputError, match="no finished run of the fit's family"):
        plan("1e12", fit=fitted(LAW, points=runs()), results=runs(family="ViT"))
    with pytest.raises(InputError, match="image_size .=64.: the fit's runs state the FLOPs of their own images"):
        plan("1e12", fit=fitted(LAW, points=runs()), image_size=64)


def test_the_json_is_complete_and_unrounded():
    made = plan("1e12", fit=fitted(LAW, (LAW,), runs()), price_per_hour=1.0)
    back = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert back["chosen"]["epochs"] == made.chosen.epochs
    assert back["chosen"]["loss"]["value"] == made.chosen.loss.value  # pyright: ignore[reportOptionalMemberAccess]
    assert back["budget"]["hours"] == made.budget.hours and back["price"] == made.price
    assert back["optimum"]["parameters"]["value"] == made.optimum.parameters.value


def test_plan_in_words(capsys: pytest.CaptureFixture[str]):
    from nfnet_eqx.cli import main

    assert main(["scaling", "plan", "--budget", "5000 TPU-v4-core-hours", "--price-per-hour", "2"]) == 0
    text = capsys.readouterr().out
    assert "8.79e+20 FLOPs, 5,000 hours of one TPU-v4 core at a utilisation of 0.355: 10,000.00" in text
    assert text.rstrip().endswith(plan("5000 tpu-v4-core-hours").command or "?")
    assert sum(line.startswith(">") for line in text.splitlines()) == 1
    for part in ("source ", "2310.16764", "ours ", "at 4096: 0.8 and 0.4"):
        assert part in text
    assert main(["scaling", "plan", "--budget", "1e21", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chosen"]["model"] == "dm_nfnet_f3"


def test_plan_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from nfnet_eqx.cli import main

    rows = tmp_path / "results.jsonl"
    rows.write_text("".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in runs()))
    noise = iter(np.random.default_rng(0).normal(0, 0.01, len(runs())))
    noisy = [dataclasses.replace(p, loss=(p.loss or 0) * math.exp(next(noise))) for p in runs()]
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(fit_parametric(noisy, samples=100).to_json()))
    arguments = ["scaling", "plan", "--budget", f"{24 * 1e5 * 2e5}", "--fit", str(saved), "--results", str(rows)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert (
        "a fit of the form Parametric with 100 samples" in text
        and "best in" in text
        and "50,000 images an epoch" in text
    )
    assert "no architecture of nfnet-eqx list" in text and "learning_rates = [" in text
    (tmp_path / "fit.json").write_text("{}")
    assert main(["scaling", "plan", "--budget", "1e12", "--fit", str(tmp_path / "fit.json")]) == 2
    line = capsys.readouterr().err
    assert str(tmp_path / "fit.json") in line and len(line.splitlines()) == 1
    assert main(["scaling", "plan", "--budget", "1e12", "--fit", str(tmp_path / "none.json")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["scaling", "plan", "--budget", "1e12", "--results", str(rows)]) == 2
    assert "they go with a fit" in capsys.readouterr().err
