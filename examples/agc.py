"""AGC matters: section 4 of the NFNet paper (2102.06171) in small.

    make data                 # CIFAR-10
    python examples/agc.py    # draws examples/agc.png

One small NFNet (73,829 parameters), trained on CIFAR-10 for 120 steps of 256 pictures at four learning rates, with and
without adaptive gradient clipping; all else is the same. The largest rate, 1.6, is what the linear rule gives for the
paper's batch of 4096: the step size of a large batch, taken with a small one.

Measured (2 CPU cores beside other work, 10 minutes for the eight runs, one seed), top-1 on the 10,000 test pictures:

    rate    with AGC    without AGC
     0.1      31.8 %         34.7 %
     0.4      39.0 %         33.1 %
     0.8      43.5 %    not finite at step 16
     1.6      45.1 %    not finite at step 14

So AGC costs a little at a small rate, and makes the large ones possible, which are better here. lambda is the paper's
0.01; the floor of the parameter norm is 1, not its 0.001, under which the skip gains, 0 at the start, stay near it for
longer than these runs last. The settings were found by looking at test pictures, for one seed. A batch of 256
has noisier gradients than one of 4096: it is the step size that is alike.
"""

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import nfnet_eqx as nfx
from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Augment, open_source
from nfnet_eqx.train import OptimizerConfig, TrainConfig, read_metrics, train

NETWORK = nfx.NFNetConfig(
    depths=(1, 1, 1),
    widths=(32, 64, 128),
    stem_widths=(16,),
    stem_strides=(2,),
    stem_kernel=4,
    stage_strides=(1, 2, 2),
    group_size=16,
    gamma_in="activation",
    padding="same",
    skipinit=True,
    alpha=0.2,
    se_ratio=0.25,
    numerics="deepmind",
    num_classes=10,
)
SIZE = 32  # pixels
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
ARMS = {"with AGC": 0.01, "without AGC": None}
COLORS = {"with AGC": "#2563eb", "without AGC": "#dc2626"}
TEXT, MUTED, EDGE = "#111827", "#737c8a", "#dee3ea"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What is compared.

    Attributes:
        data: pictures of ten classes.
        picture: the PNG that is drawn.
        rates: peak learning rates.
        shown: the rate whose curves are drawn: 0.1 * 4096 / 256, the linear rule at the paper's batch.
        steps: of each run.
        batch_size: pictures in a step.
        seed: decides everything random.
    """

    data: Path = Path("data/cifar10")
    picture: Path = Path(__file__).with_suffix(".png")
    rates: tuple[float, ...] = (0.1, 0.4, 0.8, 1.6)
    shown: float = 1.6
    steps: int = 120
    batch_size: int = 256
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What became of one run.

    Attributes:
        losses: of its steps, as far as they are finite.
        top1: of the held-out pictures at its end, in percent; `None`: it diverged.
    """

    losses: list[float]
    top1: float | None


def main(experiment: Experiment) -> None:
    """Trains every arm at every rate, prints a table and draws the picture."""
    try:
        pictures = len(open_source(experiment.data, "train"))
    except InputError as error:
        sys.exit(f"{error}\n`make data` fetches CIFAR-10 (139 MB)")
    start, runs = time.perf_counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        for arm, clipping in ARMS.items():
            for rate in experiment.rates:
                out = Path(folder) / f"{arm} {rate}"
                runs[arm, rate] = run(configure(experiment, out, pictures, rate, clipping))
    draw(runs, experiment)
    print(f"{'rate':>6}" + "".join(f"{arm:>24}" for arm in ARMS))
    for rate in experiment.rates:
        print(f"{rate:6g}" + "".join(f"{describe(runs[arm, rate]):>24}" for arm in ARMS))
    print(f"{experiment.picture}: {time.perf_counter() - start:.0f} seconds")


