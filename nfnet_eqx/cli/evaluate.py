"""`nfnet-eqx evaluate`: how good a checkpoint is on labelled pictures."""

import dataclasses
import functools
import json as json_format
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import tyro
from jaxtyping import Int32
from tqdm import tqdm

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint
from nfnet_eqx.cli import _published
from nfnet_eqx.cli._text import printable
from nfnet_eqx.data import EvalBatch, Source, eval_stream, open_source
from nfnet_eqx.images import imagenet1k, imagenet1k_synsets
from nfnet_eqx.train import Evaluation, Measure, make_mesh, plot_confusion
from nfnet_eqx.train import evaluate as evaluate_network
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
    per_class: bool = False,
    confusion: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None,
    json: bool = False,
) -> None:
    """Measure a checkpoint on labelled pictures: top-1, top-5 and loss, each with its 95 % bootstrap interval.

    Classes are matched by their names where both sides know them (ImageNet's also by their WordNet ids, n01440764, of
    which some will do), else by their order. A picture that cannot be read is left out, and counted.

    Examples:
        nfnet-eqx evaluate nfnet_cifar10 --data data/cifar10 --confusion confusion.png
        nfnet-eqx evaluate timm/dm_nfnet_f0.dm_in1k --data imagenet --published

    Args:
        checkpoint: a bundled checkpoint, a folder, or a Hub id such as timm/dm_nfnet_f0.dm_in1k.
        data: a folder of class folders, of .tar, .parquet or .array_record files, of train.npz and test.npz, or of
            MNIST's IDX files.
        split: which part of the data.
        batch_size: pictures that are run together, over all devices.
        size: side of the pictures in pixels, if not that of the checkpoint.
        published: measure exactly as the checkpoint's published accuracy was measured, at the test size or at --size,
            and compare.
        by_index: match the classes by their order, whatever they are called.
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
    source, ckpt = open_source(data, split, whole=True), from_pretrained(checkpoint)
    claim = _published.find_claim(ckpt, size) if published else None
    if claim is not None:
        ckpt = dataclasses.replace(ckpt, preprocess=claim.protocol.preprocess())
    elif size is not None:
        preprocess = dataclasses.replace(ckpt.preprocess, test_input_size=(size, size))
        ckpt = dataclasses.replace(ckpt, preprocess=preprocess)
    order = _order(ckpt, source, by_index=by_index)
    labels = _labels(ckpt, source, order)

    start = time.perf_counter()
    batches = _batches(ckpt, source, order, batch_size)
    found = evaluate_network(ckpt.model, batches, mesh=make_mesh(), num_pictures=len(source))
    seconds = time.perf_counter() - start
    if confusion is not None:
        plot_confusion(found.confusion, labels, confusion)
    result = {
        "checkpoint": str(ckpt.source),
        "data": source.name,
        "split": split,
        "size": list(ckpt.preprocess.size(use_test_size=True)),
        "pictures": len(found.labels),
        "broken": found.broken,
        "seconds": round(seconds, 1),
        **{name: _measured(found, name) for name in get_args(Measure)},
        **({} if claim is None else {"published": _published.compare(claim, ckpt, source.num_classes, found)}),
        "classes": _classes(found, labels),
    }
    print(json_format.dumps(result, indent=2, allow_nan=False) if json else "\n".join(_lines(result, per_class)))


def _check_png(file: Path, data: Path) -> None:
    """Refuse before the work what could not, or must not, be written after it."""
    if file.suffix.lower() != ".png" or file.is_dir() or not file.absolute().parent.is_dir():
        raise InputError(f"--confusion {file}: name a .png file in a folder that exists")
    if file.exists() and data.resolve() in file.resolve().parents:
        raise InputError(f"--confusion {file}: is a file of the data and would be overwritten; choose another name")


def _order(ckpt: Checkpoint, source: Source, *, by_index: bool) -> Int32[np.ndarray, " classes"]:
    """The network's class of each class of the data."""
    ours, theirs = ckpt.config.num_classes, source.num_classes
    if ckpt.config.in_channels != 3:
        raise InputError(f"{ckpt.source}: takes {ckpt.config.in_channels} channels; a picture has 3 (RGB)")
    if ours == 0:
        raise InputError(f"{ckpt.source}: has no classifier; fine-tune it on {source.name} first")
    ids = {synset: i for i, synset in enumerate(imagenet1k_synsets())} if ckpt.labels == imagenet1k() else {}
    by_id = not by_index and any(name in ids for name in source.classes or ())
    if theirs > ours or (theirs < ours and not by_index and not by_id):
        raise InputError(
            f"{ckpt.source} has {ours} classes, {source.name} {theirs}; give data of the checkpoint's classes, or "
            "fine-tune it on these" + (" (--by-index takes them for its first ones)" if theirs < ours else "")
        )
    order = np.arange(theirs, dtype=np.int32)
    if by_index or ckpt.labels is None or source.classes is None or ckpt.labels == source.classes:
        return order
    index = ids if by_id else {label: i for i, label in enumerate(ckpt.labels)}
    strange = [name for name in source.classes if name not in index]
    if strange or len(index) < ours or len(set(source.classes)) < theirs:
        example = f"{strange[0]!r} is none of the checkpoint's" if strange else "a name stands for several classes"
        remedy = "take that folder out" if by_id else "if both have them in the same order, add --by-index"
        raise InputError(
            f"{ckpt.source} and {source.name} name their classes differently ({example}, whose first is "
            f"{next(iter(index))!r}); {remedy}"
        )
    return np.asarray([index[name] for name in source.classes], np.int32)


