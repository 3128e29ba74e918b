"""The training loop. From top to bottom: what a run is made of, its steps, its end."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import equinox as eqx
import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from nfnet_eqx.checkpoints import EXPORT_NAME, STATES_NAME
from nfnet_eqx.data import Batch, eval_stream, train_stream
from nfnet_eqx.models import Network
from nfnet_eqx.train._checkpoint import Checkpoints
from nfnet_eqx.train._config import Precision, TrainConfig
from nfnet_eqx.train._curves import Curves
from nfnet_eqx.train._distributed import init_distributed
from nfnet_eqx.train._evaluate import Evaluation, evaluate
from nfnet_eqx.train._export import export
from nfnet_eqx.train._memory import check_compiled, out_of_memory_explained
from nfnet_eqx.train._mesh import REPLICATED, put_batch, shardings
from nfnet_eqx.train._metrics import FILE, Log, Writer, read_metrics
from nfnet_eqx.train._prepare import Prepared, announce, prepare
from nfnet_eqx.train._run import CURVES_NAME, first_process_says, holding, on_first_process
from nfnet_eqx.train._step import TrainState, compile_step
from nfnet_eqx.train._watch import Window, compiling, is_logged

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a call of `train` came to.

    Attributes:
        step: steps that the run has made.
        total_steps: steps that it has in all; fewer were made if it was stopped.
        evaluation: of the exported network (without one, of the last), in float32, as `nfnet-eqx evaluate` makes it;
            `None` where the run was stopped.
        checkpoint: the folder of the exported checkpoint; `None` where the run was stopped or exports none.
        exported_step: after how many steps the exported network was saved; `None` like `checkpoint`.
    """

    step: int
    total_steps: int
    evaluation: Evaluation | None
    checkpoint: Path | None
    exported_step: int | None = None


