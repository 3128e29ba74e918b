"""The folder of a sweep: a folder for each run, its result when it has one, and all results in one file.

    OUT/results.jsonl                a `Point` a line, for every evaluation of every run that has ended
    OUT/compiled/                    what the command lets XLA keep
    OUT/runs/ID/settings.json        what the run was made with
    OUT/runs/ID/run.lock             while a worker has it
    OUT/runs/ID/train/               the folder of the training: run.json, metrics.jsonl, and states until it has ended
    OUT/runs/ID/failures.json        why each try failed, where one did
    OUT/runs/ID/result.json          how it ended, with its rows of results.jsonl

A result is written once, whole, and `results.jsonl` follows from the results alone, in an order that does not depend on
who made them: whoever writes it, the bytes are the same.
"""

import contextlib
import dataclasses
import json
import math
import shutil
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import read_json, replacing, write_json
from nfnet_eqx.scaling._grid import PlannedRun, SweepPlan
from nfnet_eqx.scaling._points import Point, Status
from nfnet_eqx.train import Evaluation, Locked, changed_settings, locked, read_metrics

RESULTS_NAME = "results.jsonl"
COMPILED_NAME = "compiled"
TRAIN_NAME = "train"

# Of the folders of a run and of its training, what stays when it has ended: its worker removes its claim last.
_STAYS = {"settings.json", "failures.json", "result.json", TRAIN_NAME}
_TRAIN_STAYS = {"run.json", "metrics.jsonl", "checkpoint"}


class Ended(NamedTuple):
    """The result of a run.

    Attributes:
        status: how it ended.
        reason: why it diverged or failed; else empty.
        rows: its evaluations.
    """

    status: Status
    reason: str
    rows: tuple[Point, ...]


class Folder:
    """The files of a sweep.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.results = path / RESULTS_NAME

    def run(self, run: PlannedRun) -> Path:
        """The folder of a run."""
        return self.path / "runs" / run.id

    def check(self, plan: SweepPlan) -> None:
        """Refuses a folder in which runs were made with other settings than they would be now, or that is no sweep's.

        Raises:
            InputError: naming the runs, and what differs.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: is a file; name a folder for the sweep")
        names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        others = set() if "runs" in names else names - {COMPILED_NAME}
        if others:
            raise InputError(f"{self.path}: holds other files ({min(others)}) and no sweep; choose another folder")
        differing: dict[str, list[str]] = {}
        for run in plan.runs:
            file = self.run(run) / "settings.json"
            if file.exists() and (changes := _changes(read_json(file), settings(run))):
                differing.setdefault(", ".join(changes), []).append(run.id)
        faults = [
            f"{runs[0]}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''} with {changes}"
            for changes, runs in differing.items()
        ]
        if faults:
            raise InputError(
                f"{self.path}: holds runs that were made with other settings: {'; '.join(faults)}; choose another "
                "folder, give the model another name, change the settings back, or delete those folders in "
                f"{self.path / 'runs'} to make the runs anew"
            )

    def make(self) -> None:
        """Makes the folder, where it is not there yet."""
        (self.path / "runs").mkdir(parents=True, exist_ok=True)

    def ended(self, run: PlannedRun) -> bool:
        """Whether a run has a result."""
        return (self.run(run) / "result.json").exists()

    def reason(self, run: PlannedRun) -> str:
        """Why a run diverged or failed; empty where it did not."""
        return _read_result(self.run(run) / "result.json").reason if self.ended(run) else ""

    def workers(self) -> int:
        """How many workers there are, by the runs that are claimed."""
        return max(len(list((self.path / "runs").glob("*/run.lock"))), 1)

    def write_result(self, run: PlannedRun, ended: Ended) -> None:
        """Writes the result of a run, and removes what nobody needs behind it."""
        content = ended._asdict() | {"rows": [dataclasses.asdict(row) for row in ended.rows]}
        with replacing(self.run(run) / "result.json") as unfinished:
            write_json(unfinished, content)
        self._remove_states(run)

    def tidy(self, run: PlannedRun) -> None:
        """Does what was left to do behind the result of a run, where its worker was killed there."""
        if not self.ended(run) or {entry.name for entry in self.run(run).iterdir()} <= _STAYS:
            return
        with contextlib.suppress(Locked), locked(self.run(run)):  # which removes what a dead one held
            self._remove_states(run)

    def _remove_states(self, run: PlannedRun) -> None:
        with contextlib.suppress(FileNotFoundError):  # of a run that has failed there is none
            for entry in (self.run(run) / TRAIN_NAME).iterdir():
                if entry.is_dir() and entry.name not in _TRAIN_STAYS:
                    shutil.rmtree(entry, ignore_errors=True)

    def write_results(self) -> list[Point]:
        """Brings `results.jsonl` up to date with the results of all runs in the folder, and gives its rows.

        Another worker may write it at the same time, from fewer results: so until nothing has been added.
        """
        written = None
        while written != (found := self._results()):
            rows = [row for ended in found for row in ended.rows]
            with replacing(self.results) as unfinished:
                lines = [json.dumps(dataclasses.asdict(row), allow_nan=False) + "\n" for row in rows]
                unfinished.write_text("".join(lines), encoding="utf-8")
            written = found
        return [row for ended in found for row in ended.rows]

    def points(self) -> list[Point]:
        """The rows of all runs that have ended."""
        return [row for ended in self._results() for row in ended.rows]

    def _results(self) -> list[Ended]:
        return sorted(map(_read_result, (self.path / "runs").glob("*/result.json")), key=_place)

    def failures(self, run: PlannedRun) -> list[str]:
        """Why the tries of a run failed so far."""
        file = self.run(run) / "failures.json"
        return list(read_json(file)["reasons"]) if file.exists() else []

    def add_failure(self, run: PlannedRun, error: Exception) -> list[str]:
        """Notes one more, with where it came from, and empties the folder of its training for the next try."""
        reasons = [*self.failures(run), f"{type(error).__name__}: {error}"]
        with replacing(self.run(run) / "failures.json") as unfinished:
            write_json(unfinished, {"reasons": reasons, "last": traceback.format_exception(error)})
        shutil.rmtree(self.run(run) / TRAIN_NAME, ignore_errors=True)
        return reasons

    def begin(self, run: PlannedRun) -> None:
        """Makes the folder of a run, and notes what it is made with."""
        self.run(run).mkdir(parents=True, exist_ok=True)
        file = self.run(run) / "settings.json"
        if not file.exists():
            with replacing(file) as unfinished:
                write_json(unfinished, settings(run))


