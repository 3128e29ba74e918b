"""How good a checkpoint is on a data set: classes matched, with its own preprocessing or the published one."""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32
from tqdm import tqdm

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint, ClassOrder, match_classes
from nfnet_eqx.data import EvalBatch, Source, eval_stream, open_source
from nfnet_eqx.train._evaluate import Evaluation, evaluate
from nfnet_eqx.train._published import Comparison, compare, find_published


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassResult:
    """What became of the images of one class.

    Attributes:
        label: its name.
        images: how many of it there are.
        top1: its top-1 in percent; `None` without images.
        mistaken_for: the class that its images are most often taken for instead; `None`: all are right.
        mistaken: how many are.
    """

    label: str
    images: int
    top1: float | None
    mistaken_for: str | None
    mistaken: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CheckpointEvaluation:
    """What came out for a checkpoint on a data set.

    Attributes:
        checkpoint: what was evaluated, with the preprocessing that was used.
        data: where the images came from.
        labels: the name of each class of the network, from whoever knows it.
        evaluation: the answers, and the measures that follow from them.
        published: the published accuracy beside the measured one, where it was asked for.
        seconds: how long it took, compilation included.
    """

    checkpoint: Checkpoint
    data: str
    labels: tuple[str, ...]
    evaluation: Evaluation
    published: Comparison | None
    seconds: float

    @property
    def per_class(self) -> list[ClassResult]:
        """What became of the images of each class of the network."""
        found, classes = self.evaluation, []
        for i, (row, top1) in enumerate(zip(found.confusion, found.per_class_top1, strict=True)):
            others = np.where(np.arange(len(row)) == i, 0, row)
            classes.append(
                ClassResult(
                    label=self.labels[i],
                    images=int(row.sum()),
                    top1=None if np.isnan(top1) else float(top1),
                    mistaken_for=self.labels[int(others.argmax())] if others.any() else None,
                    mistaken=int(others.max()),
                )
            )
        return classes


def evaluate_checkpoint(
    ckpt: Checkpoint,
    data: Source | str | os.PathLike[str],
    *,
    split: Literal["train", "validation"] = "validation",
    size: int | None = None,
    published: bool = False,
    class_order: ClassOrder = "name",
    batch_size: int = 64,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> CheckpointEvaluation:
    """Measure a checkpoint on labelled images, as `nfnet-eqx evaluate` does.

    >>> import nfnet_eqx as nfx
    >>> from nfnet_eqx.data import Arrays
    >>> images, labels = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    >>> cifar10 = Arrays(images, labels, nfx.from_pretrained("nfnet_cifar10").labels)
    >>> found = evaluate_checkpoint(nfx.from_pretrained("nfnet_cifar10"), cifar10, batch_size=4)
    >>> found.evaluation.top1
    25.0

    Classes are matched by `match_classes`. An image that cannot be read is left out, and counted. In several processes,
    each calls this, reads its part of the images and gets the whole result.

    Args:
        ckpt: the checkpoint, with the preprocessing that is used at its test size.
        data: the images, or a folder of them as `open_source` reads it.
        split: which part of the folder.
        size: side of the images in pixels, if not the checkpoint's test size.
        published: preprocess exactly as for the published accuracy of this checkpoint, at the test size or at `size`,
            and compare with it. Photos are then not turned upright: none were.
        class_order: how classes are matched, where not by name.
        batch_size: images that are run together, over all devices.
        mesh: of one axis, `"data"`; by default of all devices.
        progress: show a bar on stderr, where that is a terminal.

    Raises:
        InputError: the data cannot be opened or none of it be read; it has other classes than the checkpoint; or
            nothing was published for this checkpoint at this size.
    """
    source = open_source(Path(data), split, whole=True) if isinstance(data, str | os.PathLike) else data
    _check_network(ckpt, source)
    known = find_published(ckpt) if published else None
    accuracy = None if known is None else known.accuracy(size)
    if accuracy is not None:
        ckpt = dataclasses.replace(ckpt, preprocess=accuracy.preprocess())
    elif size is not None:
        ckpt = dataclasses.replace(ckpt, preprocess=dataclasses.replace(ckpt.preprocess, test_input_size=(size, size)))
    order = match_classes(
        ckpt.labels,
        ckpt.config.num_classes,
        source.classes,
        source.num_classes,
        order=class_order,
        checkpoint=str(ckpt.source),
        data=source.name,
    )
    start = time.perf_counter()
    batches = _batches(ckpt, source, order, batch_size, orient=not published, progress=progress)
    found = evaluate(ckpt.model, batches, mesh=mesh, num_pictures=len(source))
    comparison = None
    if known is not None and accuracy is not None:
        comparison = compare(known, accuracy, ckpt, source.num_classes, found)
    return CheckpointEvaluation(
        checkpoint=ckpt,
        data=source.name,
        labels=_labels(ckpt, source, order),
        evaluation=found,
        published=comparison,
        seconds=time.perf_counter() - start,
    )


def _check_network(ckpt: Checkpoint, source: Source) -> None:
    if ckpt.config.in_channels != 3:
        raise InputError(f"{ckpt.source}: takes {ckpt.config.in_channels} channels; an image has 3 (RGB)")
    if ckpt.config.num_classes == 0:
        raise InputError(f"{ckpt.source}: has no classifier; fine-tune it on {source.name} first")


def _labels(ckpt: Checkpoint, source: Source, order: Int32[np.ndarray, " classes"]) -> tuple[str, ...]:
    if ckpt.labels is not None:
        return ckpt.labels
    names = {int(i): name for i, name in zip(order, source.classes or (), strict=False)}
    return tuple(names.get(i, f"class {i}") for i in range(ckpt.config.num_classes))


def _batches(
    ckpt: Checkpoint,
    source: Source,
    order: Int32[np.ndarray, " classes"],
    batch_size: int,
    *,
    orient: bool,
    progress: bool,
) -> Iterator[EvalBatch]:
    """This host's images with the network's labels."""
    stream = eval_stream(
        source,
        functools.partial(ckpt.preprocess, use_test_size=True),
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        orient=orient,
    )
    bar = tqdm(
        stream,
        total=math.ceil(len(source) / batch_size),
        unit=" images",
        unit_scale=batch_size,
        smoothing=0,
        leave=False,
        disable=None if progress else True,  # None: where stderr is no terminal
    )
    for batch in bar:
        yield batch._replace(label=np.where(batch.label < 0, np.int32(-1), order[batch.label]))
