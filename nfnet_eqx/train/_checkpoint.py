"""The states of a run on disk, through Orbax: asynchronous, atomic, restored onto any number of devices and hosts."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy

from nfnet_eqx._errors import InputError
from nfnet_eqx.train._mesh import shardings
from nfnet_eqx.train._step import TrainState

_UNWRITTEN = ("cannot be written", "mend that, and the same command goes on after the last checkpoint")


class Checkpoints:
    """The checkpoints of one run: the last few, and the one with the best top-1.

    A step's folder holds `params`, `ema` and `opt`, so that what is exported later needs no optimizer. It gets its
    name when it is complete: what a killed run leaves half-written is never found, and written again.
    """

    def __init__(self, folder: Path, *, keep: int):
        self.folder = folder.absolute()

        def top1(metrics: Mapping[str, float]) -> float:
            return metrics["top1"]

        best = preservation_policy.BestN(get_metric_fn=top1, n=1, keep_checkpoints_without_metrics=False)
        last = preservation_policy.LatestN(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([last, best]),
            best_fn=top1,  # without it Orbax writes no metrics, and forgets the best with the process
        )
        with self._explained("cannot be opened", "mend that, or choose another folder"):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The last step that was saved."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, metrics: Mapping[str, float] | None = None) -> None:
        """Starts to save the state after `step` steps; a save that is still running is waited for.

        Raises:
            InputError: this or the last save failed, because the disk is full for example.
        """
        if step == self.latest():
            return
        with self._explained(*_UNWRITTEN):
            self._manager.save(
                step,
                args=ocp.args.Composite(**{name: ocp.args.StandardSave(item) for name, item in _items(state).items()}),
                metrics=None if metrics is None else dict(metrics),
                force=True,
            )

    def restore(self, step: int, abstract: TrainState, specs: TrainState, mesh: Mesh) -> TrainState:
        """The state after `step` steps, laid out as `specs` say, whatever the layout was that saved it.

        Raises:
            InputError: the checkpoint is damaged, or of another network.
        """
        abstract = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract,
            shardings(specs, mesh),
        )
        with self._explained(f"step {step} cannot be read", "delete its folder to go on from the one before"):
            wanted = {name: ocp.args.StandardRestore(item) for name, item in _items(abstract).items()}
            found = self._manager.restore(step, args=ocp.args.Composite(**wanted))
        count, opt_state = found["opt"]
        return TrainState(step=count, params=found["params"], ema=found.get("ema"), opt_state=opt_state)

    def reached_preemption(self, step: int) -> bool:
        """Whether the hosts agreed to stop after this step, because one of them got SIGTERM."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when the last save is on disk.

        Raises:
            InputError: it failed.
        """
        with self._explained(*_UNWRITTEN):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the last save, and ends Orbax's threads."""
        with self._explained(*_UNWRITTEN):
            self._manager.close()

    @contextlib.contextmanager
    def _explained(self, what: str, remedy: str) -> Iterator[None]:
        """Orbax's and the file system's exceptions as one line; they come in all types."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            if found := re.search(r"([^:]+) \[os_error_code=", reason):  # behind the names of files and operations
                reason = found[1].strip()
            raise InputError(f"{self.folder}: {what}: {reason[:300]}; {remedy}") from error


def _items(state: TrainState) -> dict[str, PyTree]:
    """The parts of a state that are saved side by side; Orbax has no way to save nothing."""
    items = {"params": state.params, "ema": state.ema, "opt": (state.step, state.opt_state)}
    return {name: item for name, item in items.items() if item is not None}