def _labels(ckpt: Checkpoint, source: Source, order: Int32[np.ndarray, " classes"]) -> tuple[str, ...]:
    """The name of each class of the network, from whoever knows it."""
    if ckpt.labels is not None:
        return ckpt.labels
    names = {int(i): name for i, name in zip(order, source.classes or (), strict=False)}
    return tuple(names.get(i, f"class {i}") for i in range(ckpt.config.num_classes))


def _batches(
    ckpt: Checkpoint, source: Source, order: Int32[np.ndarray, " classes"], batch_size: int
) -> Iterator[EvalBatch]:
    """The pictures with the network's labels, under a progress bar."""
    stream = eval_stream(source, functools.partial(ckpt.preprocess, use_test_size=True), batch_size=batch_size)
    steps = math.ceil(len(source) / batch_size)
    for batch in tqdm(
        stream, total=steps, unit=" pictures", unit_scale=batch_size, smoothing=0, leave=False, disable=None
    ):
        yield batch._replace(label=np.where(batch.label < 0, np.int32(-1), order[batch.label]))


def _measured(found: Evaluation, which: Measure) -> dict[str, float | None]:
    """A measure with its interval. JSON has no NaN."""
    low, high = found.interval(which)
    values = {"value": getattr(found, which), "low": low, "high": high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _classes(found: Evaluation, labels: Sequence[str]) -> list[dict[str, Any]]:
    """What became of the pictures of each class, and what they are most often taken for instead."""
    classes = []
    for i, (label, row, top1) in enumerate(zip(labels, found.confusion, found.per_class_top1, strict=True)):
        others = np.where(np.arange(len(row)) == i, 0, row)
        mistaken = {"label": labels[int(others.argmax())], "pictures": int(others.max())} if others.any() else None
        classes.append(
            {
                "label": label,
                "pictures": int(row.sum()),
                "top1": None if np.isnan(top1) else float(top1),
                "most_mistaken_for": mistaken,
            }
        )
    return classes


def _lines(result: Mapping[str, Any], per_class: bool) -> list[str]:
    height, width = result["size"]
    broken = f", {result['broken']:,} broken" if result["broken"] else ""
    lines = [
        printable(f"{result['checkpoint']} at {height} x {width} on {result['data']}"),
        f"{result['pictures']:,} pictures{broken}, {result['seconds']} s",
        "",
        "           value   95 % interval",
    ]
    for name, title, digits, unit in (
        ("top1", "top-1", 2, " %"),
        ("top5", "top-5", 2, " %"),
        ("loss", "loss", 4, "  "),
    ):
        value, low, high = (_number(result[name][key], digits) for key in ("value", "low", "high"))
        lines.append(f"{title:6}  {value:>8}{unit}  {low} to {high}{unit}".rstrip())
    if "published" in result:
        lines += ["", *_published.lines(result["published"])]

    seen = [c for c in result["classes"] if c["pictures"]]
    worst = sorted(seen, key=lambda c: c["top1"])
    shown = worst if per_class else worst[:_WORST]
    width = max(len(printable(c["label"])) for c in shown)
    lines += ["", f"{'class':{width}}  pictures    top-1    most often taken for"]
    for c in shown:
        other = c["most_mistaken_for"]
        mistaken = f"{printable(other['label'])} ({other['pictures']:,})" if other else "-"
        lines.append(f"{printable(c['label']):{width}}  {c['pictures']:8,}  {c['top1']:6.2f} %  {mistaken}")
    if len(shown) < len(seen):
        lines.append(f"... and {len(seen) - len(shown):,} classes that are no worse; --per-class lists them")
    if len(seen) < len(result["classes"]):
        lines.append(f"classes without a picture here: {len(result['classes']) - len(seen):,}")
    return lines


def _number(value: float | None, digits: int) -> str:
    return "nan" if value is None else f"{value:.{digits}f}"
