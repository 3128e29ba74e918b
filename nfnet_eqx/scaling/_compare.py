"""Two families at equal compute.

The method is the paper's figure made into numbers: of each family the lower envelope of loss over compute, with the
learning rate chosen for each model and budget. Through an envelope goes a power law `E + a C^-b` with E free: smooth
and falling, so that it can be read in both directions (loss at a compute, compute for a loss), and straight in log-log
where E is small, which is what 2310.16764 sees. It is used between the envelope's first and last run only; nothing is
extrapolated. It minimizes relative errors: for each b of a grid that narrows, E and a are a linear problem (variable
projection), so that a thousand samples cost a fraction of a second.

Intervals come from a bootstrap over runs: each sample draws as many runs of a family as there are, with replacement,
and goes the whole way again, from the choice of the learning rate on. The two headline numbers are means over the
middle half of the common range: at its ends an envelope hangs on a single run. Samples that leave fewer than three runs
on an envelope are dropped, and counted in the notes.

On simulated pairs of families of one law with unlike grids (five sizes and four, six budgets, three learning rates,
noise of 0.3 to 3 %) the intervals of the two means hold the truth in 97 to 100 of 100 seeds: rather too wide than too
narrow, since the steps from size to size count as noise. Tests repeat it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling._envelope import on_envelope
from nfnet_eqx.scaling._equal_compute import At, Axis, EqualCompute, Estimate, Frontier
from nfnet_eqx.scaling._laws import PowerLaw
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._verdict import comparison_notes, verdict

# The exponents that are tried, and then twice those around the best one, to 3e-4 of it.
_EXPONENTS = np.geomspace(0.005, 3, 160)
_AROUND = [np.geomspace(1 / ratio, ratio, 17) for ratio in (1.042, 1.006)]
# Places on each range, and which of them are its middle half.
_PLACES = 41
_MIDDLE = slice(10, 31)
# A power law has three parameters.
_FEWEST = 3


class _Settings(NamedTuple):
    """One family's settings, by growing compute; runs that differ in the seed alone share one.

    Attributes:
        points: a run of each, its loss and compute the means over the seeds.
        compute: of each setting.
        losses: of each row.
        setting_of: `setting_of[i, j]`: row i is of setting j.
        run_of: the run of each row; a table may have several rows of one.
    """

    points: list[Point]
    compute: Float[np.ndarray, " settings"]
    losses: Float[np.ndarray, " rows"]
    setting_of: Bool[np.ndarray, "rows settings"]
    run_of: Int[np.ndarray, " rows"]


class _Curves(NamedTuple):
    """Power laws, one for each sample."""

    E: Float[np.ndarray, " samples"]
    a: Float[np.ndarray, " samples"]
    b: Float[np.ndarray, " samples"]

    def loss(self, compute: Float[np.ndarray, " places"]) -> Float[np.ndarray, "samples places"]:
        return self.E[:, None] + self.a[:, None] * compute ** -self.b[:, None]

    def log_compute(self, loss: Float[np.ndarray, " places"]) -> Float[np.ndarray, "samples places"]:
        """The logarithm of the compute that reaches a loss; infinite where none does."""
        above = loss - self.E[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            log = (np.log(self.a[:, None]) - np.log(above)) / self.b[:, None]
        return np.where((above > 0) & (self.a[:, None] > 0), log, np.inf)


def compare(
    points: Sequence[Point],
    a: str,
    b: str,
    *,
    axis: Axis = "flops",
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> EqualCompute:
    """Measure one family against another at equal compute.

    Example:
        >>> def runs(family, times):
        ...     budgets = [1e15 * 2**n for n in range(8)]
        ...     return [Point(run=f"{family}{c}", family=family, flops=c * times, loss=1 + c**-0.1) for c in budgets]
        >>> found = compare([*runs("NFNet", 1), *runs("ViT", 2)], "NFNet", "ViT")
        >>> round(found.mean_ratio.value, 2)
        0.5

    Args:
        points: results of both families on the same data; rows that are no run's last, and runs without a loss, are
            left out.
        a: the family that is measured, by `Point.family`.
        b: the family that it is measured against.
        axis: what compute is.
        level: of the intervals.
        samples: of the bootstrap.
        seed: of the bootstrap; the same one gives the same intervals.

    Raises:
        InputError: naming all that is wrong: there is no such family, they were trained on different data, a family has
            fewer than three runs on its envelope, or neither compute nor loss overlap.
    """
    _check(points, a, b, axis, level, samples)
    families = [_settings([point for point in points if _usable(point, name, axis)], axis) for name in (a, b)]
    on = [_on_envelope(family, np.ones((1, len(family.losses))))[1][0] > 0 for family in families]
    few = [
        f"{name}: {held.sum()} of {len(family.losses)} runs are on the lower envelope, and a power law needs "
        f"{_FEWEST}; train more budgets"
        for name, family, held in zip((a, b), families, on, strict=True)
        if held.sum() < _FEWEST
    ]
    if few:
        raise InputError("; ".join(few))
    generator = np.random.default_rng(seed)
    fitted = [_fit(family, np.ones((1, len(family.losses)))) for family in families]
    drawn = [_sampled(family, samples, generator) for family in families]
    kept = min(len(curves.E) for curves in drawn)
    if kept < samples / 2:
        raise InputError(
            f"{a}, {b}: only {kept} of {samples} samples of the runs leave {_FEWEST} on the envelope, so there is no "
            "interval; train more models or budgets"
        )
    drawn = [_Curves(*(numbers[:kept] for numbers in curves)) for curves in drawn]

    ranges = [family.compute[held][[0, -1]] for family, held in zip(families, on, strict=True)]
    reached = [curves.loss(ends)[0] for curves, ends in zip(fitted, ranges, strict=True)]
    compute = _common([ends[0] for ends in ranges], [ends[1] for ends in ranges])
    losses = _common([ends[1] for ends in reached], [ends[0] for ends in reached])[::-1]
    if not len(compute) and not len(losses):
        raise InputError(
            f"{a} and {b} have neither compute nor loss in common, so nothing can be said without extrapolation: "
            + "; ".join(
                f"{name} has {x[0]:.3g} to {x[1]:.3g} {axis} and losses from {y[0]:.3g} to {y[1]:.3g}"
                for name, x, y in zip((a, b), ranges, reached, strict=True)
            )
        )
    quantiles = _Quantiles(level)
    gap_value, gap_samples = (first.loss(compute) - second.loss(compute) for first, second in (fitted, drawn))
    ratio_value, ratio_samples = (_log_ratio(first, second, losses) for first, second in (fitted, drawn))
    found = EqualCompute(
        a=_frontier(a, families[0], on[0], fitted[0], drawn[0], quantiles),
        b=_frontier(b, families[1], on[1], fitted[1], drawn[1], quantiles),
        axis=axis,
        level=level,
        gap=quantiles.along(compute, gap_value, gap_samples),
        mean_gap=quantiles.mean(gap_value, gap_samples),
        ratio=quantiles.along(losses, ratio_value, ratio_samples, np.exp),
        mean_ratio=quantiles.mean(ratio_value, ratio_samples, np.exp),
        notes=comparison_notes(points, a, b, axis, kept, samples),
        verdict="",
    )
    return dataclasses.replace(found, verdict=verdict(found))


def _check(points: Sequence[Point], a: str, b: str, axis: Axis, level: float, samples: int) -> None:
    faults = []
    if a == b:
        faults.append(f"a and b are both {a!r}; two families are compared")
    known = sorted({point.family for point in points if point.family})
    for name in dict.fromkeys((a, b)):
        if name not in known:
            faults.append(f"no run is of the family {name!r}; there are {', '.join(map(repr, known)) or 'none'}")
        elif not any(_usable(point, name, axis) for point in points):
            faults.append(f"{name}: no run has ended with a loss and {axis}")
    datasets = sorted({point.dataset for point in points if point.family in (a, b) and point.dataset})
    if len(datasets) > 1:
        faults.append(f"the runs are of different data ({', '.join(datasets)}); losses on them cannot be compared")
    if not 0 < level < 1:
        faults.append(f"level (={level}) must lie between 0 and 1")
    if samples < 100:
        faults.append(f"samples (={samples}) must be 100 or more, or an interval says nothing")
    if faults:
        raise InputError("; ".join(faults))


def _usable(point: Point, family: str, axis: Axis) -> bool:
    compute = getattr(point, axis)
    in_family = point.family == family and point.final and point.status == "done"
    return in_family and all(number is not None and 0 < number < np.inf for number in (point.loss, compute))


def _settings(points: list[Point], axis: Axis) -> _Settings:
    """Runs by setting: what differs in the seed alone is averaged, or the luckiest seed would win."""
    groups: dict[object, list[int]] = {}
    for i, point in enumerate(points):
        # A table without learning rates and seeds does not tell which rows repeat a setting.
        told = point.learning_rate is not None or point.seed is not None
        key = (*_cell(point), point.learning_rate) if told else i
        groups.setdefault(key, []).append(i)
    losses = np.array([point.loss for point in points], np.float64)
    compute = np.array([getattr(point, axis) for point in points], np.float64)
    rows = sorted(groups.values(), key=lambda row: (compute[row].mean(), losses[row].mean()))
    merged = [
        points[row[0]]
        if len(row) == 1
        else dataclasses.replace(points[row[0]], seed=None, loss=losses[row].mean(), **{axis: compute[row].mean()})
        for row in rows
    ]
    setting_of = np.zeros((len(points), len(rows)), bool)
    for j, row in enumerate(rows):
        setting_of[row, j] = True
    names = {run: i for i, run in enumerate(dict.fromkeys(point.run for point in points))}
    return _Settings(
        points=merged,
        compute=np.array([compute[row].mean() for row in rows]),
        losses=losses,
        setting_of=setting_of,
        run_of=np.array([names[point.run] for point in points]),
    )


def _cell(point: Point) -> tuple[object, ...]:
    """The model and its budget."""
    return point.model, point.parameters, point.images, point.epochs, point.flops


def _on_envelope(
    family: _Settings, counts: Float[np.ndarray, "samples rows"]
) -> tuple[Float[np.ndarray, "samples settings"], Float[np.ndarray, "samples settings"]]:
    """Of samples that hold each row so many times: the loss of each setting, and its weight on the lower envelope."""
    number = counts @ family.setting_of
    with np.errstate(invalid="ignore"):
        loss = np.where(number > 0, (counts * family.losses) @ family.setting_of / number, np.inf)
    return loss, number * on_envelope(loss)


def _fit(family: _Settings, counts: Float[np.ndarray, "samples rows"]) -> _Curves:
    """The power law of each sample: for each exponent the E and a, neither negative, of the least relative errors."""
    loss, weight = _on_envelope(family, counts)
    inverse = np.where(weight > 0, 1 / loss, 0)  # the column of E, divided by the loss
    w1, w2 = weight * inverse, weight * inverse**2
    log = np.log(family.compute)
    centre, rows = log.mean(), np.arange(len(weight))
    exponents = _EXPONENTS[None]
    E, a, best = _projected(w1, w2, log - centre, exponents)
    for around in _AROUND:
        exponents = np.broadcast_to(exponents, E.shape)[rows, best][:, None] * around
        E, a, best = _projected(w1, w2, log - centre, exponents)
    b = exponents[rows, best]
    return _Curves(E[rows, best], a[rows, best] * np.exp(b * centre), b)


def _projected(
    w1: Float[np.ndarray, "samples settings"],
    w2: Float[np.ndarray, "samples settings"],
    log: Float[np.ndarray, " settings"],
    exponents: Float[np.ndarray, "_samples tried"],
) -> tuple[Float[np.ndarray, "samples tried"], Float[np.ndarray, "samples tried"], Int[np.ndarray, " samples"]]:
    """The best E and a of each exponent, and which exponent is the best."""
    basis = np.exp(-exponents[:, :, None] * log)  # the column of a, before it is divided by the loss

    def total(weights: Float[np.ndarray, "samples settings"], of: np.ndarray) -> np.ndarray:
        return (of @ weights[:, :, None])[:, :, 0]

    s_ea, s_aa, s_a = total(w2, basis), total(w2, basis**2), total(w1, basis)
    s_ee, s_e = w2.sum(1, keepdims=True), w1.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = s_aa * s_ee - s_ea**2
        a, E = (s_a * s_ee - s_e * s_ea) / determinant, (s_aa * s_e - s_ea * s_a) / determinant
    negative = ~(E >= 0)
    a, E = np.where(negative, s_a / s_aa, a), np.where(negative, 0, E)
    rising = ~(a > 0)
    a, E = np.where(rising, 0, a), np.where(rising, s_e / s_ee, E)
    error = E**2 * s_ee + a**2 * s_aa + 2 * E * a * s_ea - 2 * E * s_e - 2 * a * s_a
    return E, a, error.argmin(1)


def _sampled(family: _Settings, samples: int, generator: np.random.Generator) -> _Curves:
    """The power laws of the samples that leave enough runs on the envelope."""
    runs = int(family.run_of.max()) + 1
    drawn = generator.multinomial(runs, np.full(runs, 1 / runs), size=samples).astype(np.float64)
    counts = drawn[:, family.run_of]
    enough = (_on_envelope(family, counts)[1] > 0).sum(1) >= _FEWEST
    return _fit(family, counts[enough])


def _common(lows: list[float], highs: list[float]) -> Float[np.ndarray, " places"]:
    low, high = max(lows), min(highs)
    return np.geomspace(low, high, _PLACES) if low < high else np.empty(0)


def _log_ratio(
    first: _Curves, second: _Curves, losses: Float[np.ndarray, " places"]
) -> Float[np.ndarray, "samples places"]:
    with np.errstate(invalid="ignore"):
        return first.log_compute(losses) - second.log_compute(losses)


class _Quantiles(NamedTuple):
    """Estimates of samples: their value, and the quantiles of an interval."""

    level: float

    def of(
        self, value: float, samples: Float[np.ndarray, " samples"], scale: Callable[..., float] | None = None
    ) -> Estimate:
        # Where neither family reaches a loss, the sample says nothing: the worst is assumed, on either side.
        low = np.quantile(np.where(np.isnan(samples), -np.inf, samples), (1 - self.level) / 2, method="inverted_cdf")
        high = np.quantile(np.where(np.isnan(samples), np.inf, samples), (1 + self.level) / 2, method="inverted_cdf")
        return Estimate(*(float(scale(x) if scale else x) for x in (value, low, high)))

    def along(
        self,
        places: Float[np.ndarray, " places"],
        values: Float[np.ndarray, "1 places"],
        samples: Float[np.ndarray, "samples places"],
        scale: Callable[..., float] | None = None,
    ) -> tuple[At, ...]:
        return tuple(
            At(float(place), self.of(value, column, scale))
            for place, value, column in zip(places, values[0], samples.T, strict=True)
        )

    def mean(
        self,
        values: Float[np.ndarray, "1 places"],
        samples: Float[np.ndarray, "samples places"],
        scale: Callable[..., float] | None = None,
    ) -> Estimate | None:
        if not values.size:
            return None
        with np.errstate(invalid="ignore"):
            return self.of(values[0, _MIDDLE].mean(), samples[:, _MIDDLE].mean(1), scale)


def _frontier(
    name: str,
    family: _Settings,
    held: Bool[np.ndarray, " settings"],
    fitted: _Curves,
    drawn: _Curves,
    quantiles: _Quantiles,
) -> Frontier:
    first, *_, last = family.compute[held]
    places = np.geomspace(first, last, _PLACES)
    tuned: dict[object, Point] = {}
    for point in family.points:
        key = _cell(point) if point.learning_rate is not None else point.run
        if key not in tuned or (point.loss or 0) < (tuned[key].loss or 0):
            tuned[key] = point
    return Frontier(
        family=name,
        tuned=tuple(tuned.values()),
        envelope=tuple(point for point, is_held in zip(family.points, held, strict=True) if is_held),
        law=PowerLaw(E=float(fitted.E[0]), a=float(fitted.a[0]), b=float(fitted.b[0])),
        curve=quantiles.along(places, fitted.loss(places), drawn.loss(places)),
    )