def settings(run: PlannedRun) -> dict[str, Any]:
    """All that decides a run, for `settings.json`."""
    return {
        "model": run.model.name,
        "family": run.family,
        "dataset": run.dataset,
        "train": {name: value for name, value in run.config.to_dict().items() if name != "out"},
    }


def rows_of(run: PlannedRun, folder: Path, evaluation: Evaluation) -> tuple[Point, ...]:
    """The rows of a run that was trained to its end.

    Args:
        run: the run.
        folder: of its training.
        evaluation: of the last state, in float32.
    """
    records = read_metrics(folder)
    between = [
        _point(run, step=r["step"], epochs=r["epoch"], seconds=r.get("seconds"), loss=r["loss"], top1=r["top1"])
        for r in records
        if r["split"] == "eval" and r["step"] < run.steps and math.isfinite(r["loss"])
    ]
    last = _point(run, step=run.steps, seconds=_seconds(records), loss=evaluation.loss, top1=evaluation.top1)
    return (*(dataclasses.replace(row, final=False) for row in between), last)


def row_without_loss(run: PlannedRun, folder: Path, status: Status, step: int) -> Point:
    """The one row of a run that diverged, or failed, after so many steps."""
    records = []
    with contextlib.suppress(InputError):  # it may have failed before its first line
        records = read_metrics(folder)
    return _point(run, step=step, seconds=_seconds(records), status=status)


def _point(run: PlannedRun, *, step: int, **values: Any) -> Point:
    images = step * run.config.batch_size or None  # of a run that failed nothing is known
    values = {"epochs": run.config.epochs} | values
    return Point(
        run=run.id,
        model=run.model.name,
        family=run.family,
        dataset=run.dataset,
        parameters=run.parameters,
        images=images,
        unique_images=None if images is None else run.unique_among(images),
        flops=step * run.flops_per_step or None,
        learning_rate=run.config.optimizer.learning_rate,
        seed=run.config.seed,
        **values,
    )


def _seconds(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Of training, up to the last line that knows."""
    return next((record["seconds"] for record in reversed(records) if "seconds" in record), None)


def _place(ended: Ended) -> tuple[Any, ...]:
    """Where a run stands among all: by family, size, budget, learning rate and seed."""
    row = ended.rows[-1]
    return (row.family, row.parameters, row.model, row.epochs, row.learning_rate, row.seed, row.run)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in ("family", "dataset") if before.get(name) != now[name]]
    changes = [f"{name} (was {before.get(name)}, now {now[name]})" for name in names]
    return changes + changed_settings(before.get("train") or {}, now["train"])


def _read_result(file: Path) -> Ended:
    content = read_json(file)
    try:
        first, *others = (Point(**row) for row in content["rows"])
        return Ended(content["status"], content["reason"], (first, *others))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{file}: is not the result of a run; delete it, and the run is made again") from None
