"""The measurements that every part of this package works on: one row for each evaluation of a training run."""

import dataclasses
from typing import Literal

Status = Literal["done", "diverged", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation of one training run.

    What is not known is `None`: a table from elsewhere may have no more than compute and loss.

    Attributes:
        run: names the run; the evaluations of one run share it.
        model: names the network.
        family: what is compared: "NFNet", "ViT".
        dataset: what was trained on; points of different ones are never fitted together.
        parameters: learnable numbers of the network.
        images: images seen in training, repeats counted.
        unique_images: different images among them.
        epochs: passes over the data.
        flops: of the training so far.
        seconds: of the training so far, without compiling and evaluation.
        learning_rate: as the run's configuration states it.
        seed: of the run.
        loss: on held-out images, in nats; `None` where the run diverged or failed.
        top1: on held-out images, in per cent.
        final: whether the run's schedule ended here; a fit uses no other rows.
        status: "done"; "diverged": the loss was no longer finite, which is a result; "failed": stopped by something
            else, at each try.
    """

    run: str
    model: str = ""
    family: str = ""
    dataset: str = ""
    parameters: float | None = None
    images: float | None = None
    unique_images: float | None = None
    epochs: float | None = None
    flops: float | None = None
    seconds: float | None = None
    learning_rate: float | None = None
    seed: int | None = None
    loss: float | None = None
    top1: float | None = None
    final: bool = True
    status: Status = "done"
