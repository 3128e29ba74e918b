"""The training loop. From top to bottom: what a run is made of, its steps, its end."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import equinox as eqx
import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Source, eval_stream, open_source, train_stream
from nfnet_eqx.models import NFNet, count
from nfnet_eqx.train._checkpoint import Checkpoints
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._curves import Curves
from nfnet_eqx.train._distributed import init_distributed
from nfnet_eqx.train._evaluate import Evaluation, evaluate
from nfnet_eqx.train._export import export
from nfnet_eqx.train._mesh import REPLICATED, make_mesh, put_batch, shardings
from nfnet_eqx.train._metrics import Log, Writer
from nfnet_eqx.train._run import CHECKPOINTS_NAME, CURVES_NAME, EXPORT_NAME, claim, on_first_process
from nfnet_eqx.train._start import Start, count_classes, find_start
from nfnet_eqx.train._step import make_program
from nfnet_eqx.train._watch import Window, compiling, is_logged

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a call of `train` came to.

    Attributes:
        step: steps that the run has made.
        total_steps: steps that it has in all; fewer were made if it was stopped.
        evaluation: of the final network; `None` where the run was stopped.
        checkpoint: the folder of the exported checkpoint; `None` where the run was stopped.
    """

    step: int
    total_steps: int
    evaluation: Evaluation | None
    checkpoint: Path | None


