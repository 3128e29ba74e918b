"""The curves of a run, drawn while it goes on."""

import functools
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from nfnet_eqx._errors import InputError
from nfnet_eqx.train._metrics import read_metrics
from nfnet_eqx.train._plot import plot_curves

_log = logging.getLogger(__name__)

_SECONDS = 60  # between drawings, each of which takes half a second


class Curves:
    """Keeps an image up to date with `metrics.jsonl`, as a `Writer`.

    It draws at the first line, at each evaluation, once a minute, and at the end of the run, however that comes.

    Args:
        folder: the run's folder.
        file: the PNG.
        title: what stands above.
        schedule: the learning rate by step.
        total_steps: how many steps the whole run has.
    """

    def __init__(self, folder: Path, file: Path, title: str, *, schedule: optax.Schedule, total_steps: int) -> None:
        self._folder, self._file, self._title = folder, file, title
        self._schedule, self._total_steps = schedule, total_steps
        self._drawn = -math.inf
        self._is_current = self._has_failed = False

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Draw what `metrics.jsonl` has by now, if it is time."""
        self._is_current = False
        if split == "eval" or time.monotonic() - self._drawn > _SECONDS:
            self._draw()

    def close(self) -> None:
        """Draw what came last."""
        if not self._is_current:
            self._draw()

    def _draw(self) -> None:
        self._drawn, self._is_current = time.monotonic(), True
        try:
            if metrics := read_metrics(self._folder):
                plot_curves(metrics, self._file, self._title, learning_rate=self._rates[: metrics[-1]["step"]])
        except (InputError, OSError) as error:  # a full disk, say: it must not end the run, nor hide what does
            if not self._has_failed:
                _log.warning("%s: not drawn: %s", self._file, getattr(error, "strerror", None) or error)
            self._has_failed = True

    @functools.cached_property
    def _rates(self) -> Float[np.ndarray, " steps"]:
        """Of every step: what is logged would leave out the warm-up of a short run."""
        return np.asarray(jax.vmap(self._schedule)(jnp.arange(self._total_steps)))
