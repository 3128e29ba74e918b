"""The runs of a sweep, how each is called, and what it costs."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Source, open_source
from nfnet_eqx.models import count
from nfnet_eqx.scaling._sweep_config import SweepConfig, SweepModel
from nfnet_eqx.train import TrainConfig, count_classes, count_steps, find_start, make_mesh, resolve_sizes, step_flops

# The images of training and of evaluation, by where they are.
_Opened = dict[tuple[Path, Path | None], tuple[Source, Source]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run of a sweep.

    Attributes:
        id: its folder's name, and its `run` in the results: model, epochs, learning rate and seed.
        model: the network.
        family: of the network, or what the model says instead.
        config: the settings, with an `out` that the sweep replaces.
        recipe: what they started from.
        dataset: what it is trained on, in words: the folder's name, and how many images.
        parameters: of the network.
        flops_per_step: of its training.
        steps: of the whole run.
        steps_per_epoch: in a pass over the data, which need not be whole.
        images: seen in training, repeats counted.
        unique_images: different ones among them.
    """

    id: str
    model: SweepModel
    family: str
    config: TrainConfig
    recipe: str
    dataset: str
    parameters: int
    flops_per_step: int
    steps: int
    steps_per_epoch: float
    images: int
    unique_images: int

    @property
    def flops(self) -> int:
        """Of the whole run."""
        return self.steps * self.flops_per_step

    def unique_among(self, images: int) -> int:
        """Different images among the first so many of the run."""
        repeats = self.config.augment.repeats
        return min(self.unique_images, -(-images // repeats))


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """All runs of a sweep, model by model as the file has them, each by epochs, learning rates and seeds."""

    runs: tuple[PlannedRun, ...]

    @property
    def flops(self) -> int:
        """Of all runs together."""
        return sum(run.flops for run in self.runs)


def plan_sweep(config: SweepConfig) -> SweepPlan:
    """The runs of a sweep, with their cost; the data is opened, nothing is computed or written.

    Raises:
        InputError: the data cannot be opened, or a model cannot be trained on it; naming every such model.
    """
    runs: list[PlannedRun] = []
    faults: dict[str, str] = {}
    opened: _Opened = {}
    for model in config.models:
        try:
            runs += _runs_of(config, model, opened)
        except InputError as error:
            faults.setdefault(str(error), model.name)
    if faults:
        raise InputError("; ".join(f"model {name}: {fault}" for fault, name in faults.items()))
    return SweepPlan(tuple(runs))


def run_id(model: str, epochs: float, learning_rate: float, seed: int) -> str:
    """What a run is called; different runs of a sweep are called differently."""
    return f"{model}-e{_shortest(epochs)}-lr{_shortest(learning_rate)}-s{seed}"


def _runs_of(config: SweepConfig, model: SweepModel, opened: _Opened) -> list[PlannedRun]:
    runs, size = [], None
    for epochs in config.epochs:
        for learning_rate in config.rates(model, epochs):
            for seed in config.seeds:
                train = config.train_config(model, Path(), epochs=epochs, learning_rate=learning_rate, seed=seed)
                size = size or _measure(train, opened)
                train = dataclasses.replace(train, **size.settings)
                steps_per_epoch, steps = count_steps(train, size.images)
                images, repeats = steps * train.batch_size, train.augment.repeats
                runs.append(
                    PlannedRun(
                        id=run_id(model.name, epochs, learning_rate, seed),
                        model=model,
                        family=model.family or size.family,
                        config=_saving(train, steps),
                        recipe=model.recipe or config.recipe,
                        dataset=f"{train.data.name} ({size.images} images)",
                        parameters=size.parameters,
                        flops_per_step=size.flops_per_step,
                        steps=steps,
                        steps_per_epoch=steps_per_epoch,
                        images=images,
                        unique_images=min(size.images, -(-images // repeats)),
                    )
                )
    return runs


class _Size(NamedTuple):
    """What all runs of a model have in common."""

    settings: dict[str, int | None]
    images: int
    family: str
    parameters: int
    flops_per_step: int


def _measure(config: TrainConfig, opened: _Opened) -> _Size:
    where = config.data, config.eval_data
    if where not in opened:  # once for all models, as a rule
        held_out = open_source(config.eval_data or config.data, "validation", whole=config.eval_data is not None)
        opened[where] = open_source(config.data, "train"), held_out
    source, held_out = opened[where]
    start, _ = find_start(config, count_classes(config, source, held_out), source.classes)
    sizes = resolve_sizes(config, start, len(source), make_mesh().size)
    assert sizes.image_size is not None, "it has been resolved"
    parameters = count(start.config, sizes.image_size).parameters
    settings = {name: getattr(sizes, name) for name in ("batch_size", "image_size", "eval_size")}
    return _Size(settings, len(source), start.config.FAMILY, parameters, step_flops(sizes, start.config))


def _saving(config: TrainConfig, steps: int) -> TrainConfig:
    """Where the recipe saves no state on the way, ten of a run are: as much is lost at most when it is killed."""
    if config.checkpoint_every_steps:
        return config
    return dataclasses.replace(config, checkpoint_every_steps=max(steps // 10, 100))


def _shortest(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
