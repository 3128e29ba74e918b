"""The states of a run on disk, through Orbax: asynchronous, atomic, restored onto any number of devices and hosts."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from jaxtyping import PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx._orbax import ocp, preservation_policy
from nfnet_eqx.train._mesh import laid_out
from nfnet_eqx.train._step import TrainState

_UNWRITTEN = ("cannot be written", "mend that, and the same command goes on after the last checkpoint")

# How TensorStore ends a message about a file that the system refused.
_OS_ERROR = re.compile(r"([^:]+) \[os_error_code=")


class Checkpoints:
    """The saved states of one run: the last few, and the one with the best top-1.

    A step's folder holds `params`, `ema` and `opt`, so that what is exported later needs no optimizer. It gets its
    name when it is complete: what a killed run leaves half-written is never found, and written again.

    Args:
        folder: of the states.
        keep: how many of the last ones stay.
        top1: of the states that were evaluated, by step, as far as is known.
    """

    def __init__(self, folder: Path, *, keep: int, top1: Mapping[int, float] | None = None):
        self.folder = folder.absolute()
        self._top1 = dict(top1 or {})
        options = ocp.CheckpointManagerOptions(preservation_policy=_LastAndBest(keep, self._top1))
        with self._explained("cannot be opened", "mend that, or choose another folder"):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The last step that was saved."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The saved step with the best top-1; of equals the last; `None`: none was evaluated."""
        return _best(self._manager.all_steps(), self._top1)

    def top1(self, step: int) -> float | None:
        """The top-1 of a state, if it was evaluated."""
        return self._top1.get(step)

    def rate(self, step: int, top1: float) -> None:
        """Notes how good a state is. It was saved before: nothing is lost with an evaluation that fails."""
        self._top1[step] = top1

    def save(self, step: int, state: TrainState, *, broken: int = 0, seconds: float | None = None) -> None:
        """Starts to save the state after `step` steps; a save that is still running is waited for.

        Args:
            step: how many were made.
            state: after them.
            broken: images that could not be read so far.
            seconds: of training so far, where known.

        Raises:
            InputError: this or the last save failed, because the disk is full for example.
        """
        if step == self.latest():
            return
        with self._explained(*_UNWRITTEN):
            self._manager.save(
                step,
                args=ocp.args.Composite(**{name: ocp.args.StandardSave(item) for name, item in _items(state).items()}),
                custom_metadata={"broken": broken, "seconds": seconds},
                force=True,
            )

    def broken(self, step: int) -> int:
        """How many images could not be read in the steps up to this one."""
        return int(self._metadata(step).get("broken", 0))

    def seconds(self, step: int) -> float | None:
        """The time of training up to this step; `None`: an older version saved the state, and it is not known."""
        return self._metadata(step).get("seconds")

    def _metadata(self, step: int) -> Mapping[str, Any]:
        with self._damage_explained(step):
            return self._manager.metadata(step).custom_metadata or {}

    def restore(self, step: int, abstract: TrainState, specs: TrainState, mesh: Mesh) -> TrainState:
        """The state after `step` steps, laid out as `specs` say, whatever the layout was that saved it.

        Raises:
            InputError: the state is damaged, or of another network.
        """
        found = self._restore(step, _items(laid_out(abstract, specs, mesh)))
        count, opt_state = found["opt"]
        return TrainState(step=count, params=found["params"], ema=found.get("ema"), opt_state=opt_state)

    def restore_network(self, step: int, abstract: TrainState, specs: TrainState, mesh: Mesh) -> PyTree:
        """The parameters that are evaluated and exported after `step` steps: the averaged ones, where there are any.

        Raises:
            InputError: the state is damaged, or of another network.
        """
        name = "params" if abstract.ema is None else "ema"
        return self._restore(step, {name: _items(laid_out(abstract, specs, mesh))[name]})[name]

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

    def _restore(self, step: int, items: Mapping[str, PyTree]) -> Any:
        wanted = {name: ocp.args.StandardRestore(item) for name, item in items.items()}
        with self._damage_explained(step):
            return self._manager.restore(step, args=ocp.args.Composite(**wanted))

    def _damage_explained(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Of a state that is read: a damaged file is a `ValueError` for TensorStore and JSON, a lost key for Orbax."""
        what = f"step {step} cannot be read", "delete its folder to go on from the one before"
        return self._explained(*what, also=(ValueError, KeyError))

    @contextlib.contextmanager
    def _explained(self, what: str, remedy: str, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """What the file system refused, as one line; any other exception is our fault, and passes."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            refused = _OS_ERROR.search(reason)  # behind the names of files and operations
            if refused is None and not isinstance(error, (OSError, *also)):
                raise
            reason = refused[1].strip() if refused else reason
            raise InputError(f"{self.folder}: {what}: {reason[:300]}; {remedy}") from error


@dataclasses.dataclass(frozen=True)
class _LastAndBest(preservation_policy.PreservationPolicy):
    """Which states stay; Orbax asks whenever one was saved."""

    keep: int
    top1: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        stay = {*sorted(steps)[-self.keep :], _best(steps, self.top1)}
        return [step in stay for step in steps]


def _best(steps: Sequence[int], top1: Mapping[int, float]) -> int | None:
    return max((step for step in steps if step in top1), key=lambda step: (top1[step], step), default=None)


def _items(state: TrainState) -> dict[str, PyTree]:
    """The parts of a state that are saved side by side; Orbax has no way to save nothing."""
    items = {"params": state.params, "ema": state.ema, "opt": (state.step, state.opt_state)}
    return {name: item for name, item in items.items() if item is not None}
