"""Pictures of a run as PNG: its curves, and which classes it takes for which."""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing

_log = logging.getLogger(__name__)

_TEXT, _MUTED, _EDGE, _FAULT = "#111827", "#737c8a", "#dee3ea", "#dc2626"
_TRAIN, _TRAIN_RAW, _EVAL = "#2563eb", "#a8bee3", "#ea580c"
_SHARES = LinearSegmentedColormap.from_list("shares", ["#ffffff", "#a8bee3", "#2563eb", "#172554"])

_MOST_MARKERS = 40  # points of a line; with more the markers run together
_MOST_NUMBERS = 12  # classes whose shares are written into the cells
_MOST_LABELS = 40  # classes whose names are legible at the side
_MOST_CELLS = 250  # a side; of more classes, neighbours share a cell of a few pixels
_LONGEST_LABEL, _LONGEST_TITLE = 24, 90  # characters
_DIVERGED = 20  # a loss this many times the median is drawn on a logarithmic scale
_MOST_POINTS = 2000  # of a line; the panel has some 300 pixels
_BOX = "\N{WHITE SQUARE}"  # in place of a letter that no font has


class _Series(NamedTuple):
    """One metric over the run, without the values that are not finite."""

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]


def plot_curves(
    metrics: Sequence[dict[str, Any]],
    file: Path,
    title: str,
    *,
    learning_rate: Float[np.ndarray, " steps"] | None = None,
) -> None:
    """Draw loss, top-1 accuracy and learning rate of a run over its epochs (its steps, where a record has no epoch).

    Values that are not finite are left out, and where the loss first was one is marked.

    Args:
        metrics: the records of `read_metrics`.
        file: the PNG, replaced as a whole.
        title: what stands above.
        learning_rate: of every step, from the first; `None`: that of the records.

    Raises:
        InputError: there is no record.
    """
    if not metrics:
        raise InputError(f"{file}: no metrics to draw yet; train for longer than one interval of the log")
    unit: Literal["epoch", "step"] = "epoch" if all("epoch" in record for record in metrics) else "step"
    figure = Figure(figsize=(10, 3.7), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08, wspace=0.04))
    (title,) = drawable([_shorten(title, _LONGEST_TITLE)])
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold", color=_TEXT, parse_math=False)
    loss, accuracy, rate = figure.subplots(1, 3, sharex=True, width_ratios=(5, 5, 3))
    train, evaluated = _series(metrics, "train", unit), _series(metrics, "eval", unit)

    _panel(loss, "Loss", unit)
    _draw_train(loss, train("loss"))
    _draw_line(loss, evaluated("loss"), _EVAL, "eval")
    values = np.concatenate([train("loss").y, evaluated("loss").y])
    if values.size and values.min() > 0 and values.max() > _DIVERGED * np.median(values):
        loss.set_yscale("log")
    fault = next((r for r in metrics if not math.isfinite(r.get("loss", 0.0))), None)
    if fault is not None:
        loss.axvline(fault[unit], color=_FAULT, linewidth=1.2, linestyle=(0, (4, 3)))
        loss.set_title(f"not finite at step {fault['step']:,}", loc="right", size=10, color=_FAULT)

    _panel(accuracy, "Top-1 accuracy, %", unit)
    _draw_train(accuracy, train("top1"))
    _draw_line(accuracy, evaluated("top1"), _EVAL, "eval")
    if evaluated("top1").y.size:
        accuracy.set_title(f"best {evaluated('top1').y.max():.2f} %", loc="right", size=10, color=_EVAL)

    _panel(rate, "Learning rate", unit)
    rates = train("learning_rate") if learning_rate is None else _by_step(learning_rate, metrics[-1], unit)
    _draw_line(rate, rates, _MUTED)
    rate.set_ylim(bottom=0)

    for axes in (loss, accuracy, rate):
        if not axes.lines:
            axes.set_yticks([])
    lines = {line.get_label(): line for axes in (loss, accuracy) for line in axes.lines}
    lines = {name: lines[name] for name in ("train", "eval") if name in lines}
    figure.legend(lines.values(), lines, loc="upper right", ncols=2, frameon=False, fontsize=10, labelcolor=_TEXT)
    _save(figure, file)


