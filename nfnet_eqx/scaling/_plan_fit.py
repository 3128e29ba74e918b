"""A plan from a fit of one's own: the loss that it predicts for each network, trained for exactly the budget."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import optimize

from nfnet_eqx._errors import InputError
from nfnet_eqx.scaling._budget import Budget
from nfnet_eqx.scaling._equal_compute import Estimate
from nfnet_eqx.scaling._fit import Fit
from nfnet_eqx.scaling._laws import Law, PowerLaw, Repeated
from nfnet_eqx.scaling._plan_paper import Sized
from nfnet_eqx.scaling._planned import Candidate, Optimum
from nfnet_eqx.scaling._points import Point

# How far from the networks' own sizes the best size is looked for, as a factor.
_WIDER = 1e3


def networks_of(points: Sequence[Point]) -> list[Sized]:
    """The networks of some runs, with the FLOPs that an image had there; none where the runs do not say them all."""
    parameters, per_image = {}, defaultdict(list)
    for point in points:
        if point.model and point.parameters and point.images and point.flops:
            parameters[point.model] = point.parameters
            per_image[point.model].append(point.flops / point.images)
    networks = [
        Sized(name, number, float(np.median(per_image[name])), from_runs=True) for name, number in parameters.items()
    ]
    return sorted(networks, key=lambda network: network.parameters)


def predictor(law: Law, data_images: float) -> Callable[[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]], np.ndarray]:
    """The loss by parameters and images of a law that knows both.

    Raises:
        InputError: it is a power law of compute alone.
    """
    if isinstance(law, PowerLaw):
        raise InputError(
            "fit: a power law of compute knows no sizes, so it cannot choose one; give a parametric fit or one for "
            "repeated data"
        )
    if isinstance(law, Repeated):
        return lambda parameters, images: np.asarray(law.loss(parameters, images, np.minimum(images, data_images)))
    return lambda parameters, images: np.asarray(law.loss(parameters, images))


def predicted(candidates: Sequence[Candidate], fit: Fit, data_images: float) -> list[Candidate]:
    """The candidates with their losses, and how often each is the best of them."""
    parameters = np.array([one.parameters for one in candidates], np.float64)
    images = np.array([one.images for one in candidates])
    losses = predictor(fit.law, data_images)(parameters, images)
    sampled = np.array([predictor(law, data_images)(parameters, images) for law in fit.samples])
    best = sampled.argmin(1) if len(sampled) else None
    return [
        dataclasses.replace(
            one,
            loss=_estimate(loss, sampled[:, i] if len(sampled) else None),
            best_in=None if best is None else float((best == i).mean()),
        )
        for i, (one, loss) in enumerate(zip(candidates, losses, strict=True))
    ]


def fitted_optimum(fit: Fit, networks: Sequence[Sized], budget: Budget, data_images: float) -> tuple[Optimum, bool]:
    """The best size and length where networks of every size exist, and whether there is one.

    The FLOPs of an image follow the size as they do among the networks: a power law through them.
    """
    sizes = np.log([network.parameters for network in networks])
    costs = np.log([network.flops_per_image for network in networks])
    slope, intercept = np.polyfit(sizes, costs, 1) if np.ptp(sizes) > 0 else (1.0, costs[0] - sizes[0])
    low, high = sizes.min() - math.log(_WIDER), sizes.max() + math.log(_WIDER)

    def images(size: float) -> float:
        return budget.flops / math.exp(intercept + slope * size)

    def best(law: Law) -> float:
        loss = predictor(law, data_images)
        return optimize.minimize_scalar(  # pyright: ignore[reportAttributeAccessIssue]
            lambda size: float(loss(np.exp(size), np.asarray(images(size)))), bounds=(low, high), method="bounded"
        ).x

    found = best(fit.law)
    sampled = np.array([best(law) for law in fit.samples]) if fit.samples else None
    optimum = Optimum(
        parameters=_estimate(math.exp(found), None if sampled is None else np.exp(sampled)),
        images=_estimate(images(found), None if sampled is None else np.array([images(size) for size in sampled])),
    )
    return optimum, bool(low + 0.1 < found < high - 0.1)


def fitted_learning_rates(points: Sequence[Point], candidate: Candidate) -> tuple[float, ...]:
    """The rate of the grid that the best ones of the results lead to, and the next one on the other side.

    Through the best rates of models and budgets goes a plane, in the logarithms of rate, parameters and images; where
    they are too few for it, the rate of the nearest run is taken. It never leaves the grid.

    Returns:
        Nothing where the results have no learning rates.
    """
    losses: dict[tuple[float, float], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        told = point.parameters and point.images and point.learning_rate
        if told and point.final and point.status == "done" and point.loss is not None:
            losses[point.parameters, point.images][point.learning_rate].append(point.loss)  # pyright: ignore
    if not losses:
        return ()
    at = np.log([key for key in losses])
    best = np.log([min(rates, key=lambda rate: np.mean(rates[rate])) for rates in losses.values()])
    wanted = np.log([candidate.parameters, candidate.images])
    plane = np.column_stack([np.ones(len(at)), at])
    if len(at) > 4 and np.linalg.matrix_rank(plane - [0, *at.mean(0)], tol=0.1) == 3:
        rate = np.array([1, *wanted]) @ np.linalg.lstsq(plane, best, rcond=None)[0]
    else:
        rate = best[np.abs(at - wanted).sum(1).argmin()]
    grid = np.array(sorted({rate for rates in losses.values() for rate in rates}))
    order = np.abs(np.log(grid) - rate).argsort(kind="stable")
    return tuple(float(grid[i]) for i in order[:2])


def fit_extrapolated(
    law: Law,
    points: Sequence[Point],
    budget: Budget,
    networks: Sequence[Sized],
    chosen: Candidate,
    optimum: Optimum,
    interior: bool,
    rates: Sequence[float],
) -> tuple[str, ...]:
    """Where a plan leaves the runs behind the fit, or what the fit can carry."""
    words = []
    seen = [point for point in points if point.final and point.status == "done"]
    for name, value, unit in (
        ("flops", budget.flops, "FLOPs"),
        ("parameters", chosen.parameters, "parameters"),
        ("images", chosen.images, "images seen"),
        ("epochs", chosen.epochs, "epochs"),
    ):
        numbers = [number for point in seen if (number := getattr(point, name)) is not None]
        if numbers and not 0.99 * min(numbers) <= value <= 1.01 * max(numbers):
            words.append(f"{value:.3g} {unit}: the results have {min(numbers):.3g} to {max(numbers):.3g}")
    tried = [point.learning_rate for point in seen if point.learning_rate is not None]
    if rates and rates[0] in (min(tried), max(tried)):
        words.append(f"the learning rate: {rates[0]:g} is at the edge of those tried, a better one may lie beyond")
    sizes = [network.parameters for network in networks]
    if interior and not 0.5 * min(sizes) <= optimum.parameters.value <= 2 * max(sizes):
        words.append(
            f"the size: {optimum.parameters.value:.3g} parameters would be best, and the networks have "
            f"{min(sizes):.3g} to {max(sizes):.3g}"
        )
    if not interior:
        words.append(
            f"the best size: within a factor of {_WIDER:,.0f} of the networks the fit has no optimum, it falls or rises"
        )
    if not isinstance(law, Repeated) and chosen.epochs > 1:
        words.append(
            f"the data: it is passed over {chosen.epochs:.3g} times, and the form takes every image as new; images "
            "seen again teach less (`nfnet-eqx scaling fit` has a form for repeated data)"
        )
    return tuple(words)


def _estimate(value: float, samples: Float[np.ndarray, " samples"] | None) -> Estimate:
    ends = (value, value) if samples is None else np.quantile(samples, [0.025, 0.975])
    return Estimate(float(value), float(ends[0]), float(ends[1]))
