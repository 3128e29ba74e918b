"""The figures of 2310.16764 from any results, and isoFLOP curves: loss at equal compute."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling._drawing import (
    FAULT,
    MUTED,
    TEXT,
    binary_axis,
    check_file,
    legend,
    log_axis,
    model_styles,
    new_figure,
    number,
    panel,
    save,
    short,
)
from nfnet_eqx.scaling._envelope import envelope
from nfnet_eqx.scaling._fit import Fit
from nfnet_eqx.scaling._laws import Law, Parametric, PowerLaw, Repeated
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._search import searched
from nfnet_eqx.scaling._select import Settings, settings

_BAND = "#c3cad4"
_COMPUTE = "Training compute, FLOPs"
_BUDGETS = 6  # of the isoFLOP view
_PLACES = 240  # of a curve


def plot_loss(points: Sequence[Point], file: str | Path, *, fits: Sequence[Fit] = ()) -> None:
    """Draw held-out loss against training compute by model, the lower envelope, and its power law with its interval.

    Of each model and budget the best learning rate is drawn, with a bar from the best to the worst of its seeds.

    Args:
        points: results of one family or several; rows that are no run's last are left out.
        file: a PNG or an SVG, replaced as a whole.
        fits: power laws, at most one for each family.

    Raises:
        InputError: there is nothing to draw, or the file is neither.
    """
    file = Path(file)
    check_file(file)
    _check_dataset(points)
    ended = [p for p in points if p.final and p.status == "done" and p.flops is not None and p.loss is not None]
    if not ended:
        raise InputError(f"{file}: no row has both FLOPs and a loss at the end of a run, so there is nothing to draw")
    cells = settings(ended)
    figure = new_figure(9, 5)
    axes = figure.subplots()
    panel(axes, _COMPUTE, "Held-out loss, nats")
    ends = _spread(cells, axes)
    _by_model(axes, cells.points, [point.loss or 0.0 for point in cells.points])
    for i, family in enumerate(dict.fromkeys(point.family for point in cells.points)):
        front = envelope([point for point in cells.points if point.family == family])
        x, y = [point.flops or 0.0 for point in front], [point.loss or 0.0 for point in front]
        axes.plot(x, y, "o", ms=11, mfc="none", mec=TEXT, mew=0.9, zorder=2, label="" if i else "lower envelope")
    for i, fit in enumerate(fits):
        ends = [*ends, *_draw_law(axes, fit, i)]
    _diverged(axes, [p.flops for p in points if p.status == "diverged" and p.flops is not None])
    log_axis(axes.xaxis, [point.flops or 0.0 for point in [*cells.points, *_lost(points)]])
    log_axis(axes.yaxis, ends)
    legend(figure, [axes])
    save(figure, file)


def plot_learning_rates(points: Sequence[Point], file: str | Path) -> None:
    """Draw the best learning rate against the epoch budget by model, and which are at the edge of what was tried.

    Args:
        points: results with learning rates and epochs; a model and budget with a single rate says nothing.
        file: a PNG or an SVG, replaced as a whole.

    Raises:
        InputError: no learning rate was chosen among several, or the file is neither.
    """
    file = Path(file)
    check_file(file)
    _check_dataset(points)
    told = [p for p in points if p.final and p.learning_rate is not None and p.epochs is not None]
    found = searched(told)
    chosen = sorted(found.chosen, key=lambda point: point.epochs or 0.0)
    if not chosen:
        raise InputError(
            f"{file}: no model and epoch budget has more than one learning rate, so none was chosen; "
            "the rows need learning_rate and epochs"
        )
    figure = new_figure(8.5, 4.5)
    axes = figure.subplots()
    panel(axes, "Epochs", "Best learning rate")
    # Models often agree: each stands a little beside the other.
    styles = model_styles(chosen)
    shift = {key: 1 + 0.035 * (i - (len(styles) - 1) / 2) for i, key in enumerate(styles)}
    for key, style in styles.items():
        own = [point for point in chosen if (point.family, point.model) == key]
        x = [shift[key] * (point.epochs or 0.0) for point in own]
        style.draw(axes, x, [point.learning_rate or 0.0 for point in own], _name(*key, styles))
    if found.edge:
        x = [shift[p.family, p.model] * (p.epochs or 0.0) for p in found.edge]
        y = [p.learning_rate or 0.0 for p in found.edge]
        axes.plot(x, y, "s", ms=12, mfc="none", mec=FAULT, mew=1.1, label="at the edge of those tried")
    lost = [p for p in told if p.status == "diverged"]
    if lost:
        x = [shift.get((p.family, p.model), 1.0) * (p.epochs or 0.0) for p in lost]
        axes.plot(x, [p.learning_rate or 0.0 for p in lost], "x", color=FAULT, ms=6, mew=1.4, label="diverged")
    rates = {point.learning_rate or 0.0 for point in told}
    for rate, name in ((min(rates), "lowest and highest tried"), (max(rates), "")):
        axes.axhline(rate, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), label=name, zorder=1)
    binary_axis(axes.xaxis, [point.epochs or 0.0 for point in told])
    binary_axis(axes.yaxis, rates)
    legend(figure, [axes])
    save(figure, file)


def plot_finetune(points: Sequence[Point], file: str | Path) -> None:
    """Draw the top-1 error of fine-tuned networks against the compute of their pre-training, by model.

    Args:
        points: one row a fine-tuned network: FLOPs and top-1 in per cent; those without either are left out.
        file: a PNG or an SVG, replaced as a whole.

    Raises:
        InputError: no row has both, or the file is neither.
    """
    file = Path(file)
    check_file(file)
    _check_dataset(points)
    rows = [p for p in points if p.final and p.flops is not None and p.top1 is not None and p.top1 < 100]
    if not rows:
        raise InputError(f"{file}: no row has both FLOPs and a top-1 accuracy; name the columns --compute and --top1")
    rows.sort(key=lambda point: point.flops or 0.0)
    figure = new_figure(8.5, 4.5)
    axes = figure.subplots()
    panel(axes, _COMPUTE, "Top-1 error, %")
    errors = [100 - (point.top1 or 0.0) for point in rows]
    _by_model(axes, rows, errors)
    log_axis(axes.xaxis, [point.flops or 0.0 for point in rows])
    log_axis(axes.yaxis, errors)
    legend(figure, [axes])
    save(figure, file)


def plot_isoflop(fit: Fit, file: str | Path) -> None:
    """Draw loss against parameters at equal compute: the models, the law's curves, and each curve's optimum.

    A model stands at a compute between two of its runs, its loss on the straight line between them in log-log.

    What an image costs is a power law of the parameters through the same points: networks of one family have no fixed
    number of FLOPs a parameter. Images that are seen again are counted as the points have them.

    Args:
        fit: of the parametric form, or of the one for repeated data.
        file: a PNG or an SVG, replaced as a whole.

    Raises:
        InputError: the fit is of another form or its points lack a size, or the file is neither.
    """
    file = Path(file)
    check_file(file)
    points = [p for p in fit.points if p.flops and p.parameters and p.images and p.loss]
    if isinstance(fit.law, PowerLaw):
        raise InputError(f"{file}: isoFLOP curves need a law of size and data; fit one with --form parametric")
    if len({point.parameters for point in points}) < 2:
        raise InputError(f"{file}: isoFLOP curves need FLOPs, parameters and images of two models or more")
    size = np.array([point.parameters for point in points], np.float64)
    compute = np.array([point.flops for point in points], np.float64)
    price = np.polyfit(np.log(size), np.log(compute / np.array([point.images for point in points])), 1)
    unique = max(point.unique_images or np.inf for point in points)
    sizes = np.geomspace(size.min() / 1.6, size.max() * 1.6, _PLACES)
    # The ends themselves are one model's alone.
    budgets = np.geomspace(compute.min(), compute.max(), _BUDGETS + 2)[1:-1]
    figure = new_figure(9, 5)
    axes = figure.subplots()
    panel(axes, "Parameters", "Held-out loss, nats")
    drawn, none = [], False
    for i, budget in enumerate(map(float, budgets)):
        color = str(round(0.68 - 0.68 * i / (_BUDGETS - 1), 3))
        images = budget / np.exp(np.polyval(price, np.log(sizes)))
        curve = _along(fit.law, sizes, images, unique)
        at, losses = _at_compute(points, budget)
        axes.plot(sizes, curve, color=color, linewidth=1.6, zorder=2)
        axes.plot(at, losses, "os^DvP"[i], color=color, ms=6, zorder=4, label=f"{number(float(f'{budget:.2g}'))} FLOPs")
        drawn += [*curve[(sizes >= size.min()) & (sizes <= size.max())], *losses]
        best = int(curve.argmin())
        if best in (0, _PLACES - 1):
            none = True
            continue
        lows = [sizes[_along(sample, sizes, images, unique).argmin()] for sample in fit.samples] or [sizes[best]]
        low, high = np.quantile(lows, [0.025, 0.975])
        bar = [[sizes[best] - min(low, sizes[best])], [max(high, sizes[best]) - sizes[best]]]
        style = {"fmt": "*", "color": FAULT, "ms": 12, "mec": "white", "capsize": 3, "lw": 1.4, "zorder": 3}
        axes.errorbar(sizes[best], curve[best], xerr=bar, **style, label="optimum, 95 % interval")
    if none:
        axes.plot([], [], " ", label="(no star: no optimum\namong these sizes)")
    log_axis(axes.xaxis, sizes, pad=0.0)
    log_axis(axes.yaxis, drawn, pad=0.08)
    legend(figure, [axes])
    save(figure, file)


def _along(
    law: Law, sizes: Float[np.ndarray, " n"], images: Float[np.ndarray, " n"], unique: float
) -> Float[np.ndarray, " n"]:
    if isinstance(law, Repeated):
        return np.asarray(law.loss(sizes, images, np.minimum(images, unique)))
    assert isinstance(law, Parametric)
    return np.asarray(law.loss(sizes, images))


def _at_compute(points: Sequence[Point], budget: float) -> tuple[list[float], list[float]]:
    """Parameters and interpolated loss of each model that has runs at less and at more compute."""
    models: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for point in points:
        own = models.setdefault((point.model, point.parameters or 0.0), [])
        own.append((np.log(point.flops or 1.0), np.log(point.loss or 1.0)))
    at, losses = [], []
    for (_, parameters), own in models.items():
        x, y = zip(*sorted(own), strict=True)
        if x[0] <= np.log(budget) <= x[-1]:
            at.append(parameters)
            losses.append(float(np.exp(np.interp(np.log(budget), x, y))))
    return at, losses


def _by_model(axes: Axes, points: Sequence[Point], values: Sequence[float]) -> None:
    styles = model_styles(points)
    for key, style in styles.items():
        own = sorted(
            (point.flops or 0.0, value)
            for point, value in zip(points, values, strict=True)
            if (point.family, point.model) == key
        )
        x, y = zip(*own, strict=True)
        # Rows without a model are unrelated.
        style.draw(axes, x, y, _name(*key, styles), line=bool(key[1]))


def _name(family: str, model: str, styles: Iterable[tuple[str, str]]) -> str:
    several = len({family for family, _ in styles}) > 1
    return short(f"{family} {model}".strip() if several and family not in model else model or family or "runs")


def _spread(cells: Settings, axes: Axes) -> list[float]:
    """Draw a bar from the best to the worst seed of each cell's best learning rate; returns all ends."""
    ends = [point.loss or 0.0 for point in cells.points]
    _, _, best = cells.choose(np.ones((1, len(cells.runs))))
    for cell, point in enumerate(cells.points):
        losses = cells.losses[cells.setting_of == cells.settings_of[cell, best[0, cell]]]
        if len(losses) > 1:
            axes.vlines(point.flops or 0.0, losses.min(), losses.max(), color=MUTED, linewidth=1.6, zorder=2)
            ends += [losses.min(), losses.max()]
    return ends


