"""The worker of a sweep: it takes a run that nobody has, trains it, writes its result, until all have one."""

import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from tqdm import tqdm

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling._forecast import sweep_left
from nfnet_eqx.scaling._grid import PlannedRun, SweepPlan, plan_sweep
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._results import TRAIN_NAME, Ended, Folder, row_without_loss, rows_of
from nfnet_eqx.scaling._sweep_config import SweepConfig
from nfnet_eqx.train import Diverged, Locked, init_distributed, locked, train

_TRIES = 3  # of a run that fails
_POLL_SECONDS = 5.0  # while other workers have what is left

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What a call of `sweep` came to.

    Attributes:
        file: `results.jsonl`.
        points: its rows.
        runs: how many the sweep has.
        left: how many of them have not ended, as the call was stopped.
        reasons: of the runs that diverged or failed, why.
    """

    file: Path
    points: tuple[Point, ...]
    runs: int
    left: int
    reasons: Mapping[str, str]


def sweep(
    config: SweepConfig, out: Path, *, stop: Callable[[], bool] = lambda: False, progress: bool = True
) -> SweepResult:
    """Trains all runs of a sweep, the cheapest first, and writes what they came to into `out/results.jsonl`.

    Stopped in whatever way, the same call resumes it, and the results are those of an unbroken one, to the byte but
    for `seconds`. More models, epochs, learning rates or seeds extend it. Several workers may share the folder, on
    several machines too: each run is made by one of them, and what a dead one had is taken over by another, after three
    minutes if not at once. Each returns when all runs have a result.

    A run whose loss is no longer finite has the result "diverged". One that fails otherwise is begun anew, twice, and
    then has the result "failed"; delete its `result.json` and `failures.json`, and it is tried again.

    Args:
        config: the models and budgets.
        out: the folder of the sweep; made where needed.
        stop: asked after each step whether to save and return early, as in `train`.
        progress: show a bar over the whole sweep on a terminal.

    Raises:
        InputError: the data, a model or the folder cannot be used, or the folder holds runs of other settings.
    """
    init_distributed()
    if jax.process_count() > 1:
        raise InputError(
            f"a sweep runs in one process, and a launcher started {jax.process_count()} as one; start each worker by "
            "itself, on the same folder: they share the runs"
        )
    plan, folder = plan_sweep(config), Folder(out)
    folder.check(plan)
    folder.make()
    worker = _Worker(plan, folder, stop, progress)
    for run in plan.runs:
        folder.tidy(run)
    folder.write_results()
    try:
        worker.work()
    finally:
        worker.close()
    points = folder.write_results()
    return SweepResult(
        file=folder.results,
        points=tuple(points),
        runs=len(plan.runs),
        left=sum(not folder.ended(run) for run in plan.runs),
        reasons={run.id: folder.reason(run) for run in plan.runs if folder.reason(run)},
    )


class _Worker:
    """One worker, with its progress: in FLOPs, as runs differ by orders of magnitude."""

    def __init__(self, plan: SweepPlan, folder: Folder, stop: Callable[[], bool], progress: bool):
        self._plan, self._folder, self._stop = plan, folder, stop
        self._runs = sorted(plan.runs, key=lambda run: run.flops)
        self._besides: list[float] = []  # seconds of each run that were no training
        self._bar = tqdm(
            total=float(plan.flops),
            initial=self._done(),
            unit="FLOP",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if progress else True,
        )

    def work(self) -> None:
        """Takes runs until each has a result, or `stop` says so."""
        waiting = 0
        while not self._stop() and (left := self._left()):
            if not any([self._take(run) for run in left]) and not self._stop():
                if waiting != len(left):
                    waiting = len(left)
                    _log.info("waiting for %d runs of other workers", waiting)
                until = time.monotonic() + _POLL_SECONDS
                while time.monotonic() < until and not self._stop():
                    time.sleep(0.1)

    def close(self) -> None:
        """Close the bar."""
        self._bar.close()

    def _left(self) -> list[PlannedRun]:
        return [run for run in self._runs if not self._folder.ended(run)]

    def _take(self, run: PlannedRun) -> bool:
        """Makes a run, unless another worker has it or has made it; whether there was something to do."""
        if self._stop() or self._folder.ended(run):
            return False
        path = self._folder.run(run)
        path.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        try:
            with locked(path):
                if not self._folder.ended(run) and (ended := self._made(run)):
                    self._folder.write_result(run, ended)
                    self._folder.write_results()
                    self._besides.append(max(time.monotonic() - began - (ended.rows[-1].seconds or 0), 0))
                    self._tell(run, ended)
        except Locked:  # by another worker; or within, for three minutes, by what a dead one on another machine had
            return False
        return True

    def _made(self, run: PlannedRun) -> Ended | None:
        """Trains a run to its end, or its last failure; `None`: it was stopped."""
        folder = self._folder.run(run) / TRAIN_NAME
        self._folder.begin(run)
        config = dataclasses.replace(run.config, out=folder)
        while True:
            try:
                result = train(config, recipe=run.recipe, writers=[_Moves(self, run)], stop=self._stop, progress=False)
            except Locked:
                raise
            except Diverged as error:
                return Ended("diverged", str(error), (row_without_loss(run, folder, "diverged", error.step),))
            except Exception as error:
                row = row_without_loss(run, folder, "failed", 0)
                reasons = self._folder.add_failure(run, error)
                _log.warning("%s: try %d of %d failed: %s", run.id, len(reasons), _TRIES, reasons[-1])
                if len(reasons) >= _TRIES:
                    return Ended("failed", reasons[-1], (row,))
                continue
            if result.evaluation is None:
                return None
            rows = rows_of(run, folder, result.evaluation)
            if not math.isfinite(result.evaluation.loss):
                row = row_without_loss(run, folder, "diverged", run.steps)
                return Ended("diverged", "the loss on the held-out images is not finite", (row,))
            return Ended("done", "", rows)

    def moved(self, run: PlannedRun, step: int) -> None:
        """Shows that a run has made so many steps."""
        if not self._bar.disable:
            self._bar.n = self._done() + run.flops * step / run.steps
            self._bar.set_postfix_str(run.id, refresh=False)
            self._bar.refresh()

    def _tell(self, run: PlannedRun, ended: Ended) -> None:
        row, left = ended.rows[-1], sweep_left(self._plan, self._folder.path)
        what = ended.status if row.loss is None else f"loss {row.loss:.4f}, top-1 {row.top1:.2f} %"
        seconds = (left.seconds or 0) + left.runs * statistics.median(self._besides)
        _log.info(
            "%d of %d runs, %.1f %% of the FLOPs, %s left; %s: %s",
            len(self._runs) - left.runs,
            len(self._runs),
            100 * (1 - left.flops / self._plan.flops),
            "?" if left.seconds is None else tqdm.format_interval(seconds / self._folder.workers()),
            run.id,
            what,
        )

    def _done(self) -> float:
        """FLOPs of the runs that have ended, whoever made them."""
        return float(sum(run.flops for run in self._runs if self._folder.ended(run)))


class _Moves:
    """Tells the worker of a run's steps, as a `Writer`."""

    def __init__(self, worker: _Worker, run: PlannedRun):
        self._worker, self._run = worker, run

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        self._worker.moved(self._run, step)

    def close(self) -> None:
        """Nothing is open."""
