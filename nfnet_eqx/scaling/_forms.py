"""The three fits: power law of the envelope, parametric form, and the form for repeated data."""

from collections.abc import Sequence

from nfnet_eqx.scaling._fit import Fit
from nfnet_eqx.scaling._points import Point

# Huber's loss of log residuals turns linear here (2203.15556, 2404.10102): far below the noise of a run, so that runs
# which went wrong do not move the law.
DELTA = 1e-3


def fit_power_law(
    points: Sequence[Point],
    *,
    family: str | None = None,
    fixed_E: float | None = None,
    delta: float = DELTA,
    samples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `L = E + a C^-b` to the lower envelope of loss over training FLOPs."""
    raise NotImplementedError


def fit_parametric(
    points: Sequence[Point],
    *,
    family: str | None = None,
    fixed_E: float | None = None,
    delta: float = DELTA,
    samples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `L = E + A N^-alpha + B D^-beta`."""
    raise NotImplementedError


def fit_repeated(
    points: Sequence[Point],
    *,
    family: str | None = None,
    fixed_E: float | None = None,
    delta: float = DELTA,
    samples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `L = E + A N^-alpha + B T^-beta + G N^gamma U^-delta`."""
    raise NotImplementedError
