"""A run's numbers: a line of JSON each, at once; TensorBoard and others beside it; and a progress bar."""

import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import jax
from tqdm import tqdm

from nfnet_eqx._errors import InputError
from nfnet_eqx._files import parse_json, replacing

FILE = "metrics.jsonl"

_log = logging.getLogger(__name__)

# What people see of a record, and how; the file has it all.
_SHOWN = {
    "epoch": "epoch {:.2f}",
    "loss": "loss {:.4f}",
    "top1": "top-1 {:.2f} %",
    "top5": "top-5 {:.2f} %",
    "learning_rate": "learning rate {:.3g}",
    "images_per_second": "{:,.0f} img/s",
}


@runtime_checkable
class Writer(Protocol):
    """Where numbers also go; one such class connects any tracker."""

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Take the numbers of one step."""
        ...

    def close(self) -> None:
        """Called at the end of the run."""
        ...


class TensorBoard:
    """TensorBoard's event files, of which those beyond `resume_step` are marked as gone."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise InputError("tensorboard (=True) needs tensorboardX: pip install 'nfnet-eqx[tensorboard]'") from None
        self._folder = folder
        self._events = SummaryWriter(str(folder), purge_step=resume_step + 1)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """One scalar each, named `split/name`."""
        for name, value in metrics.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Write out what is still buffered."""
        try:
            self._events.close()
        except OSError as error:  # on a full disk, say; it must not take the place of what ended the run
            _log.warning("%s: TensorBoard's last events are not written: %s", self._folder, error.strerror or error)


class Log:
    """The log of a run, a context manager. Only process 0 writes anything; the others' calls do nothing.

    `metrics.jsonl` takes a line a call, before `write` returns. A run that goes on continues the file: the lines beyond
    the step that it goes on from are dropped, since those steps will be made again.

    Args:
        folder: the run's folder; it exists.
        resume_step: how many steps have been made.
        tensorboard: also write TensorBoard's events, into `folder/tensorboard`.
        total_steps: how many steps the whole run has, for the time left.
        batch_size: of all processes together, for the images a second.
        progress: show a bar, or lines where there is no terminal.
        writers: other places for the same numbers.

    Raises:
        InputError: the file holds something else than a log, or tensorboardX is wanted and missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume_step: int,
        tensorboard: bool,
        total_steps: int,
        batch_size: int,
        progress: bool = True,
        writers: Sequence[Writer] = (),
    ) -> None:
        self._main = jax.process_index() == 0
        if not self._main:
            return
        self._path = folder / FILE
        self._batch_size = batch_size
        self._writers = [*writers, *([TensorBoard(folder / "tensorboard", resume_step)] if tensorboard else [])]
        if self._path.exists():
            # At step 0 nothing has been done, nor has the evaluation of the fresh parameters.
            kept = [record for record in read_metrics(folder) if 0 < resume_step >= record["step"]]
            with replacing(self._path) as temporary:
                temporary.write_bytes(b"".join(map(_line, kept)))
        self._file = self._path.open("ab", buffering=0)  # nothing that a close or a crash would have to write out
        images, self._total = resume_step * batch_size, total_steps * batch_size
        self._progress = progress
        self._bar = tqdm(
            initial=images,
            total=self._total,
            unit=" img",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if progress else True,
        )
        self._bar_moves = self._has_said_pace = False

    def write(self, step: int, split: Literal["train", "eval"], metrics: Mapping[str, float]) -> None:
        """Append the numbers after `step` steps to the file, and show the progress.

        Raises:
            InputError: the file cannot be written, such as on a full disk.
        """
        if not self._main:
            return
        record = {"step": step, "split": split, **metrics}
        line = _line(record)
        try:
            while line:  # a disk that is nearly full takes a part
                line = line[self._file.write(line) :]
        except OSError as error:
            raise InputError(
                f"{self._path}: {error.strerror}; mend that, and the same command goes on after the last checkpoint"
            ) from None
        for writer in self._writers:
            writer.write(step, split, metrics)
        if self._progress:
            self._show(record)

    def progress(self, step: int) -> None:
        """Move the bar; its clock starts behind the first step, whose time is the compiler's."""
        if not self._main or self._bar.disable:
            return
        images = step * self._batch_size - self._bar.n
        if self._bar_moves:
            self._bar.update(images)
            return
        self._bar_moves = True
        self._bar.n += images
        self._bar.initial = self._bar.last_print_n = self._bar.n
        self._bar.unpause()
        self._bar.refresh()

    def _show(self, record: Mapping[str, Any]) -> None:
        """Training moves the bar; evaluations, and everything where there is no terminal, are lines of their own."""
        self.progress(record["step"])
        if record["split"] == "train":
            numbers = {"loss": record.get("loss"), "lr": record.get("learning_rate")}
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in numbers.items() if value is not None})
        if record["split"] == "eval" or self._bar.disable:
            shown = [form.format(record[name]) for name, form in _SHOWN.items() if name in record]
            left, rate = self._total - record["step"] * self._batch_size, record.get("images_per_second", 0)
            if left > 0 and rate > 0:
                shown.append(f"{tqdm.format_interval(left / rate)} left")
            self._bar.write(f"step {record['step']:,}, {record['split']}: {', '.join(shown)}", file=sys.stderr)
        if record["split"] == "eval":
            self._bar.unpause()  # how long it took says nothing about the steps that are left
        if not self._has_said_pace and {"images_per_second", "flops"} <= record.keys():
            self._say_pace(record)

    def _say_pace(self, record: Mapping[str, Any]) -> None:
        """Once, from the first line that knows it: what the machine achieves, and what that means for the run."""
        self._has_said_pace = True
        rate = record["images_per_second"]
        _log.info(
            "step %s: %.3g FLOP/s; at this rate the whole run trains for %s",
            f"{record['step']:,}",
            rate * record["flops"] / record["images"],
            tqdm.format_interval(self._total / rate),
        )

    def close(self) -> None:
        """Close the file, the bar and the other writers."""
        if not self._main:
            return
        self._bar.close()
        self._file.close()
        for writer in self._writers:
            writer.close()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's `metrics.jsonl`, in the order of writing.

    JSON has no infinities and NaNs; they are written as null and read as NaN. A half line at the end, which a killed
    run leaves, is not a record.

    Raises:
        InputError: there is no such file, or lines before the last are not records: an object with the step (0 or
            more), the split ("train" or "eval") and numbers.
    """
    path = folder / FILE
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # behind the last line break stands nothing, or half a line
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the folder of a training run") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    records = {number: _record(line) for number, line in enumerate(lines, 1)}
    strange = [number for number, record in records.items() if record is None]
    if strange:
        others = f", nor are {len(strange) - 1} others" if len(strange) > 1 else ""
        found = lines[strange[0] - 1][:60]
        raise InputError(f"{path}: line {strange[0]} is not a record of a run ({found!r}){others}; delete it")
    return [record for record in records.values() if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line holds; `None` where it is not a record."""
    try:
        record = parse_json(line, FILE)
        numbers = [value for name, value in record.items() if name != "split" and value is not None]
        if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
            return None
    except (InputError, OverflowError):  # the latter: an integer beyond the largest float
        return None
    if type(record.get("step")) is not int or record["step"] < 0 or record.get("split") not in ("train", "eval"):
        return None
    return {name: math.nan if value is None else value for name, value in record.items()}


def _line(record: Mapping[str, Any]) -> bytes:
    values = {name: value if isinstance(value, str) or math.isfinite(value) else None for name, value in record.items()}
    return json.dumps(values, allow_nan=False).encode() + b"\n"
