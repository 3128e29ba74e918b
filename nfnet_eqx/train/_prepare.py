"""A run before its first step: everything that it is made of, and everything that would only fail at its end.

What evaluation, the card or the export will refuse is refused here, before anything is computed or written.
"""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import EXPORT_NAME, Checkpoint, History, Run, saved_steps, write_card
from nfnet_eqx.data import Source, check_readable, open_source
from nfnet_eqx.models import Network, count, skeleton
from nfnet_eqx.train._config import TrainConfig, batch_unit
from nfnet_eqx.train._cost import count_evaluations, evaluation_flops, step_flops
from nfnet_eqx.train._export import check_replaceable
from nfnet_eqx.train._memory import check_activations
from nfnet_eqx.train._mesh import make_mesh
from nfnet_eqx.train._run import check_same, find_run, resumed_start, run_settings
from nfnet_eqx.train._start import Start, count_classes, find_start, relabelled
from nfnet_eqx.train._step import Program, make_program

_log = logging.getLogger(__name__)

_WORTH_SAYING = 0.01  # what the evaluations cost, of the training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run is made of.

    Attributes:
        config: its settings, with the sizes and the batch that they came to.
        mesh: the devices.
        source: the training images, under the network's classes.
        held_out: the images of its evaluations, likewise.
        start: the network.
        program: what it computes.
        steps_per_epoch: steps in a pass over the data, which need not be whole.
        total_steps: steps in all.
        found: what its folder held of it; `None`: it begins.
        settings: what `run.json` says.
        about: what its checkpoint will say: the arguments of `export` that are known before it is trained.
    """

    config: TrainConfig
    mesh: Mesh
    source: Source
    held_out: Source
    start: Start
    program: Program
    steps_per_epoch: float
    total_steps: int
    found: Run | None
    settings: dict[str, Any]
    about: dict[str, Any]

    @property
    def state_bytes(self) -> int:
        """Of one saved state."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.program.abstract))

    @property
    def step_flops(self) -> int:
        """The training FLOPs of one step, over all devices."""
        return step_flops(self.config, self.start.config)

    def spent(self, step: int, seconds: float | None) -> dict[str, float]:
        """What `step` steps come to: epochs, images with their repeats, training FLOPs, and seconds where known."""
        return {
            "epoch": step / self.steps_per_epoch,
            "images": step * self.config.batch_size,
            "flops": float(step * self.step_flops),
            **({} if seconds is None else {"seconds": seconds}),
        }


def prepare(config: TrainConfig, recipe: str) -> tuple[Prepared, Network | None]:
    """Finds all that a run needs, and refuses what cannot be trained, evaluated or exported.

    Returns:
        The run, and the network whose parameters it starts from, as `find_start` gives it; `None` where it has states.

    Raises:
        InputError: the data, the model, the batch size or the folder cannot be used; nothing was written.
    """
    mesh = make_mesh()
    source = open_source(config.data, "train")
    held_out = open_source(config.eval_data or config.data, "validation", whole=config.eval_data is not None)
    num_classes = count_classes(config, source, held_out)
    run, pretrained = find_run(config.out), None
    if run is None:
        start, pretrained = find_start(config, num_classes, source.classes)
    else:
        start = resumed_start(run)
    config = resolve_sizes(config, start, len(source), mesh.size)
    steps_per_epoch, total_steps = count_steps(config, len(source))
    settings = run_settings(config, recipe, start, source)
    if run is not None:
        finished = saved_steps(config.out)[-1] >= total_steps
        if finished and (renamed := _with_new_name(run, start, settings["data"])):
            start, settings["data"] = renamed, run.settings["data"]
        check_same(config.out, run, settings)
    program = make_program(config, start.config, start.preprocess, mesh, total_steps=total_steps)
    about = _about(config, recipe, start)
    for images in (source, held_out):
        check_readable(images)
    _check_end(config, start, source, about)
    check_activations(program, config, start.preprocess, mesh)
    prepared = Prepared(
        config=config,
        mesh=mesh,
        source=relabelled(source, start),
        held_out=relabelled(held_out, start),
        start=start,
        program=program,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        found=run,
        settings=settings,
        about=about,
    )
    return prepared, pretrained


