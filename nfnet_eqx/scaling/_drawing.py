"""What all figures of scaling laws share: styles that hold in greyscale, ticks of logarithmic axes, PNG and SVG."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import replacing
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.train import drawable

TEXT, MUTED, EDGE, FAULT = "#111827", "#5b6472", "#dee3ea", "#dc2626"
# From the smallest model to the largest; each ends darker than it begins, so that the order shows in greyscale.
_FAMILIES = [["#93b4f5", "#2563eb", "#172554"], ["#fbbf7c", "#ea580c", "#5a1e06"], ["#86d6a2", "#15803d", "#06301a"]]
_MARKERS = "os^DvPX"
_LINES: list[Any] = ["-", (0, (5, 2)), (0, (1.5, 1.5))]
_LONGEST = 36  # characters of a name
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Style(NamedTuple):
    """How the points of one model, or of one family, are drawn."""

    color: Any
    marker: str
    line: Any
    filled: bool

    def draw(self, axes: Axes, x: Sequence[float], y: Sequence[float], label: str, *, line: bool = True) -> None:
        """Draw points of growing x, and the line through them."""
        (drawn,) = axes.plot(x, y, linestyle=self.line if line else "none", **self.marks())
        drawn.set_label(label)

    def marks(self) -> dict[str, Any]:
        """Arguments of a line and its markers."""
        face = self.color if self.filled else "white"
        return {
            "color": self.color,
            "marker": self.marker,
            "markersize": 5.5,
            "markerfacecolor": face,
            "markeredgewidth": 1.3,
            "linewidth": 1.4,
            "zorder": 3,
        }


def family_styles(families: Iterable[str]) -> dict[str, Style]:
    """A style of each family: fill, marker and line tell them apart, not only the colour."""
    return {
        family: Style(_FAMILIES[i % 3][1], "os^"[i % 3], _LINES[i % 3], filled=i % 2 == 0)
        for i, family in enumerate(dict.fromkeys(families))
    }


def model_styles(points: Sequence[Point]) -> dict[tuple[str, str], Style]:
    """A style of each (family, model), from small to large: a family by fill and line, a model by marker and shade."""
    styles = {}
    for i, family in enumerate(dict.fromkeys(point.family for point in points)):
        sizes: dict[str, float] = {}
        for point in points:
            if point.family == family:
                sizes.setdefault(point.model, point.parameters or 0.0)
        shades = LinearSegmentedColormap.from_list("family", _FAMILIES[i % 3])
        models = sorted(sizes, key=lambda model: sizes[model])
        for j, model in enumerate(models):
            color = shades(j / max(len(models) - 1, 1) if len(models) > 1 else 0.5)
            styles[family, model] = Style(color, _MARKERS[j % len(_MARKERS)], _LINES[i % 3], filled=i % 2 == 0)
    return styles


def new_figure(width: float, height: float) -> Figure:
    """An empty figure whose parts make room for each other."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def panel(axes: Axes, x: str, y: str) -> None:
    """Name the axes, and leave away what is no data."""
    axes.set_xlabel(x, color=TEXT)
    axes.set_ylabel(y, color=TEXT)
    axes.grid(color=EDGE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(which="both", length=3, color=MUTED, labelcolor=TEXT, labelsize=9)


def log_axis(axis: Axis, values: Iterable[float], *, most: int = 7, pad: float = 0.06) -> None:
    """Make an axis logarithmic over the values, with labelled ticks also where it spans less than a decade."""
    low, high = _ends(values, pad)
    axes, name = axis.axes, axis.axis_name  # type: ignore[attr-defined]
    getattr(axes, f"set_{name}scale")("log")
    getattr(axes, f"set_{name}lim")(low, high)
    ticks = log_ticks(low, high, most)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: number(value))


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Between 3 and about `most` round numbers between two others; of the coarsest kind that gives as many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    for digits, step in (((1,), every), ((1, 3), 1), ((1, 2, 5), 1), ((1, 2, 3, 4, 6, 8), 1)):
        ticks = [digit * 10.0**n for n in range(first, last + 1, step) for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if 3 < len(ticks) <= most + 1 or (len(ticks) == 3 and digits == (1,)):
            return ticks
    return [tick for tick in MaxNLocator(most - 1).tick_values(low, high) if low <= tick <= high and tick > 0]


def binary_axis(axis: Axis, values: Iterable[float], *, most: int = 12) -> None:
    """Make an axis logarithmic to base 2, with a tick at each of the values, or at as many as can be read."""
    values = sorted(set(values))
    axes, name = axis.axes, axis.axis_name  # type: ignore[attr-defined]
    getattr(axes, f"set_{name}scale")("log", base=2)
    getattr(axes, f"set_{name}lim")(values[0] / 2**0.5, values[-1] * 2**0.5)
    axis.set_major_locator(FixedLocator(values[:: -(-len(values) // most)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:.4g}")


def number(value: float) -> str:
    """A number in the fewest signs: 0.25, 2.4, 120, 3×10¹⁵."""
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.6g}"
    digits, exponent = f"{value:.2e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    digits = f"{float(digits):g}"
    return power if digits == "1" else f"{digits}×{power}"


def short(text: str) -> str:
    """A name as it can be drawn."""
    text = " ".join(text.split())
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
    return drawable([text])[0]


def legend(figure: Figure, axes: Sequence[Axes], *, below: bool = False) -> None:
    """One legend for all panels, beside or below them."""
    handles = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        place: Any = {"loc": "outside lower center", "ncols": 4} if below else {"loc": "outside right upper"}
        style: Any = {"frameon": False, "fontsize": 9, "labelcolor": TEXT, "handlelength": 3}
        drawn = figure.legend(handles.values(), list(handles), **place, **style)
        for text in drawn.get_texts():
            text.set_parse_math(False)


def check_file(file: Path) -> None:
    """Refuse a file that cannot become a figure, before anything is computed.

    Raises:
        InputError: it is no PNG or SVG, or there is no folder for it.
    """
    if file.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{file}: a figure is a .png or an .svg file; end its name with one of these")
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"{file}: is a folder, or its folder does not exist; name a file in an existing folder")


def save(figure: Figure, file: Path) -> None:
    """Write PNG or SVG, as the name ends; the same figure is the same bytes."""
    check_file(file)
    kind = file.suffix.lower()[1:]
    (FigureCanvasSVG if kind == "svg" else FigureCanvasAgg)(figure)
    # matplotlib takes these two from nowhere else: text stays text, and the names of its parts are not random.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "nfnet_eqx"}
    with matplotlib.rc_context(settings), replacing(file) as temporary:
        figure.savefig(temporary, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)


def _ends(values: Iterable[float], pad: float) -> tuple[float, float]:
    logs = np.log(np.array([value for value in values if math.isfinite(value) and value > 0], np.float64))
    margin = max(pad * (logs.max() - logs.min()), 0.02)
    return float(np.exp(logs.min() - margin)), float(np.exp(logs.max() + margin))
