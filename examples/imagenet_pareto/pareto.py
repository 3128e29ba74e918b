"""Published ImageNet results of NFNets and plain ViTs, at equal multiply-adds and at equal measured throughput.

    python examples/imagenet_pareto/pareto.py

It checks the multiply-adds of each row of points.csv against `nfnet_eqx.count`, then draws pareto.png beside it.
"""

import csv
import dataclasses
import re
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import nfnet_eqx as nfx

HERE = Path(__file__).parent
TOLERANCE = 0.005
UNFLOORED = " (bottleneck_floor=False)"
STYLES = {"NFNet": ("#2563eb", "o", "-", True), "ViT": ("#c2410c", "s", "--", False)}
# Where a name stands, by family and where others would be in the way: offset in points, alignment, at which point.
LABELS = {
    "NFNet": ((-5, 4), "right", -1),
    "ViT": ((6, -9), "left", -1),
    "NFNet-L0": ((6, 2), "left", -1),
    "ECA-NFNet-L0": ((6, -7), "left", -1),
    "NFNet-F2": ((6, -9), "left", 0),
    "NFNet-F5": ((6, -9), "left", 0),
    "NFNet-F4, JFT-300M": ((-6, -3), "right", -1),
    "NFNet-F4+, JFT-300M": ((6, -9), "left", -1),
    "So400m/14 (SigLIP), WebLI": ((7, -1), "left", -1),
    "SoViT-400m/14, JFT-3B": ((0, -13), "center", 0),
    "ViT-g/14, JFT-3B": ((0, -13), "center", -1),
    "ViT-G/14, JFT-3B": ((6, 6), "center", -1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One published result.

    Attributes:
        model: its name in the source.
        family: NFNet or ViT.
        data: what the network was trained on before, or besides, ImageNet-1k.
        architecture: the name here of a network with the same multiply-adds.
        image_size: of the evaluation.
        parameters: of the network.
        macs: multiply-adds of one image.
        top1: on ImageNet-1k, per cent.
        images_per_second: inference, where a source has it.
        source: of the accuracy and the speed, in words.
    """

    model: str
    family: str
    data: str
    architecture: str
    image_size: int
    parameters: int
    macs: int
    top1: float
    images_per_second: float | None
    source: str


def read(path: Path) -> list[Result]:
    """The rows of points.csv."""
    with path.open(newline="") as file:
        return [
            Result(
                model=row["model"],
                family=row["family"],
                data=row["data"],
                architecture=row["architecture"],
                image_size=int(row["image_size"]),
                parameters=int(row["parameters"]),
                macs=int(row["macs"]),
                top1=float(row["top1"]),
                images_per_second=float(row["images_per_second"]) if row["images_per_second"] else None,
                source=row["source"],
            )
            for row in csv.DictReader(file)
        ]


def counted(result: Result) -> int:
    """The multiply-adds that this library counts for it; of an image that is cut to whole patches."""
    config = nfx.get_config(result.architecture.removesuffix(UNFLOORED))
    if result.architecture.endswith(UNFLOORED):
        config = dataclasses.replace(config, bottleneck_floor=False)  # type: ignore[call-arg]
    patch = re.search(r"patch(\d+)", result.architecture)
    size = result.image_size // int(patch[1]) * int(patch[1]) if patch else result.image_size
    return nfx.count(config.at_image_size(size), size).macs


def check(results: list[Result]) -> list[str]:
    """What the count does not confirm, a line each."""
    return [
        f"{result.model} @{result.image_size}: {result.macs / 1e9:.2f}G in points.csv, {macs / 1e9:.2f}G counted"
        for result in results
        for macs in [counted(result)]
        if abs(result.macs / macs - 1) > TOLERANCE
    ]


def draw(results: list[Result], file: Path) -> None:
    """Three panels; networks that saw ImageNet-1k alone are not in one panel with those that saw more."""
    alone = [result for result in results if result.data == "ImageNet-1k"]
    more = [result for result in results if result.data != "ImageNet-1k"]
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    cost, speed, pretrained = figure.subplots(1, 3, width_ratios=(4, 4, 5))
    panel(cost, [(r, r.macs / 1e9) for r in alone], "ImageNet-1k alone, by multiply-adds")
    cost.set_xlabel("Multiply-adds of an image, billions")
    panel(speed, [(r, r.images_per_second) for r in alone if r.images_per_second], "ImageNet-1k alone, by speed")
    speed.set_xlabel("Images a second, RTX 4090, inference (faster to the left)")
    speed.invert_xaxis()
    panel(pretrained, [(r, r.macs / 1e9) for r in more], "Pre-trained on other data, by multiply-adds", data=True)
    pretrained.set_xlabel("Multiply-adds of an image, billions")
    for axes, ticks in ((cost, (5, 10, 20, 50, 100, 200, 400)), (pretrained, (5, 20, 50, 100, 200, 500, 1000, 3000))):
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    ticks = (200, 500, 1000, 2000, 5000)
    speed.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    handles, labels = cost.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    FigureCanvasAgg(figure)
    figure.savefig(file, dpi=100)


def panel(axes: Axes, points: list[tuple[Result, float]], title: str, *, data: bool = False) -> None:
    """Top-1 over a cost; a line joins one network's image sizes."""
    axes.set_title(title, loc="left", size=11)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("ImageNet top-1, %")
    axes.grid(color="#dee3ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    groups: dict[tuple[str, str, str], list[tuple[Result, float]]] = {}
    for point, x in points:
        groups.setdefault((point.family, point.model, point.data), []).append((point, x))
    shown = set()
    for (family, model, trained), group in groups.items():
        color, marker, line, filled = STYLES[family]
        face = color if filled else "white"
        x, y = [x for _, x in group], [point.top1 for point, _ in group]
        label = "" if family in shown else family
        axes.plot(x, y, marker, color=color, mfc=face, mew=1.4, ms=6, linestyle=line, linewidth=1.2, label=label)
        shown.add(family)
        name = f"{model}, {trained}" if data else model
        place, align, at = LABELS.get(name, LABELS[family])
        axes.annotate(name, (x[at], y[at]), place, textcoords="offset points", ha=align, size=7.5, color="#374151")
    axes.margins(0.2 if data else 0.15, 0.09)


def main(file: Path = HERE / "pareto.png") -> None:
    """Check, and draw."""
    results = read(HERE / "points.csv")
    faults = check(results)
    if faults:
        sys.exit("\n".join(faults))
    print(f"multiply-adds of all {len(results)} rows are within {TOLERANCE:.1%} of nfnet_eqx.count")
    draw(results, file)
    print(f"written to {file}")


if __name__ == "__main__":
    main()
