"""`nfnet-eqx evaluate`: how good a checkpoint is on labelled images."""

import dataclasses
import json as json_format
import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import ClassOrder
from nfnet_eqx.cli._text import name, pad, printable, width
from nfnet_eqx.data import open_source
from nfnet_eqx.train import (
    CheckpointEvaluation,
    ClassResult,
    Comparison,
    Evaluation,
    Measure,
    evaluate_checkpoint,
    plot_confusion,
)
from nfnet_eqx.zoo import from_pretrained

# Of many classes, the table shows this many, the worst.
_WORST = 20


def evaluate(
    checkpoint: Annotated[str, tyro.conf.Positional],
    *,
    data: Path,
    split: Literal["train", "validation"] = "validation",
    batch_size: int = 64,
    size: int | None = None,
    published: bool = False,
    by_index: bool = False,
    class_order: ClassOrder = "name",
    per_class: bool = False,
    confusion: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None,
    json: bool = False,
) -> None:
    """Measure a checkpoint on labelled images: top-1, top-5 and loss, each with its 95 % bootstrap interval.

    Classes are matched by their names where both sides know them (ImageNet's also by their WordNet ids, n01440764, of
    which some will do), else by their order. An image that cannot be read is left out, and counted.

    Examples:
        nfnet-eqx evaluate nfnet_cifar10 --data data/cifar10 --confusion confusion.png
        nfnet-eqx evaluate timm/dm_nfnet_f0.dm_in1k --data imagenet --published

    Args:
        checkpoint: a bundled checkpoint, a folder, a training run or one of its states (runs/flowers/checkpoints/700),
            or a Hub id such as timm/dm_nfnet_f0.dm_in1k.
        data: a folder of class folders, of .tar, .parquet or .array_record files, of train.npz and test.npz, or of
            MNIST's IDX files.
        split: which part of the data.
        batch_size: images that are run together, over all devices.
        size: side of the images in pixels, if not that of the checkpoint.
        published: measure exactly as the checkpoint's published accuracy was measured, at the test size or at --size,
            and compare. Photos are then not turned upright, as they are otherwise.
        by_index: match the classes by their order, whatever they are called; short for --class-order index.
        class_order: natural is the order in which timm numbers class folders (1, 2, 10; apple, Banana), for a
            checkpoint without names that it trained; nfnet-eqx sorts them as text (index).
        per_class: list all classes, not only the worst.
        confusion: also draw which class is taken for which to this PNG.
        json: print JSON instead of tables.

    Raises:
        InputError: the checkpoint or the data cannot be used, or they have different classes; nothing is written then.
    """
    if confusion is not None:
        _check_png(confusion, data)
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: must be at least 1")
    if by_index and class_order == "natural":
        raise InputError("--by-index --class-order natural: are two different orders; leave out one")
    source = open_source(data, split, whole=True)  # what is wrong with it is said before anything is downloaded
    found = evaluate_checkpoint(
        from_pretrained(checkpoint),
        source,
        size=size,
        published=published,
        class_order="index" if by_index else class_order,
        batch_size=batch_size,
        progress=True,
    )
    if confusion is not None:
        plot_confusion(found.evaluation.confusion, found.labels, confusion)
    if json:
        print(json_format.dumps(_as_json(found, split), indent=2, allow_nan=False))
    else:
        print("\n".join(_lines(found, per_class)))


def _check_png(file: Path, data: Path) -> None:
    """Refuse before the work what could not, or must not, be written after it."""
    if file.suffix.lower() != ".png" or file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"--confusion {file}: name a .png file in a folder that exists")
    if file.exists() and data.resolve() in file.resolve().parents:
        raise InputError(f"--confusion {file}: is a file of the data and would be overwritten; choose another name")


