"""The figure of two families at equal compute."""

from pathlib import Path

from matplotlib.axes import Axes

from nfnet_eqx.scaling._drawing import (
    MUTED,
    Style,
    check_file,
    family_styles,
    legend,
    log_axis,
    new_figure,
    panel,
    save,
    short,
)
from nfnet_eqx.scaling._equal_compute import At, EqualCompute, Frontier


def plot_compare(found: EqualCompute, file: str | Path) -> None:
    """Draw both families' frontiers, the gap of loss at equal compute, and the ratio of compute at equal loss.

    Args:
        found: what `compare` measured.
        file: a PNG or an SVG, replaced as a whole.

    Raises:
        InputError: the file is neither, or its folder does not exist.
    """
    file = Path(file)
    check_file(file)
    unit = "Training compute, FLOPs" if found.axis == "flops" else "Training time, seconds"
    ratio = "compute" if found.axis == "flops" else "time"
    first, second = short(found.a.family), short(found.b.family)
    figure = new_figure(13, 4.4)
    loss, gap, times = figure.subplots(1, 3, width_ratios=(5, 4, 4))
    panel(loss, unit, "Held-out loss, nats")
    styles = family_styles([found.a.family, found.b.family])
    shown = [_frontier(loss, frontier, styles[frontier.family], found.axis) for frontier in (found.a, found.b)]
    log_axis(loss.xaxis, [x for xs, _ in shown for x in xs], most=5)
    log_axis(loss.yaxis, [y for _, ys in shown for y in ys])
    panel(gap, unit, f"Loss of {first} less loss of {second}, nats")
    _places(gap, found.gap, 0.0)
    panel(times, "Held-out loss, nats", f"{ratio.capitalize()} of {first} / {ratio} of {second}")
    _places(times, found.ratio, 1.0)
    if found.gap:
        log_axis(gap.xaxis, [at.x for at in found.gap], most=5)
    if found.ratio:
        log_axis(times.yaxis, [1.0, *(n for at in found.ratio for n in at.estimate)])
    legend(figure, [loss], below=True)
    save(figure, file)


def _frontier(axes: Axes, frontier: Frontier, style: Style, axis: str) -> tuple[list[float], list[float]]:
    x = [float(getattr(point, axis)) for point in frontier.tuned]
    y = [point.loss or 0.0 for point in frontier.tuned]
    name = short(frontier.family)
    style.draw(axes, x, y, f"{name}: best of each model and budget", line=False)
    at, values, lows, highs = _columns(frontier.curve)
    axes.fill_between(at, lows, highs, color=style.color, alpha=0.18, linewidth=0)
    axes.plot(at, values, color=style.color, linestyle=style.line, linewidth=2, label=f"{name}: law and interval")
    return [*x, *at], [*y, *values]


def _places(axes: Axes, places: tuple[At, ...], none: float) -> None:
    axes.axhline(none, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    if not places:
        axes.text(0.5, 0.6, "no common range", ha="center", color=MUTED, transform=axes.transAxes)
        return
    at, values, lows, highs = _columns(places)
    axes.fill_between(at, lows, highs, color=MUTED, alpha=0.25, linewidth=0)
    axes.plot(at, values, color="black", linewidth=1.8)


def _columns(places: tuple[At, ...]) -> tuple[list[float], list[float], list[float], list[float]]:
    return (
        [at.x for at in places],
        [at.estimate.value for at in places],
        [at.estimate.low for at in places],
        [at.estimate.high for at in places],
    )