def announce(run: Prepared) -> None:
    """Logs what will be done."""
    size = count(run.start.config, run.start.preprocess.input_size)
    _log.info(
        "%s: %s parameters, %.2f G multiply-adds a picture; %s pictures of %d classes; %s steps of %d on %d %s",
        run.start.architecture,
        f"{size.parameters:,}",
        size.macs / 1e9,
        f"{len(run.source):,}",
        run.start.config.num_classes,
        f"{run.total_steps:,}",
        run.config.batch_size,
        run.mesh.size,
        "device" if run.mesh.size == 1 else "devices",
    )
    training, evaluation = run.total_steps * run.step_flops, _evaluation_flops(run)
    _log.info(
        "%s: training costs %s%.3g FLOPs (%.3g an image%s)%s",
        run.start.architecture,
        "at most " if run.config.optimizer.frozen else "",
        training,
        run.step_flops / run.config.batch_size,
        ", SAM's first gradient included" if run.config.optimizer.sam_rho > 0 else "",
        f", and evaluation {evaluation:.3g} FLOPs" if evaluation >= _WORTH_SAYING * training else "",
    )


def _evaluation_flops(run: Prepared) -> int:
    """Of all evaluations of a run's states; the exported network may have one more, in float32."""
    times = count_evaluations(run.total_steps, run.config.eval_every_epochs * run.steps_per_epoch)
    return times * evaluation_flops(run.config, run.start.config, len(run.held_out))


def resolve_sizes(config: TrainConfig, start: Start, images: int, devices: int) -> TrainConfig:
    """The settings with the sizes of the images, and with no larger batch than there are images, if one divides.

    Raises:
        InputError: the batch cannot be divided over the devices.
    """
    batch_size, (unit, why) = config.batch_size, batch_unit(config, devices)
    if batch_size > max(images, unit):
        batch_size = unit * 2 ** (max(images // unit, 1).bit_length() - 1)
        _log.warning("batch_size (=%d) is more than the %d images; %d here", config.batch_size, images, batch_size)
    if batch_size % unit:
        below = batch_size // unit * unit
        raise InputError(
            f"batch_size (={batch_size}) must be a multiple of {unit}, for {', '.join(why)}; use "
            + (f"{below} or {below + unit}" if below else str(unit))
        )
    return dataclasses.replace(
        config,
        batch_size=batch_size,
        image_size=config.image_size or start.preprocess.input_size[0],
        eval_size=config.eval_size or start.preprocess.size(use_test_size=True)[0],
    )


def count_steps(config: TrainConfig, images: int) -> tuple[float, int]:
    """Steps in a pass over so many images, which need not be whole, and steps of the whole run."""
    steps_per_epoch = images * config.augment.repeats / config.batch_size
    return steps_per_epoch, max(round(config.epochs * steps_per_epoch), 1)


def _with_new_name(run: Run, start: Start, data: Mapping[str, Any]) -> Start | None:
    """For data in which one class has another name than in the run: the network's classes stay, with that name.

    Folders are numbered by their names, so a new name may give all of them other numbers. `None`: something else has
    changed, and which name stands for which class cannot be known.
    """
    before = run.settings["data"]
    old: Sequence[str] = before.get("classes") or ()
    new: Sequence[str] = data["classes"] or ()
    gone, came = [name for name in old if name not in new], [name for name in new if name not in old]
    if data["pictures"] != before.get("pictures") or not len(came) == len(gone) == 1:
        return None
    place = dict(zip(old, start.classes, strict=True))
    classes = tuple(place[gone[0] if name == came[0] else name] for name in new)
    labels = start.labels
    if labels is not None:
        labels = tuple(came[0] if label == gone[0] else label for label in labels)
    return start._replace(classes=classes, labels=labels)


def _about(config: TrainConfig, recipe: str, start: Start) -> dict[str, Any]:
    return {
        "architecture": start.architecture,
        "preprocess": start.preprocess,
        "labels": start.labels,
        "training": {"recipe": recipe} | {k: v for k, v in config.to_dict().items() if k not in ("out", "preprocess")},
        "dataset": str(config.data),
        "base_model": start.base_model,
    }


def _check_end(config: TrainConfig, start: Start, source: Source, about: Mapping[str, Any]) -> None:
    """Goes through the end of the run without its result."""
    check_replaceable(Path(config.out).resolve() / EXPORT_NAME)
    if start.labels is not None:
        check_class_names(start.labels, source.name, "rename the class")
    ckpt = Checkpoint(
        model=skeleton(start.config),
        preprocess=start.preprocess,
        labels=start.labels,
        architecture=start.architecture,
    )
    history = History(training=about["training"], dataset=about["dataset"], base_model=about["base_model"])
    with tempfile.TemporaryDirectory(prefix="nfnet-eqx-card-") as folder:
        write_card(folder, ckpt, history)
