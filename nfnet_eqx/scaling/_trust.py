"""How far to trust a fit: what it predicts of points that it has not seen, and which few runs it hangs on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nfnet_eqx.scaling._envelope import on_envelope
from nfnet_eqx.scaling._fit import HeldOut, Influence
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._select import compute, settings
from nfnet_eqx.scaling._solve import Best, Problem, exponents, names_of, needs, predict, problem, resample, size, solve

# This part of the points, those of the largest compute, is predicted from the others.
_HELD_OUT = 0.25
# This part of the runs, at most, is a few.
_FEW = 0.02
# Of a standard error that only says whether something stands out.
_SAMPLES = 100


def held_out(whole: Problem, rows: Sequence[Point]) -> HeldOut | None:
    """Fit the smaller computes, and predict the largest; `None` where there are too few points for that."""
    points = list(whole.settings.points)
    if whole.form == "power":
        losses = np.array([[point.loss for point in points]], np.float64)
        points = [point for point, on in zip(points, on_envelope(losses)[0], strict=True) if on]
    costs = compute(points)
    above = float(np.quantile(costs, 1 - _HELD_OUT, method="inverted_cdf"))
    low = [point for point, cost in zip(points, costs, strict=True) if cost <= above]
    high = [point for point, cost in zip(points, costs, strict=True) if cost > above]
    below = [point for point, cost in zip(rows, compute(rows), strict=True) if cost <= above]
    if not high or len(low) <= size(whole.form, whole.fixed_E) + 1:
        return None
    if any(len({getattr(point, axis) for point in low}) < 3 for axis in needs(whole.form) if axis != "unique_images"):
        return None
    if "unique_images" in needs(whole.form) and len({point.unique_images for point in low}) < 2:
        return None
    part = problem(whole.form, settings(below), whole.fixed_E, whole.delta)
    best = solve(part, np.ones(len(part.settings.runs)))
    measured = np.array([point.loss for point in high], np.float64)
    miss = predict(part.laws(best.theta[None])[0], whole.form, high) - measured
    return HeldOut(
        fitted=len(low),
        predicted=len(high),
        above=above,
        error=float(np.abs(miss).mean()),
        error_percent=float(100 * np.abs(miss / measured).mean()),
        bias_percent=float(100 * (miss / measured).mean()),
    )


def influence(whole: Problem, best: Best, seed: int) -> Influence | None:
    """Leave out each run, then few at a time, and say which few move an exponent most; `None` where there are too few.

    A robust fit can hide a run behind its neighbours, so beside those that move an exponent most one by one, the few
    at either end of each axis are left out together.
    """
    runs = len(whole.settings.runs)
    few = max(1, round(_FEW * runs))
    if len(whole.settings.points) - few <= size(whole.form, whole.fixed_E) + 1:
        return None
    which = [names_of(whole.form, whole.fixed_E).index(name) for name in exponents(whole.form)]
    one = _without(whole, best, [[run] for run in range(runs)])[:, which] - best.theta[which]
    groups: dict[tuple[int, ...], str] = {}
    for axis in (*needs(whole.form), "loss"):
        values = np.full(runs, np.nan)
        for point in whole.settings.points:
            if point.run in whole.settings.runs:
                values[whole.settings.runs.index(point.run)] = getattr(point, axis)
        order = [int(run) for run in np.argsort(values, kind="stable") if not np.isnan(values[run])]
        if len(order) > few:
            ends = {
                f"the {_amount(axis, least=True)}, up to {values[order[few - 1]]:.3g}": order[:few],
                f"the {_amount(axis, least=False)}, from {values[order[-few]]:.3g}": order[-few:],
            }
            for what, chosen in ends.items():
                groups.setdefault(tuple(sorted(chosen)), what)
    for column in one.T:
        order = [int(run) for run in np.argsort(column, kind="stable")]
        for chosen in (order[:few], order[-few:]):
            names = ", ".join(whole.settings.runs[run] for run in chosen)
            groups.setdefault(tuple(sorted(chosen)), names if len(names) <= 200 else names[:200] + " ...")
    tried = list(groups)
    moved = np.abs(_without(whole, best, [list(group) for group in tried])[:, which] - best.theta[which])
    moved[~np.isfinite(moved)] = 0
    counts = resample(runs, _SAMPLES, seed)
    # The spread of the fit without them: with them it is the larger for what they do to it.
    full = _spread(whole, best, counts)[which]
    group = int((moved / full).max(1).argmax())
    left = counts.copy()
    left[:, list(tried[group])] = 0
    start = _without(whole, best, [list(tried[group])])[0]
    spread = _spread(whole, best._replace(theta=start), left)[which]
    exponent = int((moved[group] / spread).argmax())
    return Influence(
        runs=tuple(whole.settings.runs[run] for run in tried[group]),
        what=groups[tried[group]],
        name=exponents(whole.form)[exponent],
        without=float(start[which][exponent]),
        standard_errors=float(moved[group, exponent] / spread[exponent]),
    )


def _without(whole: Problem, best: Best, groups: list[list[int]]) -> Float[np.ndarray, "groups parameters"]:
    counts = np.ones((len(groups), len(whole.settings.runs)))
    for row, group in zip(counts, groups, strict=True):
        row[group] = 0
    return whole.minimize(counts, np.repeat(best.theta[None], len(groups), 0)).theta


def _spread(whole: Problem, best: Best, counts: Float[np.ndarray, "batch runs"]) -> Float[np.ndarray, " parameters"]:
    """Half of what holds the middle 68 % of the samples: a standard error that strays do not blow up."""
    theta = whole.minimize(counts, np.repeat(best.theta[None], len(counts), 0)).theta
    return np.maximum(np.subtract(*np.quantile(theta, [0.8413, 0.1587], axis=0)) / 2, 1e-12)


def _amount(axis: str, *, least: bool) -> str:
    if axis in ("flops", "loss"):
        return f"{'lowest' if least else 'highest'} {axis}"
    return f"{'fewest' if least else 'most'} {axis.replace('_', ' ')}"