def configure(experiment: Experiment, out: Path, pictures: int, rate: float, clipping: float | None) -> TrainConfig:
    """The settings of one run; the arms differ in `clipping` alone."""
    return TrainConfig(
        model=NETWORK,
        data=experiment.data,
        out=out,
        image_size=SIZE,
        eval_size=SIZE,
        preprocess=nfx.Preprocess(crop_pct=1.0, crop_mode="squash", mean=MEAN, std=STD),
        epochs=experiment.steps * experiment.batch_size / pictures,
        batch_size=experiment.batch_size,
        augment=Augment(crop="padded", crop_padding=4),
        optimizer=OptimizerConfig(
            learning_rate=rate * 256 / experiment.batch_size,  # undoes the linear rule: `rate` is what is taken
            warmup=0.1,
            clipping=clipping,
            clipping_eps=1.0,
            ema_decay=None,
        ),
        precision="float32",
        seed=experiment.seed,
        eval_every_epochs=experiment.steps,
        log_every_steps=1,
        num_threads=2,
    )


def run(config: TrainConfig) -> Run:
    """Trains to the end, or until the loss is no longer finite."""
    try:
        result = train(config)
    except InputError as error:
        if not (config.out / "metrics.jsonl").exists():  # not one step: something else is wrong
            raise
        print(error, file=sys.stderr)
        return Run(losses=read_losses(config.out), top1=None)
    if result.evaluation is None:
        sys.exit("stopped")
    return Run(losses=read_losses(config.out), top1=result.evaluation.top1)


def read_losses(folder: Path) -> list[float]:
    """The training loss of each step."""
    return [record["loss"] for record in read_metrics(folder) if record["split"] == "train"]


def describe(run: Run) -> str:
    """A cell of the table."""
    return f"diverged at step {len(run.losses) + 1}" if run.top1 is None else f"{run.top1:.1f} % top-1"


def draw(runs: dict[tuple[str, float], Run], experiment: Experiment) -> None:
    """The training loss at one rate, and what every rate came to."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    top = 2 * runs[next(iter(ARMS)), experiment.shown].losses[0]
    for arm in ARMS:
        losses = runs[arm, experiment.shown].losses
        left.plot(range(1, len(losses) + 1), losses, color=COLORS[arm], linewidth=2, label=arm)
        if runs[arm, experiment.shown].top1 is None:
            gone = next((step for step, loss in enumerate(losses, 1) if loss > top), len(losses))
            text = f"not finite from step {len(losses) + 1} on"
            left.annotate(text, (gone, 0.95 * top), (8, 0), textcoords="offset points", color=COLORS[arm], va="center")
        trained = [(rate, run.top1) for rate in experiment.rates if (run := runs[arm, rate]).top1 is not None]
        if trained:
            right.plot(*zip(*trained, strict=True), "-o", color=COLORS[arm], linewidth=2, label=arm)
        for rate in experiment.rates:
            if runs[arm, rate].top1 is None:
                right.plot(rate, 2, "x", color=COLORS[arm], markersize=9, markeredgewidth=2.5)
                right.annotate("diverged", (rate, 4), ha="center", color=COLORS[arm])
    left.set_ylim(0, top)
    style(left, f"Training loss at learning rate {experiment.shown:g}", "step")
    left.legend(loc="lower left", frameon=False, labelcolor=TEXT)
    right.set_xscale("log")
    right.set_xticks(experiment.rates, [f"{rate:g}" for rate in experiment.rates], minor=False)
    right.set_xticks([], minor=True)
    right.set_ylim(bottom=0)
    style(right, f"Top-1 on the test pictures after {experiment.steps} steps, %", "peak learning rate")
    figure.savefig(experiment.picture, dpi=120)


def style(axes: Axes, title: str, xlabel: str) -> None:
    """Quiet axes: the lines are what is looked at."""
    axes.set_title(title, loc="left", color=TEXT, fontsize=11)
    axes.set_xlabel(xlabel, color=MUTED)
    axes.tick_params(colors=MUTED, length=0)
    axes.grid(axis="y", color=EDGE)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(EDGE)


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