def _as_json(found: CheckpointEvaluation, split: str) -> dict[str, Any]:
    return {
        "checkpoint": str(found.checkpoint.source),
        "data": found.data,
        "split": split,
        "size": list(found.checkpoint.preprocess.size(use_test_size=True)),
        "pictures": len(found.evaluation.labels),
        "broken": found.evaluation.broken,
        "seconds": round(found.seconds, 1),
        **{which: _measured(found.evaluation, which) for which in get_args(Measure)},
        **({} if found.published is None else {"published": _compared(found.published)}),
        "classes": [_class(result) for result in found.per_class],
    }


def _measured(found: Evaluation, which: Measure) -> dict[str, float | None]:
    """A measure with its interval. JSON has no NaN."""
    low, high = found.interval(which)
    values = {"value": getattr(found, which), "low": low, "high": high}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _compared(found: Comparison) -> dict[str, Any]:
    return {
        "name": found.name,
        **dataclasses.asdict(found.accuracy),
        "numerics": {"published": found.published_numerics, "measured": found.numerics},
        "not_comparable": found.not_comparable,
        "difference": found.difference,
        "in_interval": found.in_interval,
    }


def _class(result: ClassResult) -> dict[str, Any]:
    mistaken = None if result.mistaken_for is None else {"label": result.mistaken_for, "pictures": result.mistaken}
    return {"label": result.label, "pictures": result.images, "top1": result.top1, "most_mistaken_for": mistaken}


def _lines(found: CheckpointEvaluation, per_class: bool) -> list[str]:
    evaluation = found.evaluation
    height, breadth = found.checkpoint.preprocess.size(use_test_size=True)
    broken = f", {evaluation.broken:,} broken" if evaluation.broken else ""
    lines = [
        printable(f"{found.checkpoint.source} at {height} x {breadth} on {found.data}"),
        f"{len(evaluation.labels):,} pictures{broken}, {found.seconds:.1f} s",
        "",
        "           value   95 % interval",
        _measure_line(evaluation, "top1", "top-1", 2, " %"),
        # Five guesses are right in any case where there are no more classes.
        *([_measure_line(evaluation, "top5", "top-5", 2, " %")] if evaluation.num_classes > 5 else []),
        _measure_line(evaluation, "loss", "loss", 4, "  "),
    ]
    if found.published is not None:
        lines += ["", *_published_lines(found.published)]
    return lines + ["", *_class_lines(found.per_class, per_class)]


def _measure_line(found: Evaluation, which: Measure, title: str, digits: int, unit: str) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in (getattr(found, which), *found.interval(which)))
    return f"{title:6}  {value:>8}{unit}  {low} to {high}{unit}".rstrip()


def _published_lines(found: Comparison) -> list[str]:
    accuracy = found.accuracy
    lines = [f"published top-1 of {found.name} at {accuracy.size}: {accuracy.top1} %, {accuracy.source}"]
    if found.not_comparable:
        lines.append(f"cannot be compared: {found.not_comparable}")
    else:
        place = "inside" if found.in_interval else "outside"
        lines.append(f"measured minus published: {found.difference:+.3f} %, {place} the interval")
    if found.published_numerics != found.numerics:
        lines.append(f"published for the numerics {found.published_numerics!r}, measured with {found.numerics!r}")
    return lines


def _class_lines(results: list[ClassResult], per_class: bool) -> list[str]:
    seen = [result for result in results if result.top1 is not None]
    worst = sorted(seen, key=lambda result: result.top1 or 0)
    shown = worst if per_class else worst[:_WORST]
    columns = max(len("class"), *(width(name(result.label)) for result in shown))
    lines = [f"{pad('class', columns)}  pictures    top-1    most often taken for"]
    for result in shown:
        mistaken = "-" if result.mistaken_for is None else f"{name(result.mistaken_for)} ({result.mistaken:,})"
        lines.append(f"{pad(name(result.label), columns)}  {result.images:8,}  {result.top1:6.2f} %  {mistaken}")
    if len(shown) < len(seen):
        lines.append(f"... and {len(seen) - len(shown):,} classes that are no worse; --per-class lists them")
    if len(seen) < len(results):
        lines.append(f"classes without a picture here: {len(results) - len(seen):,}")
    return lines
