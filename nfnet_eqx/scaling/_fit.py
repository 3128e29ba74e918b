"""A fitted scaling law: the law, its bootstrap, how it was found, and what it cannot carry."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling._laws import Law, Parametric, PowerLaw, Repeated
from nfnet_eqx.scaling._points import Point

Form = Literal["power", "parametric", "repeated"]

LAWS: dict[Form, type[Law]] = {"power": PowerLaw, "parametric": Parametric, "repeated": Repeated}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Which rows of the data entered a fit.

    Attributes:
        given: all.
        not_final: rows before the end of a run's schedule: not fitted, since each budget has a schedule of its own.
        diverged: runs whose loss was no longer finite.
        failed: runs that something else stopped.
        repeated: rows that say the same as another one; each counts once.
        runs: what is left; the bootstrap resamples these.
        models: different ones among them.
        budgets: different numbers of images among them; of a power law, of FLOPs.
        fitted: points that the law goes through, after the choice of learning rates and, for a power law, the envelope.
        learning_rates: how they were chosen, in words.
        at_edge: of the points, those whose best learning rate is the lowest or highest that was tried.
        chosen: points whose learning rate was chosen among several.
        missing: what the sweep has not trained yet, in words; empty where nothing is missing.
        ranges: smallest and largest value of `parameters`, `images`, `unique_images`, `flops` and `loss` of the points.
    """

    given: int
    not_final: int
    diverged: int
    failed: int
    repeated: int
    runs: int
    models: int
    budgets: int
    fitted: int
    learning_rates: str
    at_edge: int
    chosen: int
    missing: str
    ranges: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convergence:
    """How the minimum was found.

    Attributes:
        optimizer: in words.
        starts: from where the minimization began.
        reached: how many of them ended at the best minimum.
        objective: there: the mean of Huber's loss, divided by delta.
        gradient: there: the largest component of its derivative by logarithms of scales and exponents.
        bootstrap: samples that were drawn.
        bootstrap_converged: those of them whose minimization converged; only these are kept.
    """

    optimizer: str
    starts: int
    reached: int
    objective: float
    gradient: float
    bootstrap: int
    bootstrap_converged: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Extrapolation: the law of the smaller computes, held against the largest.

    Attributes:
        fitted: points below.
        predicted: points above, which that law has not seen.
        above: the compute (N times D, where no FLOPs are known) that parts them.
        error: mean of the absolute error of the prediction, in nats.
        error_percent: the same, in per cent of the loss.
        bias_percent: mean of prediction less measurement, in per cent of the loss.
    """

    fitted: int
    predicted: int
    above: float
    error: float
    error_percent: float
    bias_percent: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Influence:
    """The few runs that an exponent hangs on most.

    Attributes:
        runs: their names.
        what: them in words ("the 5 of the fewest images").
        name: the exponent.
        without: its value when they are left out.
        standard_errors: how far it moves, in standard errors of the fit without them.
    """

    runs: tuple[str, ...]
    what: str
    name: str
    without: float
    standard_errors: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """A law with its bootstrap over runs, and all that a report must say (2502.18969).

    Attributes:
        form: of the law.
        law: the best fit.
        samples: the same law of each resample of the runs.
        points: what it goes through: of each model and budget the best learning rate, of a power law the envelope.
        delta: of Huber's loss of log residuals.
        fixed_E: the value that E was fixed to; `None` where it was fitted.
        seed: of the bootstrap.
        rows: of the data.
        convergence: of the optimizer.
        held_out: error of an extrapolation; `None` where there are too few points to leave some out.
        influence: the runs that carry most; `None` where there are too few to leave some out.
        notes: in words, what the data cannot carry.
    """

    form: Form
    law: Law
    samples: tuple[Law, ...]
    points: tuple[Point, ...]
    delta: float
    fixed_E: float | None
    seed: int
    rows: Rows
    convergence: Convergence
    held_out: HeldOut | None
    influence: Influence | None
    notes: tuple[str, ...]

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """The bootstrap's percentile interval of a number of the law.

        Args:
            name: a field of the law, or one that follows from them, such as `size_exponent`.
            level: how often such intervals hold the truth.

        Raises:
            InputError: the law has no such number.
        """
        known = [*(field.name for field in dataclasses.fields(self.law)), *derived(self.law)]
        if name not in known:
            raise InputError(f"name (={name!r}) must be one of {', '.join(known)}")
        values = [getattr(sample, name) for sample in self.samples]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """All of it, unrounded, as what JSON can hold; `from_json` reads it back."""
        return {**dataclasses.asdict(self), "intervals": self.intervals()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each number of the law."""
        names = [field.name for field in dataclasses.fields(self.law)]
        return {name: self.interval(name) for name in [*names, *derived(self.law)]}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Fit":
        """A fit that `to_json` wrote.

        Raises:
            InputError: it is not one.
        """
        try:
            form = fields["form"]
            if form not in get_args(Form):
                raise ValueError(f"form is {form!r}")
            held_out, influence = fields["held_out"], fields["influence"]
            ranges = {name: tuple(ends) for name, ends in fields["rows"]["ranges"].items()}
            return cls(
                form=form,
                law=LAWS[form](**fields["law"]),
                samples=tuple(LAWS[form](**sample) for sample in fields["samples"]),
                points=tuple(Point(**point) for point in fields["points"]),
                delta=fields["delta"],
                fixed_E=fields["fixed_E"],
                seed=fields["seed"],
                rows=Rows(**{**fields["rows"], "ranges": ranges}),
                convergence=Convergence(**fields["convergence"]),
                held_out=HeldOut(**held_out) if held_out else None,
                influence=Influence(**{**influence, "runs": tuple(influence["runs"])}) if influence else None,
                notes=tuple(fields["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"not a fit ({error}); write one with nfnet-eqx scaling fit FILE --save fit.json"
            ) from None


def derived(law: Law) -> tuple[str, ...]:
    """The numbers that follow from a law's fields."""
    return () if isinstance(law, PowerLaw) else ("size_exponent", "data_exponent")
