"""From rows to what a law is fitted to: one point of each model and budget, of the best of its learning rates.

The same choice is made in each resample of the runs, since which learning rate wins is as uncertain as the losses are.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from nfnet_eqx._errors import InputError, first
from nfnet_eqx.scaling._points import Point


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The runs that count, by cell (a model and a budget) and setting (a learning rate of a cell).

    Attributes:
        points: of each cell the point of its best learning rate, its loss the mean over the seeds; by growing compute.
        runs: names of the runs.
        losses: of each row.
        run_of: the run of each row.
        setting_of: the setting of each row.
        settings_of: the settings of each cell, by growing learning rate; filled up with -1.
    """

    points: tuple[Point, ...]
    runs: tuple[str, ...]
    losses: Float[np.ndarray, " rows"]
    run_of: Int[np.ndarray, " rows"]
    setting_of: Int[np.ndarray, " rows"]
    settings_of: Int[np.ndarray, "cells most"]

    def choose(
        self, counts: Float[np.ndarray, "batch runs"]
    ) -> tuple[Float[np.ndarray, "batch cells"], Float[np.ndarray, "batch cells"], Int[np.ndarray, "batch cells"]]:
        """Choose the learning rates where each run counts so often.

        Returns:
            Each cell's loss (infinite where no run of it is left), how many runs it is the mean of, and which of its
            learning rates, by growing ones, it is of.
        """
        rows = counts[:, self.run_of]
        of = np.zeros((len(self.losses), self.setting_of.max() + 2))
        of[np.arange(len(of)), self.setting_of] = 1
        number = rows @ of  # the last column is for the -1 of `settings_of`: no run
        with np.errstate(invalid="ignore"):
            loss = np.where(number > 0, (rows * self.losses) @ of / number, np.inf)
        best = loss[:, self.settings_of].argmin(2)
        setting = np.take_along_axis(self.settings_of[None], best[:, :, None], 2)[:, :, 0]
        return np.take_along_axis(loss, setting, 1), np.take_along_axis(number, setting, 1), best


def usable(points: Sequence[Point], family: str | None) -> tuple[list[Point], list[Point], int]:
    """The points of one family, those of them that a fit may use, and how many rows said the same as another.

    Raises:
        InputError: there are none, or they must not be fitted together.
    """
    families = sorted({point.family for point in points})
    if not families:
        raise InputError("there are no points; a fit needs some")
    if family is not None and family not in families:
        raise InputError(f"family (={family!r}): no row is of it; there are {first(list(map(repr, families)))}")
    own = [point for point in points if family is None or point.family == family]
    ended = [point for point in own if point.final and point.status == "done" and point.loss is not None]
    faults = []
    if not ended:
        faults.append(f"none of the {len(own)} rows is of a run that ended with a loss; a fit uses no others")
    for what, remedy in (("dataset", "fit each one's file alone"), ("family", "choose one with --family")):
        names = sorted({repr(getattr(point, what)) for point in ended})
        if len(names) > 1:
            faults.append(f"the rows are of more than one {what} ({first(names)}), which have no common law; {remedy}")
    if faults:
        raise InputError("; ".join(faults))
    different = {dataclasses.replace(point, run=""): point for point in reversed(ended)}
    return own, list(reversed(different.values())), len(ended) - len(different)


def settings(points: Sequence[Point]) -> Settings:
    """Sort the points of finished runs by cell and setting."""
    cells: dict[object, dict[float, list[int]]] = {}
    for i, point in enumerate(points):
        # A table without learning rates and seeds does not tell which rows repeat a setting: each stands for itself.
        told = point.learning_rate is not None or point.seed is not None
        cell = (point.model, point.parameters, point.images, point.unique_images, point.epochs)
        key = (*cell, point.flops if point.images is None else None) if told else i
        cells.setdefault(key, {}).setdefault(point.learning_rate or 0.0, []).append(i)
    loss = [point.loss or np.inf for point in points]

    def mean(rows: list[int]) -> float:
        return float(np.mean([loss[row] for row in rows]))

    chosen = [(min(cell.values(), key=mean), cell) for cell in cells.values()]
    chosen.sort(key=lambda pair: (_compute(points[pair[0][0]]), mean(pair[0])))
    most = max(len(cell) for _, cell in chosen)
    setting_of, settings_of, number = np.zeros(len(points), int), np.full((len(chosen), most), -1), 0
    for c, (_, cell) in enumerate(chosen):
        for s, rate in enumerate(sorted(cell)):
            setting_of[cell[rate]], settings_of[c, s], number = number, number, number + 1
    runs = tuple(dict.fromkeys(point.run for point in points))
    place = {run: i for i, run in enumerate(runs)}
    return Settings(
        points=tuple(
            points[rows[0]]
            if len(rows) == 1
            else dataclasses.replace(points[rows[0]], loss=mean(rows), seed=None, top1=None, seconds=None)
            for rows, _ in chosen
        ),
        runs=runs,
        losses=np.array(loss),
        run_of=np.array([place[point.run] for point in points]),
        setting_of=setting_of,
        settings_of=settings_of,
    )


def _compute(point: Point) -> float:
    """What orders the points: FLOPs, or what they are in proportion to."""
    return point.flops or (point.parameters or 1.0) * (point.images or 1.0)


def compute(points: Sequence[Point]) -> Float[np.ndarray, " points"]:
    """FLOPs of each point; where they are not known, parameters times images."""
    return np.array([_compute(point) for point in points], np.float64)