def plot_confusion(confusion: Int[np.ndarray, "k k"], labels: Sequence[str] | None, file: Path) -> None:
    """Draw, for the pictures of each class (a row), the shares of the classes that they were taken for.

    Colours follow the square root of the share, so that rare mistakes show, and where there are too many classes for a
    cell each, neighbours share one that has the largest of their shares. A class without pictures is an empty row.

    Args:
        confusion: how many pictures of class `i` were taken for class `j`.
        labels: the names of the classes, drawn where they are few enough to be read; `None`: their indices.
        file: the PNG, replaced as a whole.

    Raises:
        InputError: there are more or fewer names than classes.
    """
    classes = len(confusion)
    if labels is not None and len(labels) != classes:
        raise InputError(f"labels: {len(labels)} names for a confusion matrix of {classes} classes")
    shares = 100 * confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    pooled = math.ceil(classes / _MOST_CELLS)
    cells = -(-classes // pooled)
    padded = np.pad(shares, (0, cells * pooled - classes)).reshape(cells, pooled, cells, pooled)
    side = 5.5 if classes <= _MOST_NUMBERS else 7.5
    figure = Figure(figsize=(side + 1.3, side + 0.4), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots()
    end = cells * pooled - 0.5
    image = axes.imshow(padded.max((1, 3)), cmap=_SHARES, norm=PowerNorm(0.5, 0, 100), extent=(-0.5, end, end, -0.5))
    top1 = 100 * np.trace(confusion) / max(confusion.sum(), 1)
    axes.set_title(
        f"{top1:.2f} % of {confusion.sum():,} pictures right", loc="left", size=12, weight="bold", color=_TEXT
    )
    axes.set_xlabel(
        "taken for" if pooled == 1 else f"taken for (a cell: the largest share of {pooled} x {pooled})", color=_MUTED
    )
    axes.set_ylabel("class", color=_MUTED)
    axes.tick_params(length=0, colors=_TEXT)
    axes.spines[:].set_color(_EDGE)
    if classes <= _MOST_LABELS:
        names = drawable([_shorten(name, _LONGEST_LABEL) for name in labels or map(str, range(classes))])
        size = 10 if classes <= _MOST_NUMBERS else 8
        axes.set_xticks(range(classes), names, rotation=90, size=size, parse_math=False)
        axes.set_yticks(range(classes), names, size=size, parse_math=False)
    if classes <= _MOST_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.05:
                color = "white" if share > 20 else _TEXT
                axes.text(column, row, f"{share:.1f}", ha="center", va="center", size=9, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02, ticks=[0, 1, 5, 20, 50, 100], format="%g %%")
    bar.outline.set_edgecolor(_EDGE)
    bar.ax.tick_params(length=0, colors=_MUTED, labelsize=9)
    _save(figure, file)


def _series(metrics: Sequence[dict[str, Any]], split: str, unit: str) -> Callable[[str], _Series]:
    """From a metric's name to its values in one split."""

    def series(name: str) -> _Series:
        points = [(record[unit], record[name]) for record in metrics if record["split"] == split and name in record]
        x, y = np.asarray(points, np.float64).reshape(-1, 2).T
        finite = np.isfinite(x) & np.isfinite(y)
        return _Series(x[finite], y[finite])

    return series


def _by_step(values: Float[np.ndarray, " steps"], record: dict[str, Any], unit: str) -> _Series:
    """A value of each step from the first, over the unit in which `record` says how far the run is."""
    steps = np.arange(1, len(values) + 1)[:: -(-len(values) // _MOST_POINTS) or 1]
    scale = record[unit] / record["step"] if record["step"] else 1.0
    return _Series(steps * scale, np.asarray(values, np.float64)[steps - 1])


def _panel(axes: Axes, name: str, unit: str) -> None:
    axes.set_title(name, loc="left", size=11, color=_TEXT)
    axes.set_xlabel(unit, color=_MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=unit == "step", steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.6g}")
    axes.grid(axis="y", color=_EDGE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_EDGE)
    axes.tick_params(which="both", length=0, colors=_MUTED, labelsize=9)


def _draw_train(axes: Axes, series: _Series) -> None:
    """Few batches each, so noisy: the values are pale, and their running mean is the line."""
    window = len(series.x) // 40
    if window < 3:
        _draw_line(axes, series, _TRAIN, "train")
        return
    axes.plot(*series, color=_TRAIN_RAW, linewidth=0.7)
    sums = np.concatenate([[0.0], np.cumsum(series.y)])
    at = np.arange(len(series.y))
    first, last = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(at))  # narrower at the ends
    _draw_line(axes, series._replace(y=(sums[last] - sums[first]) / (last - first)), _TRAIN, "train")


def _draw_line(axes: Axes, series: _Series, color: str, name: str = "") -> None:
    if series.x.size:
        marker = "o" if series.x.size <= _MOST_MARKERS else ""
        axes.plot(*series, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=name)


def _shorten(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def drawable(texts: Sequence[str]) -> list[str]:
    """The texts with a box for every letter that no font has, which the log says; matplotlib would warn of each."""
    letters = {letter for font in _fonts() for letter in get_font(font).get_charmap()}
    missing = {letter for text in texts for letter in text if ord(letter) not in letters}
    if missing:
        _say_missing("".join(sorted(missing)))
    return ["".join(_BOX if letter in missing else letter for letter in text) for text in texts]


@functools.cache  # once, however often a run's curves are drawn
def _say_missing(letters: str) -> None:
    shown = ", ".join(f"{letter!r} (U+{ord(letter):04X})" for letter in letters[:3])
    more = f" and {len(letters) - 3} more" if len(letters) > 3 else ""
    _log.warning(
        "boxes stand for %s%s: matplotlib finds no font with them; add one to font.family in your matplotlibrc",
        shown,
        more,
    )


def _fonts() -> Iterator[str]:
    """The files of those fonts that matplotlib tries for a letter, by its settings."""
    settings: Any = matplotlib.rcParams
    for family in [name for generic in settings["font.family"] for name in settings.get(f"font.{generic}", [generic])]:
        try:
            yield findfont(family, fallback_to_default=False)
        except ValueError:  # not installed
            continue


def _save(figure: Figure, file: Path) -> None:
    """Through Agg itself, not pyplot: no display, no figure that stays open."""
    FigureCanvasAgg(figure)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=160)
