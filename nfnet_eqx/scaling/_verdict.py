"""A comparison in words: what its intervals carry, and what the reader has to know of its runs."""

from collections.abc import Sequence

from nfnet_eqx.scaling._equal_compute import At, Axis, EqualCompute, Estimate
from nfnet_eqx.scaling._points import Point
from nfnet_eqx.scaling._search import missing_words, searched

_UNITS = {"flops": "FLOPs", "seconds": "seconds"}


def verdict(found: EqualCompute) -> str:
    """What the intervals carry, in one sentence with the range that it holds for."""
    a, b, unit = found.a.family, found.b.family, _UNITS[found.axis]
    early, late = _crossing(found.gap)
    if early and late:
        parts = [f"at {place.x:.2g} {unit} the loss of {a} is {_gap(place.estimate, b)}" for place in (early, late)]
        return f"Neither family is better throughout: {parts[0]}, {parts[1]}; {_range(found)}."
    # Of each comparison, at what: whether a is better, None where that cannot be shown.
    better: dict[str, bool | None] = {}
    numbers = []
    if (ratio := found.mean_ratio) is not None:
        better["the same loss"] = None if ratio.low <= 1 <= ratio.high else ratio.value < 1
        ends = f"{ratio.low:.3g} to {ratio.high:.3g}"
        numbers.append(f"{a} takes {ratio.value:.3g} times the {unit} of {b} to the same loss ({ends})")
    if (gap := found.mean_gap) is not None:
        better[f"the same {unit}"] = None if gap.low <= 0 <= gap.high else gap.value < 0
        whose = "its loss" if numbers else f"the loss of {a}"
        numbers.append(f"{whose} at the same {unit} is {_gap(gap, b)}")
    else:
        numbers.append("at no compute do both have data")
    if ratio is None:
        numbers.append("they reach no loss in common")
    words = f"{', and '.join(numbers)}; {_range(found)}."
    shown = [at for at, which in better.items() if which is not None]
    if not shown:
        return f"No difference can be shown between {a} and {b}: {words}"
    if len({better[at] for at in shown}) == 2:
        return f"Neither family is better throughout: {words}"
    first, second = (a, b) if better[shown[0]] else (b, a)
    doubt = [at for at in better if at not in shown]
    limits = f" at {shown[0]}, while at {doubt[0]} no difference can be shown" if doubt else ""
    return f"{first} is better than {second}{limits}: {words}"


def comparison_notes(points: Sequence[Point], a: str, b: str, axis: Axis, kept: int, samples: int) -> tuple[str, ...]:
    """What the reader has to know: runs left out, learning rates at the edge of their grid, an unequal search."""
    notes, rates = [], {}
    for family in (a, b):
        runs = [point for point in points if point.family == family and point.final]
        lost = [point for point in runs if point.status != "done" or point.loss is None]
        if lost:
            notes.append(f"{family}: {len(lost)} of {len(runs)} runs diverged or failed, and are left out")
        found = searched(runs)
        if found.missing:
            notes.append(f"{family}: {missing_words(found)}")
        if found.edge:
            notes.append(
                f"{family}: for {len(found.edge)} of {len(found.chosen)} pairs of model and budget the best learning "
                "rate is at the edge of those tried; their losses may still fall"
            )
        rates[family] = sum(found.tried) / max(len(found.tried), 1)
    if min(rates.values()) > 0 and max(rates.values()) > 1.2 * min(rates.values()):
        counts = " and ".join(f"{mean:.2g} for {family}" for family, mean in rates.items())
        notes.append(f"the search was not equal: learning rates a model and budget were {counts}")
    if axis == "seconds":
        notes.append("seconds compare only where all runs had the same machine, alone")
    if kept < 0.9 * samples:
        notes.append(f"the intervals rest on {kept} of {samples} samples; the others left too few runs on an envelope")
    return tuple(notes)


def _crossing(gap: tuple[At, ...]) -> tuple[At, At] | tuple[None, None]:
    """Where one family is shown to be better early and the other late: at both ends of the middle half of the range."""
    if gap:
        early, late = gap[len(gap) // 4], gap[-1 - len(gap) // 4]
        first, second = early.estimate, late.estimate
        if first.high < 0 < second.low or second.high < 0 < first.low:
            return early, late
    return None, None


def _gap(gap: Estimate, other: str) -> str:
    """A gap with its interval, as distances on one side where they are on one."""
    if gap.low < 0 < gap.high:
        ends = f"{-gap.low:.3g} below to {gap.high:.3g} above"
    else:
        low, high = sorted((abs(gap.low), abs(gap.high)))
        ends = f"{low:.3g} to {high:.3g}"
    return f"{abs(gap.value):.3g} nats {'below' if gap.value < 0 else 'above'} that of {other} ({ends})"


def _range(found: EqualCompute) -> str:
    """Where the numbers hold: the part of the common range that their means are over."""
    parts = []
    for places, words in (
        (found.gap, "{:.2g} to {:.2g} " + _UNITS[found.axis]),
        (found.ratio, "losses from {:.3g} to {:.3g}"),
    ):
        if places:
            quarter = len(places) // 4
            parts.append(words.format(places[quarter].x, places[-1 - quarter].x))
    return f"{100 * found.level:g} % intervals, for {' and '.join(parts)}, the middle half of what both have"