def _draw_law(axes: Axes, fit: Fit, index: int) -> list[float]:
    """Draw a power law over the range of its points, and the interval of its bootstrap."""
    if not isinstance(fit.law, PowerLaw):
        raise InputError(f"a {fit.form} fit is no law of compute alone; fit one with --form power")
    compute = np.array([point.flops for point in fit.points], np.float64)
    at = np.geomspace(compute.min(), compute.max(), _PLACES)
    laws = [law for law in (*fit.samples, fit.law) if isinstance(law, PowerLaw)]
    band = np.quantile([np.asarray(law.loss(at)) for law in laws], [0.025, 0.975], axis=0)
    low, high = fit.interval("b") if fit.samples else (fit.law.b, fit.law.b)
    family = fit.points[0].family
    constant = f"{fit.law.E:.3g} + " if fit.law.E else ""
    exponent = f"b = {fit.law.b:.3g} ({low:.3g} to {high:.3g})"
    name = short(f"{family}: L = {constant}a C^-b".removeprefix(": "))
    hatch = ("", "///", "...")[index % 3]
    axes.fill_between(at, *band, color=_BAND, hatch=hatch, edgecolor=MUTED, linewidth=0, alpha=0.8, zorder=1)
    style = ("-", (0, (6, 2)), (0, (1, 1)))[index % 3]
    axes.plot(at, fit.law.loss(at), color=TEXT, linewidth=1.8, linestyle=style, label=f"{name},\n{exponent}", zorder=2)
    return [float(band.min()), float(band.max())]


def _lost(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if point.status == "diverged" and point.flops is not None]


def _diverged(axes: Axes, compute: Sequence[float]) -> None:
    """Mark the compute of runs that have no loss, at the upper edge."""
    if compute:
        y = [0.985] * len(compute)
        transform = axes.get_xaxis_transform()
        axes.plot(compute, y, "x", color=FAULT, ms=6, mew=1.5, transform=transform, label="diverged", clip_on=False)


def _check_dataset(points: Sequence[Point]) -> None:
    names = sorted({point.dataset for point in points if point.dataset})
    if len(names) > 1:
        raise InputError(f"the rows are of different data ({', '.join(names[:3])}); draw each one's alone")
