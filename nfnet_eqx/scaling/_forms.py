"""The three fits: power law of the envelope, parametric form, and the form for repeated data.

All minimize Huber's loss of the log residuals, since noise and misfit are in proportion to the loss. It turns linear at
`DELTA`, far below the noise of a run, as in 2203.15556 and 2404.10102: a run that went wrong then moves the law no more
than any other. The first of these papers' own fit stopped before its minimum and printed rounded numbers; so here many
starts are followed until the gradient vanishes, how many reach the same minimum is kept, and nothing is rounded.

Intervals are percentiles of a bootstrap over runs, with the choice of learning rates and the envelope made anew in each
sample. On simulated runs of known laws they hold the true exponents about as often as they should; tests repeat it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from nfnet_eqx.scaling._checks import check_data, check_fields, check_settings, notes, raise_all
from nfnet_eqx.scaling._envelope import on_envelope
from nfnet_eqx.scaling._fit import Convergence, Fit, Form, Rows
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._search import missing_words, searched
from nfnet_eqx.scaling._select import Settings, settings, usable
from nfnet_eqx.scaling._solve import needs, problem, resample, solve
from nfnet_eqx.scaling._trust import held_out, influence

DELTA = 1e-3
OPTIMIZER = (
    "variable projection (nonnegative least squares for E and the scales on a grid of exponents), the best starts then "
    "followed in all parameters by Newton steps damped with reweighted least squares"
)


def fit_power_law(
    points: Sequence[Point],
    *,
    family: str | None = None,
    fixed_E: float | None = None,
    delta: float = DELTA,
    samples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `L = E + a C^-b` to the lower envelope of loss over training FLOPs.

    Example:
        >>> budgets = [1e15 * 2**n for n in range(8)]
        >>> found = fit_power_law([Point(run=f"{c}", flops=c, loss=1 + 20 * c**-0.1) for c in budgets])
        >>> round(found.law.b, 4)
        0.1

    Args:
        points: rows of results; those before the end of a run, and runs without a loss, are counted but not fitted.
        family: fit only the rows of it.
        fixed_E: fix E to this, 0 for a straight line in log-log; by default it is fitted.
        delta: where Huber's loss of the log residuals turns linear.
        samples: of the bootstrap.
        seed: of the bootstrap; the same one gives the same intervals.

    Raises:
        InputError: naming all the reasons why this form cannot be fitted to these points.
    """
    return _fit("power", points, family, fixed_E, delta, samples, seed)


def fit_parametric(
    points: Sequence[Point],
    *,
    family: str | None = None,
    fixed_E: float | None = None,
    delta: float = DELTA,
    samples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `L = E + A N^-alpha + B D^-beta`, N the parameters and D the images; arguments as of `fit_power_law`.

    Raises:
        InputError: naming all the reasons why this form cannot be fitted to these points.
    """
    return _fit("parametric", points, family, fixed_E, delta, samples, seed)


def fit_repeated(
    points: Sequence[Point],
    *,
    family: str | None = None,
    fixed_E: float | None = None,
    delta: float = DELTA,
    samples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `L = E + A N^-alpha + B T^-beta + G N^gamma U^-delta`: T images, U of them different (2605.09189).

    Arguments as of `fit_power_law`.

    Raises:
        InputError: naming all the reasons why this form cannot be fitted to these points.
    """
    return _fit("repeated", points, family, fixed_E, delta, samples, seed)


def _fit(
    form: Form,
    points: Sequence[Point],
    family: str | None,
    fixed_E: float | None,
    delta: float,
    samples: int,
    seed: int,
) -> Fit:
    own, ended, repeated = usable(points, family)
    faults = check_settings(fixed_E, delta, samples, min(point.loss or np.inf for point in ended))
    raise_all(faults + check_fields(form, ended))
    chosen = settings(ended)
    raise_all(check_data(form, chosen, fixed_E))

    whole = problem(form, chosen, fixed_E, delta)
    once = np.ones(len(chosen.runs))
    best = solve(whole, once)
    counts = resample(len(chosen.runs), samples, seed)
    drawn = whole.minimize(counts, np.repeat(best.theta[None], samples, 0))
    enough = (whole.data(counts)[1] > 0).sum(1) >= best.theta.size
    kept = drawn.theta[drawn.converged & enough]
    if len(kept) < samples / 2:
        raise_all(
            [
                f"only {len(kept)} of {samples} resamples of the runs determine the {form} form, so there is no "
                "interval; train more models or budgets"
            ]
        )
    fitted = chosen.points
    if form == "power":
        on = on_envelope(np.array([[point.loss for point in chosen.points]], np.float64))[0]
        fitted = tuple(point for point, is_on in zip(chosen.points, on, strict=True) if is_on)
    unfinished = Fit(
        form=form,
        law=whole.laws(best.theta[None])[0],
        samples=tuple(whole.laws(kept)),
        points=fitted,
        delta=delta,
        fixed_E=fixed_E,
        seed=seed,
        rows=_rows(form, own, chosen, fitted, repeated),
        convergence=Convergence(
            optimizer=OPTIMIZER,
            starts=best.starts,
            reached=best.reached,
            objective=best.value,
            gradient=best.gradient,
            bootstrap=samples,
            bootstrap_converged=len(kept),
        ),
        held_out=held_out(whole, ended),
        influence=influence(whole, best, seed),
        notes=(),
    )
    return dataclasses.replace(unfinished, notes=notes(unfinished, chosen))


def _rows(form: Form, own: list[Point], chosen: Settings, fitted: tuple[Point, ...], repeated: int) -> Rows:
    last = [point for point in own if point.final]
    found = searched(own)
    axes = dict.fromkeys((*needs(form), "parameters", "images", "unique_images", "flops", "loss"))
    ranges = {}
    for axis in axes:
        values = [getattr(point, axis) for point in chosen.points]
        if None not in values:
            ranges[axis] = (float(min(values)), float(max(values)))
    seeds = "" if all(point.seed is None for point in own) else ", by the loss, the mean over seeds"
    if found.chosen:
        few, most = min(found.tried), max(found.tried)
        rates = f"the best of {few if few == most else f'{few} to {most}'} for each model and budget{seeds}"
    else:
        told = any(point.learning_rate is not None for point in own)
        rates = "one for each model and budget" if told else "not stated by the data"
    budget = "images" if "images" in ranges else "flops"
    sizes = {point.parameters or point.model for point in chosen.points}
    return Rows(
        given=len(own),
        not_final=len(own) - len(last),
        diverged=sum(point.status == "diverged" for point in last),
        failed=sum(point.status == "failed" for point in last),
        repeated=repeated,
        runs=len(chosen.runs),
        models=0 if sizes == {""} else len(sizes),
        budgets=len({getattr(point, budget) for point in chosen.points}),
        fitted=len(fitted),
        learning_rates=rates,
        at_edge=len(found.edge),
        chosen=len(found.chosen),
        missing=missing_words(found) if found.missing else "",
        ranges=ranges,
    )
