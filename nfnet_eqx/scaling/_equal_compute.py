"""What a comparison of two families at equal compute consists of: data for words, JSON and a figure."""

import dataclasses
from typing import Any, Literal, NamedTuple

from nfnet_eqx.scaling._laws import PowerLaw
from nfnet_eqx.scaling._points import Point

Axis = Literal["flops", "seconds"]


class Estimate(NamedTuple):
    """A number with its interval.

    Attributes:
        value: of all runs.
        low: lower end of the interval of the bootstrap.
        high: upper end.
    """

    value: float
    low: float
    high: float


class At(NamedTuple):
    """An estimate at one place of an axis.

    Attributes:
        x: compute (FLOPs or seconds) or loss, as the list says that it is in.
        estimate: of what.
    """

    x: float
    estimate: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frontier:
    """The lowest losses that one family reaches with its compute.

    Attributes:
        family: its name.
        tuned: a run for each model and budget, the one of its best learning rate.
        envelope: those of them that no run with less compute of this family matches, by growing compute.
        law: the power law of compute (of seconds, where they are the axis) that is fitted to the envelope.
        curve: the loss by the law, in nats, from the envelope's least compute to its largest and not beyond.
    """

    family: str
    tuned: tuple[Point, ...]
    envelope: tuple[Point, ...]
    law: PowerLaw
    curve: tuple[At, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EqualCompute:
    """Two families at equal compute.

    Attributes:
        a: the first family.
        b: the second, which the first is measured against.
        axis: what compute is: training FLOPs, or seconds of training.
        level: of all intervals.
        gap: `loss of a - loss of b`, in nats, at compute where both have data; empty where there is none.
        mean_gap: its mean over that range in the logarithm of compute.
        ratio: `compute of a / compute of b`, at losses that both reach; empty where there are none.
        mean_ratio: its geometric mean over that range in the logarithm of loss.
        notes: what the reader has to know of the runs, in words.
        verdict: what the intervals carry, in one sentence.
    """

    a: Frontier
    b: Frontier
    axis: Axis
    level: float
    gap: tuple[At, ...]
    mean_gap: Estimate | None
    ratio: tuple[At, ...]
    mean_ratio: Estimate | None
    notes: tuple[str, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON's types, nothing rounded."""
        return dataclasses.asdict(self)
