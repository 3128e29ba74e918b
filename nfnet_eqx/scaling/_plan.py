"""What to do with a budget: which network, for how long, at which learning rate."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import list_models
from nfnet_eqx.scaling import _anchors
from nfnet_eqx.scaling._budget import Budget, parse_budget
from nfnet_eqx.scaling._fit import Fit
from nfnet_eqx.scaling._plan_fit import (
    fit_extrapolated,
    fitted_learning_rates,
    fitted_optimum,
    networks_of,
    predicted,
    predictor,
)
from nfnet_eqx.scaling._plan_paper import (
    SOURCE,
    Sized,
    nearest,
    paper_derived,
    paper_extrapolated,
    paper_learning_rates,
    paper_optimum,
    sized,
)
from nfnet_eqx.scaling._planned import Candidate, ComputePlan
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.train.recipes import RECIPES

T = TypeVar("T")

# Of the neighbours of the chosen network, so many on each side.
_NEIGHBOURS = 2


def plan(
    budget: str,
    *,
    fit: Fit | None = None,
    results: Sequence[Point] = (),
    images: float | None = None,
    models: str | None = None,
    image_size: int | None = None,
    device: str | None = None,
    utilisation: float | None = None,
    price_per_hour: float | None = None,
    recipe: str = "web",
) -> ComputePlan:
    """Choose a network, its epochs and its learning rate for a budget.

    Without a fit the paper's anchors choose (2310.16764); with one, the network of the lowest predicted loss, each
    trained for exactly the budget.

    Example:
        >>> chosen = plan("110000 tpu-v4-core-hours").chosen
        >>> chosen.model, round(chosen.epochs, 1)
        ('dm_nfnet_f7_plus', 8.0)

    Args:
        budget: FLOPs, or time of a device: "1e21", "64 H100-hours".
        fit: a fit that knows sizes, of the parametric form or for repeated data.
        results: the runs behind the fit with all of their learning rates; without them the fit's own points serve,
            which have the best rates alone.
        images: of the data that is trained on; by default those of JFT-4B for the anchors, and those of the fit.
        models: only networks of the table whose names match this shell-style pattern; by default those of the fit, or
            of the paper.
        image_size: side of the images in pixels; by default 224, or that of the fit's runs.
        device: what a budget of FLOPs is spent on, a key of `DEVICES`.
        utilisation: the share of the device's peak that training reaches; an NFNet's by default.
        price_per_hour: of one device.
        recipe: of the command that is printed.

    Raises:
        InputError: naming all that is wrong.
    """
    runs = _runs(fit, results)
    faults: list[str] = []
    spent = _told(faults, lambda: parse_budget(budget, device=device, utilisation=utilisation))
    networks = _told(faults, lambda: _networks(runs, models, image_size))
    data_images = _told(faults, lambda: _data_images(fit, runs, images))
    if fit is not None:
        _told(faults, lambda: predictor(fit.law, 1.0))
    if results and fit is None:
        faults.append("results: they go with a fit; make one of them with `nfnet-eqx scaling fit`")
    if results and not runs:
        faults.append("results: they have no finished run of the fit's family")
    datasets = sorted({point.dataset for point in (*runs, *(fit.points if fit else ())) if point.dataset})
    if len(datasets) > 1:
        faults.append(f"results: they are of different data ({', '.join(datasets)}); plan with those of one")
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        faults.append(f"price_per_hour (={price_per_hour}) must be 0 or more")
    if recipe not in RECIPES:
        faults.append(f"recipe {recipe!r}: there are {', '.join(RECIPES)}")
    if faults or spent is None or networks is None or data_images is None:
        raise InputError("; ".join(faults))

    # Runs state the FLOPs of their own images.
    size = None if networks[0].from_runs else _size(image_size)
    candidates = _affordable(networks, spent, data_images)
    if fit is None:
        source, optimum = SOURCE, paper_optimum(spent)
        chosen = nearest(candidates, optimum)
        rates = paper_learning_rates(chosen)
        extrapolated = paper_extrapolated(spent, chosen, optimum, data_images, _size(image_size))
        derived = paper_derived()
    else:
        source = f"a fit of the form {type(fit.law).__name__} with {len(fit.samples)} samples of the bootstrap"
        optimum, interior = fitted_optimum(fit, networks, spent, data_images)
        candidates = predicted(candidates, fit, data_images)
        chosen = min(candidates, key=lambda one: one.loss.value if one.loss else math.inf)
        rates = fitted_learning_rates(runs, chosen)
        # The fit's own points have the best rates alone, so that their edge is none of the search's.
        tried = rates if results else ()
        extrapolated = fit_extrapolated(fit.law, runs, spent, networks, chosen, optimum, interior, tried)
        derived = ()
    return ComputePlan(
        budget=spent,
        data_images=data_images,
        image_size=size,
        source=source,
        optimum=optimum,
        candidates=_around(candidates, chosen),
        chosen=chosen,
        learning_rates=rates,
        price=None if price_per_hour is None else price_per_hour * spent.hours,
        notes=() if fit is None else fit.notes,
        extrapolated=extrapolated,
        derived=(*derived, *_utilisation(spent)),
        command=_command(chosen, rates, size, recipe),
    )


def _runs(fit: Fit | None, results: Sequence[Point]) -> Sequence[Point]:
    """The finished runs of the fit's family: a sweep may hold several, and a fit is of one."""
    if fit is None:
        return ()
    families = {point.family for point in fit.points}
    own = [p for p in results if p.family in families and p.final and p.status == "done" and p.loss is not None]
    return own if results else fit.points


