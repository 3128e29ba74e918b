"""What a sweep has tried: the learning rates of each model and budget, and whether the best one lies inside of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nfnet_eqx.scaling._points import Point


class Searched(NamedTuple):
    """What was tried.

    Attributes:
        tried: how many learning rates each pair of model and budget has, runs without a loss included.
        chosen: of each pair with several rates the run of the best one.
        edge: those of them whose rate is the lowest or the highest that was tried. A rate that diverged lies beyond the
            best one as any other does.
        missing: pairs of model and epochs without a run, where at least one model has all of the epochs.
        pairs: how many pairs those models and epochs make.
    """

    tried: tuple[int, ...]
    chosen: tuple[Point, ...]
    edge: tuple[Point, ...]
    missing: int
    pairs: int


def searched(points: Sequence[Point]) -> Searched:
    """What the runs of a table tried; rows before the end of a run are none of its results."""
    pairs: dict[object, dict[float, list[Point]]] = {}
    for point in points:
        if point.final and point.learning_rate is not None:
            # A run that diverged has its epochs, and not the images that it was meant to see.
            budget = point.images if point.epochs is None else point.epochs
            pair = pairs.setdefault((point.family, point.model, point.parameters, budget), {})
            pair.setdefault(point.learning_rate, []).append(point)
    chosen, edge = [], []
    for rates in pairs.values():
        losses = {rate: [p.loss for p in runs if p.status == "done" and p.loss] for rate, runs in rates.items()}
        means = {rate: float(np.mean(own)) for rate, own in losses.items() if own}
        if len(rates) > 1 and means:
            best = min(means, key=means.__getitem__)
            chosen.append(next(p for p in rates[best] if p.status == "done" and p.loss))
            edge += chosen[-1:] if best in (min(rates), max(rates)) else []
    missing, every = _missing(points)
    return Searched(tuple(map(len, pairs.values())), tuple(chosen), tuple(edge), missing, every)


def _missing(points: Sequence[Point]) -> tuple[int, int]:
    """Pairs without a run, and all pairs; a table whose models have budgets of their own misses none."""
    epochs: dict[tuple[str, str], set[float]] = {}
    for point in points:
        if point.epochs is not None and point.final:
            epochs.setdefault((point.family, point.model), set()).add(point.epochs)
    every = set().union(*epochs.values())
    if every not in epochs.values():
        return 0, 0
    return sum(len(every - own) for own in epochs.values()), len(every) * len(epochs)


def missing_words(found: Searched) -> str:
    """That a sweep is not at its end."""
    return f"{found.missing} of {found.pairs} pairs of model and epochs have no run; is the sweep still under way?"
