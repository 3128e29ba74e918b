"""The lower envelope of loss over compute."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from nfnet_eqx.scaling._points import Point


def envelope(points: Sequence[Point]) -> list[Point]:
    """The points that no other one with as little compute or less matches, by growing compute.

    Args:
        points: those without FLOPs or without a loss, before the end of a run, or not done, are left out.
    """
    usable = [p for p in points if p.final and p.status == "done" and p.flops is not None and p.loss is not None]
    ordered = sorted(usable, key=lambda point: (point.flops, point.loss))
    losses = np.array([[point.loss for point in ordered]], np.float64)
    return [point for point, on in zip(ordered, on_envelope(losses)[0], strict=True) if on]


def on_envelope(losses: Float[np.ndarray, "batch points"]) -> Bool[np.ndarray, "batch points"]:
    """Which of the losses, by growing compute, are below all before them; those that are infinite are not."""
    before = np.minimum.accumulate(losses, axis=1)[:, :-1]
    return losses < np.concatenate([np.full((len(losses), 1), np.inf), before], axis=1)
