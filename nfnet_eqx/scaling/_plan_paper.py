"""A plan from the paper's anchors: its largest run, and its rule that size and epochs grow at the same rate."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from nfnet_eqx.models import count, flops, get_config
from nfnet_eqx.scaling import _anchors
from nfnet_eqx.scaling._budget import Budget
from nfnet_eqx.scaling._equal_compute import Estimate
from nfnet_eqx.scaling._planned import Candidate, Optimum

SOURCE = (
    "the anchors of 2310.16764, which are of JFT-4B, 224 pixels and batch 4096: NFNet-F7+ for 8 epochs at 110,000 "
    "TPU-v4 core hours, size and epochs growing at the same rate"
)


class Sized(NamedTuple):
    """A network, what it costs, and what a budget buys of it."""

    model: str
    parameters: float
    flops_per_image: float
    from_runs: bool = False

    def candidate(self, budget: Budget, data_images: float) -> Candidate:
        images = budget.flops / self.flops_per_image
        return Candidate(
            model=self.model,
            parameters=self.parameters,
            flops_per_image=self.flops_per_image,
            images=images,
            epochs=images / data_images,
        )


def sized(names: Sequence[str], image_size: int) -> list[Sized]:
    """Networks of the table at an image size, the smallest first.

    Raises:
        InputError: one of them cannot take such images.
    """
    networks = []
    for name in names:
        config = get_config(name).at_image_size(image_size)
        networks.append(Sized(name, count(config, image_size).parameters, flops(config, image_size)))
    return sorted(networks, key=lambda network: network.parameters)


@functools.cache
def paper_networks() -> tuple[Sized, ...]:
    """Those of the study, at its image size; the last one has its largest run."""
    return tuple(sized(_anchors.MODELS, _anchors.IMAGE_SIZE))


def anchor_flops() -> float:
    """Training FLOPs of the paper's largest run, by our count of its network."""
    return _anchors.LARGEST_EPOCHS * _anchors.IMAGES * paper_networks()[-1].flops_per_image


def paper_optimum(budget: Budget) -> Optimum:
    """Size and images by the rule, at 224 pixels: both grow as the square root of compute."""
    scale = math.sqrt(budget.flops / anchor_flops())
    return Optimum(
        parameters=Estimate(*(paper_networks()[-1].parameters * scale,) * 3),
        images=Estimate(*(_anchors.LARGEST_EPOCHS * _anchors.IMAGES * scale,) * 3),
    )


def nearest(candidates: Sequence[Candidate], optimum: Optimum) -> Candidate:
    """The candidate of the best size, in the logarithm."""
    return min(candidates, key=lambda one: abs(math.log(one.parameters / optimum.parameters.value)))


def paper_learning_rates(candidate: Candidate) -> tuple[float, float]:
    """The first trial and the second, for a batch of 256.

    The paper has 1.6 (at batch 4096) for few epochs, a slow fall with epochs that is faster for large models, and no
    best rate below 0.4. In between, by us: over its five doublings of epochs F0 loses one factor of two and F7+ two, in
    proportion to the logarithms of epochs (those of JFT-4B: what counts is the number of steps) and parameters.
    """
    smallest, *_, largest = (network.parameters for network in paper_networks())
    longer = _share(candidate.images / _anchors.IMAGES, _anchors.FEWEST_EPOCHS, _anchors.MOST_EPOCHS)
    larger = _share(candidate.parameters, smallest, largest)
    rate = _anchors.LEARNING_RATE / 2 ** round(longer * (1 + larger))
    second = 2 * rate if rate <= _anchors.LOWEST_LEARNING_RATE else rate / 2
    return rate * 256 / _anchors.BATCH_SIZE, second * 256 / _anchors.BATCH_SIZE


def paper_extrapolated(
    budget: Budget, chosen: Candidate, optimum: Optimum, data_images: float, image_size: int
) -> tuple[str, ...]:
    """What the paper's study does not cover."""
    words = []
    largest = anchor_flops()
    smallest = largest * _anchors.SMALLEST_CORE_HOURS / _anchors.LARGEST_CORE_HOURS
    if not 0.99 * smallest <= budget.flops <= 1.01 * largest:
        words.append(
            f"the budget, {budget.flops:.3g} FLOPs: the paper's runs span {smallest:.2g} to {largest:.2g} "
            f"({_anchors.SMALLEST_CORE_HOURS:,} to {_anchors.LARGEST_CORE_HOURS:,} TPU-v4 core hours)"
        )
    sizes = [network.parameters for network in paper_networks()]
    if not 0.9 * sizes[0] <= optimum.parameters.value <= 1.1 * sizes[-1]:
        words.append(
            f"the size: {optimum.parameters.value / 1e6:.3g} M parameters would be best, and the paper's networks have "
            f"{sizes[0] / 1e6:.0f} to {sizes[-1] / 1e6:.0f} M"
        )
    if chosen.model not in _anchors.MODELS:
        names = ", ".join(_anchors.MODELS)
        words.append(f"the network, {chosen.model}: size, epochs and learning rate are the paper's for {names}")
    if data_images != _anchors.IMAGES:
        words.append(
            f"the data: {data_images:,.0f} images are passed over {chosen.epochs:.3g} times; the paper passed over 4 "
            f"billion at most {_anchors.MOST_EPOCHS:g} times. Images seen again teach less each time and "
            "want regularization, as in the recipe imagenet"
        )
    elif chosen.epochs > 1.1 * _anchors.MOST_EPOCHS:
        words.append(f"the epochs, {chosen.epochs:.3g}: the paper has at most {_anchors.MOST_EPOCHS:g}")
    if image_size != _anchors.IMAGE_SIZE:
        words.append(f"the image size, {image_size}: the paper trains at {_anchors.IMAGE_SIZE}")
    return tuple(words)


def paper_derived() -> tuple[str, ...]:
    """What is ours in a plan from the anchors."""
    first = anchor_flops() / _anchors.LARGEST_EPOCHS**2
    hours = _anchors.LARGEST_CORE_HOURS / _anchors.LARGEST_EPOCHS**2
    return (
        f"the anchor in FLOPs, {anchor_flops():.3g}, by our count of F7+; with its core hours that is a utilisation of "
        f"{_anchors.TPU_UTILISATION}",
        "both exponents as exactly 1/2: the paper prints no formula. By them one epoch is best at "
        f"{first:.2g} FLOPs ({hours:,.0f} core hours); the paper has more than one above about "
        f"{_anchors.MORE_THAN_ONE_EPOCH_CORE_HOURS:,}, on a grid of factors of two",
        "the learning rate: the paper has 1.6 at batch 4096 for small budgets and a fall to 0.4 or more, in a figure; "
        "what lies between is interpolated, so make both trials and keep the better",
    )


def _share(value: float, low: float, high: float) -> float:
    """Where a value lies between two others in the logarithm: 0 to 1, and no further."""
    return min(max(math.log(value / low) / math.log(high / low), 0.0), 1.0)
