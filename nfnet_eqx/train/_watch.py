"""What the loop watches while it runs: the metrics of the steps behind it, and how fast they were."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
import optax

from nfnet_eqx._errors import InputError
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.train._step import Metrics

_LINES, _LONGEST_INTERVAL = 20, 50

_log = logging.getLogger(__name__)


class Diverged(InputError):
    """The loss, its gradient or the parameters of a run are no longer finite.

    Attributes:
        step: the step that it came to light in.
    """

    def __init__(self, message: str, step: int):
        super().__init__(message)
        self.step = step


class Window:
    """The metrics since the last line of the log.

    They are read one step late: the devices already work on the next one then, and never wait for us. The clock starts
    when the first step is done: that one's time is the compiler's.

    Attributes:
        broken: images that could not be read, from the first step of the run on.
        seconds: of training from the first step of the run on, without compiling, evaluating and logging; `None` where
            what was before is not known.
    """

    def __init__(
        self,
        config: TrainConfig,
        schedule: optax.Schedule,
        last_saved: Callable[[], int | None],
        *,
        broken: int = 0,
        seconds: float | None = 0.0,
    ):
        self._config, self._last_saved = config, last_saved
        self._rate = lambda step: float(jnp.asarray(schedule(step - 1)))
        self._running: tuple[int, Metrics] | None = None
        self._finished: list[dict[str, float]] = []
        self.broken, self.seconds = broken, seconds
        self._step = 0
        self._since: float | None = None
        self._images = 0
        self._counted = time.perf_counter()  # the time up to here is in `seconds`

    def restart(self) -> None:
        """Starts the clock again, after something that was no training."""
        self._since, self._images = time.perf_counter(), 0
        self._counted = self._since

    def add(self, step: int, metrics: Metrics, broken: int) -> None:
        """Takes the metrics of a step that is still running, and looks at those of the one before."""
        self.finish()
        self._running, self._step = (step, metrics), step
        self.broken += broken
        if self._since is not None:
            self._images += self._config.batch_size

    def finish(self) -> None:
        """Waits for the step that is running.

        Raises:
            Diverged: its loss, its gradient or the parameters after it are not finite. Call this before a state is
                saved, and no such one ever is.
        """
        if self._running is None:
            return
        (step, metrics), self._running = self._running, None
        values = {name: float(metrics[name]) for name in ("loss", "top1", "grad_norm", "param_norm")}
        if not all(map(math.isfinite, values.values())):
            optimizer, good = self._config.optimizer, self._last_saved()
            limit = "clip_norm" if optimizer.clipping is None and optimizer.clip_norm is not None else "clipping"
            raise Diverged(
                f"{self._config.out}: step {step}: loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g} "
                f"at learning rate {self._rate(step):.4g}. The last good checkpoint is "
                f"{'none' if good is None else f'step {good}'}. In a new folder, lower "
                f"optimizer.learning_rate (={optimizer.learning_rate}), set a smaller optimizer.{limit} "
                f"(={getattr(optimizer, limit)}), or lengthen optimizer.warmup (={optimizer.warmup:.4g})",
                step,
            )
        self._finished.append(values)
        now = time.perf_counter()
        if self.seconds is not None:
            self.seconds += now - self._counted
        self._counted = now
        if self._since is None:
            self.restart()

    def line(self) -> dict[str, float]:
        """The means since the last call, and what else belongs into a line of the log.

        A line about the first step alone has no `images_per_second`.
        """
        self.finish()
        seconds = time.perf_counter() - (self._since or 0)
        rate = {"images_per_second": self._images / seconds} if self._images else {}
        means = {name: float(np.mean([values[name] for values in self._finished])) for name in self._finished[0]}
        self._finished.clear()
        self.restart()
        return means | {
            "learning_rate": self._rate(self._step),
            **rate,
            "broken": self.broken,
        }


def is_logged(step: int, interval: int | None, total_steps: int) -> bool:
    """Whether a line of metrics is due; without an interval the first step has one, and a short run has twenty."""
    every = interval or min(max(total_steps // _LINES, 1), _LONGEST_INTERVAL)
    return step % every == 0 or step == total_steps or (step == 1 and interval is None)


@contextlib.contextmanager
def compiling(what: str) -> Iterator[None]:
    """Tells the user why nothing moves: compiling takes minutes on few CPU cores, and shows no progress."""
    _log.info(
        "compiling %s; it takes a minute or two on a few CPU cores (JAX_COMPILATION_CACHE_DIR=FOLDER keeps the result)",
        what,
    )
    start = time.perf_counter()
    yield
    _log.info("compiled in %.0f s", time.perf_counter() - start)