def train(
    config: TrainConfig,
    *,
    recipe: str = "",
    writers: Sequence[Writer] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains a network, from where the run in `config.out` stands to its end, and exports it.

    Stopped in whatever way, a run goes on from its last checkpoint when the same is called again, and ends with the
    parameters of an unbroken one, to the bit. Under a launcher (Slurm, MPI, torchrun, ...) every process calls this.

    Args:
        config: all of the run's settings.
        recipe: what the settings are called, for `run.json` and the card.
        writers: other places for the metrics: anything with `write(step, split, metrics)` and `close()`.
        stop: asked after each step whether to save and return early; all processes must answer alike. The command's is
            true after SIGTERM. No signal handler is installed here; a program that wants the same writes
            `came = threading.Event(); signal.signal(signal.SIGTERM, lambda *_: came.set())` and gives `came.is_set`.
            (Where `jax.distributed` runs, JAX itself watches for SIGTERM, and no `stop` is needed.)

    Returns:
        How far it came. The folder `config.out` then holds `run.json`, `metrics.jsonl`, `checkpoints/` (the states),
        `curves.png`, and at the end `checkpoint/` (the network, as `from_pretrained` opens it).

    Raises:
        InputError: the data, the model, the batch size or the folder cannot be used, or the loss is no longer finite.
    """
    init_distributed()
    mesh = make_mesh()
    _check_batch(config, mesh)
    source = open_source(config.data, "train")
    held_out = open_source(config.eval_data or config.data, "validation", whole=config.eval_data is not None)
    start = find_start(config, count_classes(config, source, held_out))

    steps_per_epoch = len(source) * config.augment.repeats / config.batch_size
    total_steps = max(round(config.epochs * steps_per_epoch), 1)
    program = make_program(config, start.config, start.preprocess, mesh, total_steps=total_steps)
    _claim_and_announce(config, recipe, start, source, total_steps, mesh)

    with contextlib.ExitStack() as stack:
        folder = config.out / CHECKPOINTS_NAME
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(folder, keep=config.keep)))
        first = checkpoints.latest() or 0
        if first:
            state = checkpoints.restore(first, program.abstract, program.specs, mesh)
            _log.info("%s: going on from step %s", config.out, f"{first:,}")
        else:
            state = program.start(start.make())

        def judge() -> Evaluation:
            network = eqx.combine(state.params if state.ema is None else state.ema, program.static)
            pictures = _eval_batches(config, start, held_out)
            return evaluate(network, pictures, mesh=mesh, precision=config.precision, num_pictures=len(held_out))

        title = f"{start.architecture} on {source.name}"
        curves = Curves(config.out, config.out / CURVES_NAME, title, schedule=program.schedule, total_steps=total_steps)
        log = stack.enter_context(
            Log(
                config.out,
                resume_step=first,
                tensorboard=config.tensorboard,
                total_steps=total_steps,
                batch_size=config.batch_size,
                writers=[*writers, curves],
            )
        )
        batches = stack.enter_context(contextlib.closing(_train_batches(config, source, first)))
        window, evaluation = Window(config, program.schedule, steps_per_epoch, checkpoints.latest), None

        for step in range(first + 1, total_steps + 1):
            batch = next(batches)
            with compiling("the training step") if step == first + 1 else contextlib.nullcontext():
                state, metrics = program.step(state, *put_batch((batch.image, batch.label), mesh))
            window.add(step, metrics, int(batch.broken.sum()))
            log.progress(step)
            if is_logged(step, config.log_every, total_steps):
                log.write(step, "train", window.line())

            preempted = (checkpoints.reached_preemption(step) or stop()) and step < total_steps
            if not preempted and (_is_due(step, config.eval_every * steps_per_epoch) or step == total_steps):
                window.finish()
                evaluation = judge()
                numbers = {"loss": evaluation.loss, "top1": evaluation.top1, "top5": evaluation.top5}
                log.write(step, "eval", numbers | {"epoch": step / steps_per_epoch})
                checkpoints.save(step, state, {"top1": evaluation.top1})
                window.restart()
            elif preempted or (config.checkpoint_every and step % config.checkpoint_every == 0):
                window.finish()
                checkpoints.save(step, state)
            if preempted:
                checkpoints.wait()
                _log.warning(
                    "%s: stopped after step %s, and saved; the same command resumes it", config.out, f"{step:,}"
                )
                return Result(step=step, total_steps=total_steps, evaluation=None, checkpoint=None)

        checkpoints.wait()
        evaluation = evaluation or judge()  # a finished run, called again
        network = eqx.combine(_whole(state.params if state.ema is None else state.ema, mesh), program.static)
        on_first_process(lambda: _export(config, recipe, start, source, network, evaluation))
    return Result(step=total_steps, total_steps=total_steps, evaluation=evaluation, checkpoint=config.out / EXPORT_NAME)


def _export(
    config: TrainConfig, recipe: str, start: Start, source: Source, network: NFNet, evaluation: Evaluation
) -> None:
    export(
        network,
        config.out / EXPORT_NAME,
        architecture=start.architecture,
        preprocess=start.preprocess,
        labels=source.classes if source.num_classes == start.config.num_classes else None,
        training={"recipe": recipe} | {k: v for k, v in config.to_dict().items() if k not in ("out", "preprocess")},
        results={"top1": evaluation.top1, "top5": evaluation.top5, "loss": evaluation.loss},
        dataset=str(config.data),
        base_model=start.base_model,
    )


def _check_batch(config: TrainConfig, mesh: Mesh) -> None:
    mixed = config.augment.mixup > 0 or config.augment.cutmix
    sam = config.optimizer.sam_rho > 0 and config.optimizer.sam_fraction < 1
    repeats = config.augment.repeats
    parts = {
        f"{mesh.size} devices": mesh.size,
        f"micro_batches (={config.micro_batches})": config.micro_batches,
        "pairs of pictures": 2 if mixed or sam else 1,
        f"optimizer.sam_fraction (={config.optimizer.sam_fraction})": (
            round(1 / config.optimizer.sam_fraction) if sam else 1
        ),
    }
    unit = math.lcm(math.prod(parts.values()), 2 * repeats if repeats > 1 else 1)
    if config.batch_size % unit:
        below = config.batch_size // unit * unit
        why = [part for part, size in parts.items() if size > 1]
        why += [f"augment.repeats (={repeats}) in pairs"] if repeats > 1 else []
        raise InputError(
            f"batch_size (={config.batch_size}) must be a multiple of {unit}, for {', '.join(why)}; use "
            + (f"{below} or {below + unit}" if below else str(unit))
        )


def _claim_and_announce(
    config: TrainConfig, recipe: str, start: Start, source: Source, total_steps: int, mesh: Mesh
) -> None:
    size = count(start.config, config.image_size)
    copies = 2 if config.optimizer.ema_decay is None else 3  # parameters, momentum, average
    claim(config, recipe, start.config, source, bytes_needed=size.parameters * 4 * copies)
    _log.info(
        "%s: %s parameters, %.2f G multiply-adds a picture; %s pictures of %d classes; %s steps of %d on %d %s",
        start.architecture,
        f"{size.parameters:,}",
        size.macs / 1e9,
        f"{len(source):,}",
        start.config.num_classes,
        f"{total_steps:,}",
        config.batch_size,
        mesh.size,
        "device" if mesh.size == 1 else "devices",
    )


def _train_batches(config: TrainConfig, source: Source, first: int):
    return train_stream(
        source,
        config.augment,
        image_size=config.image_size,
        batch_size=config.batch_size,
        seed=config.seed,
        start=first,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        on_broken=config.on_broken,
        num_threads=config.num_threads,
        num_workers=config.num_workers,
    )


def _eval_batches(config: TrainConfig, start: Start, source: Source):
    return eval_stream(
        source,
        lambda picture: start.preprocess(picture, use_test_size=True),
        batch_size=config.batch_size // config.micro_batches,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        on_broken=config.on_broken,
        num_threads=config.num_threads,
    )


def _is_due(step: int, interval: float) -> bool:
    """Whether this step is the first at or after a multiple of `interval`, which need not be whole."""
    return math.floor(step / interval + 1e-9) > math.floor((step - 1) / interval + 1e-9)


def _whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """Sharded arrays, complete in every process."""
    replicated = shardings(jax.tree.map(lambda _: REPLICATED, tree), mesh)
    return jax.jit(lambda tree: tree, out_shardings=replicated)(tree)
