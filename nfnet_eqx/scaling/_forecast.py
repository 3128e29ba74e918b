"""What is left of a sweep, and how long it will take at the speed of what has been done."""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from nfnet_eqx.scaling._grid import SweepPlan
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._results import Folder


class SweepLeft(NamedTuple):
    """What is left of a sweep.

    Attributes:
        runs: that have no result.
        flops: of these together.
        seconds: of their training by one worker, without compiling and evaluation, at the speed that each model had
            (one that has not been trained yet: at the median of the others'); `None` before the first result.
    """

    runs: int
    flops: int
    seconds: float | None


def sweep_left(plan: SweepPlan, out: Path) -> SweepLeft:
    """What is left of a sweep in its folder, which need not exist."""
    folder = Folder(out)
    left = [run for run in plan.runs if not folder.ended(run)]
    speeds = _speeds(folder.points())
    seconds = None
    if speeds:
        usual = statistics.median(speeds.values())
        seconds = sum(run.flops / speeds.get(run.model.name, usual) for run in left)
    return SweepLeft(len(left), sum(run.flops for run in left), seconds)


def _speeds(points: list[Point]) -> dict[str, float]:
    """FLOPs a second of each model, over its runs."""
    flops, seconds = defaultdict[str, float](float), defaultdict[str, float](float)
    for point in points:
        if point.final and point.status == "done" and point.flops and point.seconds:
            flops[point.model] += point.flops
            seconds[point.model] += point.seconds
    return {model: flops[model] / seconds[model] for model in flops}
