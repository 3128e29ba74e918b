"""What a comparison of two families at equal compute consists of: data for words, JSON and a figure."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

from nfnet_eqx.scaling._laws import PowerLaw
from nfnet_eqx.scaling._points import Point

Axis = Literal["flops", "seconds"]


class Estimate(NamedTuple):
    """A number with its interval.

    Attributes:
        value: of all runs.
        low: lower end of the interval of the bootstrap.
        high: upper end; infinite where too many samples never reach the loss in question.
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
        gap: `loss of a - loss of b`, in nats, at compute where both have data, evenly in its logarithm; empty where
            there is none.
        mean_gap: its mean over the middle half of that range.
        ratio: `compute of a / compute of b`, at losses that both reach, likewise, from high to low; empty where there
            are none.
        mean_ratio: its geometric mean over the middle half of that range.
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
        """All of it in JSON's types, nothing rounded; what is not finite is null."""
        return _plain(self)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Estimate | At):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