def train(
    config: TrainConfig,
    *,
    recipe: str = "",
    writers: Sequence[Writer] = (),
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
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
        progress: show how far the run is: a bar or lines, and `curves.png`. The metrics are written in any case.

    Returns:
        How far it came. The folder `config.out` then holds `run.json`, `metrics.jsonl`, `checkpoints/` (the states),
        `curves.png`, and at the end `checkpoint/` (the network of `config.export`, as `from_pretrained` opens it).

    Raises:
        InputError: the data, the model, the batch size or the folder cannot be used, or a step does not fit into
            memory. Of its kinds, `Locked` is that another process trains in the folder, `Diverged` that the loss is no
            longer finite.
    """
    init_distributed()
    with out_of_memory_explained(config), contextlib.ExitStack() as stack:
        run, pretrained = prepare(config, recipe)
        config, mesh, program = run.config, run.mesh, run.program
        bytes_needed = run.state_bytes * (config.keep + 2)
        stack.enter_context(holding(config.out, run.settings, found=run.found, bytes_needed=bytes_needed))
        announce(run)
        folder = config.out / STATES_NAME
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(folder, keep=config.keep, top1=_known_top1(config.out)))
        )
        first = checkpoints.latest() or 0
        step = program.step
        if first < run.total_steps:
            with compiling("the training step"):
                step = compile_step(program, config, mesh)
            check_compiled(step.function, config, mesh)
        if first:
            state = checkpoints.restore(first, program.abstract, program.specs, mesh)
            _log.info("%s: going on from step %s", config.out, f"{first:,}")
        else:
            _log.info("making the state before the first step")
            state = program.start(pretrained)
        del pretrained  # else it would stay on the device as long as the run

        title = f"{run.start.architecture} on {run.source.name}"
        schedule, total = program.schedule, run.total_steps
        curves = [Curves(config.out, config.out / CURVES_NAME, title, schedule=schedule, total_steps=total)]
        log = stack.enter_context(
            Log(
                config.out,
                resume_step=first,
                tensorboard=config.tensorboard,
                total_steps=run.total_steps,
                batch_size=config.batch_size,
                writers=[*writers, *(curves if progress else [])],
                progress=progress,
            )
        )
        batches = stack.enter_context(contextlib.closing(_train_batches(run, first)))
        broken, seconds = (checkpoints.broken(first), checkpoints.seconds(first)) if first else (0, 0.0)
        evaluations = _Evaluations(run, checkpoints, log)
        if first and evaluations.is_due(first) and first_process_says(checkpoints.top1(first) is None):
            evaluations.make(first, state, seconds)  # the run ended between saving and this

        window = Window(config, program.schedule, checkpoints.latest, broken=broken, seconds=seconds)
        for number in range(first + 1, run.total_steps + 1):
            batch = next(batches)
            state, metrics = step(state, *put_batch((batch.image, batch.label), mesh))
            window.add(number, metrics, int(batch.broken.sum()))
            log.progress(number)
            if is_logged(number, config.log_every_steps, run.total_steps):
                line = window.line()
                log.write(number, "train", line | run.spent(number, window.seconds))
                window.restart()  # it may have drawn the curves

            preempted = (checkpoints.reached_preemption(number) or stop()) and number < run.total_steps
            evaluated = evaluations.is_due(number) and not preempted
            interval = config.checkpoint_every_steps
            if evaluated or preempted or (interval and number % interval == 0):
                window.finish()
                checkpoints.save(number, state, broken=window.broken, seconds=window.seconds)
            if evaluated:
                evaluations.make(number, state, window.seconds)
                window.restart()
            if preempted:
                checkpoints.wait()
                _log.warning(
                    "%s: stopped after step %s, and saved; the same command resumes it", config.out, f"{number:,}"
                )
                return Result(step=number, total_steps=run.total_steps, evaluation=None, checkpoint=None)
        checkpoints.wait()
        return _finish(run, state, checkpoints, evaluations)


class _Evaluations:
    """The evaluations of a run's states, in the run's precision: quick, for the curves, and to find the best."""

    def __init__(self, run: Prepared, checkpoints: Checkpoints, log: Log):
        self._run, self._checkpoints, self._log = run, checkpoints, log
        self._interval = run.config.eval_every_epochs * run.steps_per_epoch
        self._last: tuple[int, Evaluation] | None = None

    def is_due(self, step: int) -> bool:
        """Whether this step is the last, or the first from a multiple of the interval on, which need not be whole."""
        done, before = (math.floor(n / self._interval + 1e-9) for n in (step, step - 1))
        return done > before or step == self._run.total_steps

    def make(self, step: int, state: TrainState, seconds: float | None) -> None:
        """Evaluates the state after `step` steps, which took so long, and notes its numbers."""
        network = eqx.combine(state.params if state.ema is None else state.ema, self._run.program.static)
        evaluation = _evaluate(self._run, network, self._run.config.precision)
        self._log.write(step, "eval", _numbers(evaluation) | self._run.spent(step, seconds))
        self._checkpoints.rate(step, evaluation.top1)
        self._last = step, evaluation

    def in_float32(self, step: int) -> Evaluation | None:
        """That of a state, if it was the last one and needs not be made again for the card."""
        if self._last is None or self._last[0] != step or self._run.config.precision != "float32":
            return None
        return self._last[1]


def _finish(run: Prepared, state: TrainState, checkpoints: Checkpoints, evaluations: _Evaluations) -> Result:
    """Evaluates the network of the best state, or of the last, as `nfnet-eqx evaluate` does, and exports it."""
    config, program, step = run.config, run.program, run.total_steps
    if config.export == "best":
        step = first_process_says(checkpoints.best() or run.total_steps)
    if step == run.total_steps:
        params = state.params if state.ema is None else state.ema
    else:
        params = checkpoints.restore_network(step, program.abstract, program.specs, run.mesh)
    network = eqx.combine(_whole(params, run.mesh), program.static)
    evaluation = evaluations.in_float32(step) or _evaluate(run, network, "float32")
    if config.export is None:
        return Result(step=run.total_steps, total_steps=run.total_steps, evaluation=evaluation, checkpoint=None)
    why = "the best on the evaluation images" if config.export == "best" else "the last"
    exported = f"step {step:,} of {run.total_steps:,}, {why}"
    results = _numbers(evaluation)
    about = run.about | {"training": {"exported": exported} | run.about["training"]}
    on_first_process(lambda: export(network, config.out / EXPORT_NAME, **about, results=results))
    _log.info("%s: exported %s: top-1 %.2f %%", config.out / EXPORT_NAME, exported, evaluation.top1)
    return Result(
        step=run.total_steps,
        total_steps=run.total_steps,
        evaluation=evaluation,
        checkpoint=config.out / EXPORT_NAME,
        exported_step=step,
    )


def _numbers(evaluation: Evaluation) -> dict[str, float]:
    """What the log and the card state; of five classes or fewer, top-5 is 100 % whatever the network."""
    top5 = {"top5": evaluation.top5} if evaluation.num_classes > 5 else {}
    return {"loss": evaluation.loss, "top1": evaluation.top1, **top5}


def _evaluate(run: Prepared, network: Network, precision: Precision) -> Evaluation:
    _log.info("evaluating on %s images in %s", f"{len(run.held_out):,}", precision)
    batches = eval_stream(
        run.held_out,
        lambda image: run.start.preprocess(image, use_test_size=True),
        batch_size=run.config.batch_size // run.config.micro_batches,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        on_broken=run.config.on_broken,
        num_threads=run.config.num_threads,
    )
    return evaluate(network, batches, mesh=run.mesh, precision=precision, num_pictures=len(run.held_out))


def _train_batches(run: Prepared, first: int) -> Generator[Batch, None, None]:
    config = run.config
    assert config.image_size is not None, "prepare has found it"
    return train_stream(
        run.source,
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


def _known_top1(out: Path) -> dict[int, float]:
    """Of the states that were evaluated before, by step."""
    if not (out / FILE).exists():
        return {}
    return {r["step"]: r["top1"] for r in read_metrics(out) if r["split"] == "eval" and "top1" in r}


def _whole(tree: PyTree, mesh: Mesh) -> PyTree:
    """Sharded arrays, complete in every process."""
    replicated = shardings(jax.tree.map(lambda _: REPLICATED, tree), mesh)
    return jax.jit(lambda tree: tree, out_shardings=replicated)(tree)