def _told(faults: list[str], find: Callable[[], T]) -> T | None:
    """What a function finds; else its fault is added to the others."""
    try:
        return find()
    except InputError as error:
        faults.append(str(error))
        return None


def _size(image_size: int | None) -> int:
    return _anchors.IMAGE_SIZE if image_size is None else image_size


def _networks(runs: Sequence[Point], models: str | None, image_size: int | None) -> list[Sized]:
    """The networks to choose from."""
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size (={image_size}) must be positive")
    if models is None and (networks := networks_of(runs)):
        if image_size is not None:
            raise InputError(
                f"image_size (={image_size}): the fit's runs state the FLOPs of their own images; leave it away, or "
                "name networks of the table with models"
            )
        return networks
    names = list_models(models) if models is not None else _anchors.MODELS
    if not names:
        raise InputError(f"models: no architecture matches {models!r}; nfnet-eqx list names them all")
    return sized(names, _size(image_size))


def _data_images(fit: Fit | None, runs: Sequence[Point], images: float | None) -> float:
    """How many images an epoch passes over."""
    if images is not None:
        if not 1 <= images < math.inf:
            raise InputError(f"images (={images}) must be 1 or more: how many your data has")
        return float(images)
    if fit is None:
        return float(_anchors.IMAGES)
    told = [point for point in runs if point.images and point.epochs]
    passed = [(point.images or 0) / (point.epochs or 1) for point in told]
    if not told:
        raise InputError("images is needed, how many your data has: the fit does not say it")
    # Whole steps make the quotient inexact where a run is short.
    if max(passed) > 1.1 * min(passed):
        seen = f"{min(passed):,.0f} to {max(passed):,.0f}"
        raise InputError(f"images is needed, how many your data has: the fit's runs passed over {seen}")
    longest = max(told, key=lambda point: point.epochs or 0)
    whole = longest.unique_images if (longest.epochs or 0) >= 1 else None
    return whole or (longest.images or 0) / (longest.epochs or 1)


def _affordable(networks: Sequence[Sized], budget: Budget, data_images: float) -> list[Candidate]:
    """What the budget buys of each network, where that is a step at least."""
    candidates = [network.candidate(budget, data_images) for network in networks]
    enough = [candidate for candidate in candidates if candidate.images >= _anchors.BATCH_SIZE]
    if not enough:
        most = max(candidates, key=lambda candidate: candidate.images)
        raise InputError(
            f"budget {budget.text!r}: buys {most.images:.3g} images of {most.model}, and one step takes "
            f"{_anchors.BATCH_SIZE}; plan for {_anchors.BATCH_SIZE * most.flops_per_image:.2g} FLOPs or more"
        )
    return enough


def _around(candidates: Sequence[Candidate], chosen: Candidate) -> tuple[Candidate, ...]:
    at = candidates.index(chosen)
    return tuple(candidates[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS + 1])


def _utilisation(budget: Budget) -> tuple[str, ...]:
    if budget.utilisation_given:
        return ()
    if budget.device.startswith("tpu"):
        return (
            f"a utilisation of {budget.utilisation}: what the paper's core hours imply for F7+ on TPU-v4 (for the "
            "ViTs that it compares with, 0.41 to 0.43); state your own with utilisation",
        )
    return (
        f"a utilisation of {budget.utilisation}: assumed, half of the 0.4 of large ViTs on GPUs, since NFNets do about "
        "half their multiply-adds a second there; measure a short run and state your own with utilisation",
    )


def _command(chosen: Candidate, rates: Sequence[float], image_size: int | None, recipe: str) -> str | None:
    """The line for a shell; DATA is the user's."""
    if chosen.model not in list_models():
        return None
    words = ["nfnet-eqx train", f"--recipe {recipe}", f"--model {chosen.model}", "--data DATA"]
    words += [f"--out runs/{chosen.model}", f"--epochs {chosen.epochs:.4g}"]
    if image_size is not None:
        # The paper trains its NFNets at 224 pixels and evaluates them at 256.
        larger = 32 * round(image_size * 8 / 7 / 32) if chosen.model in _anchors.MODELS else image_size
        words += [f"--image-size {image_size}", f"--eval-size {max(larger, image_size)}"]
    if rates:
        words.append(f"--optimizer.learning-rate {rates[0]:g}")
    return " ".join(words)
