"""`nfnet-eqx scaling compare`: two families at equal compute."""

import dataclasses
import json as json_format
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.cli._text import name
from nfnet_eqx.scaling import At, Axis, EqualCompute, Frontier, Point, read_points
from nfnet_eqx.scaling import compare as measure


def compare(
    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS [RESULTS]")],
    *,
    a: str | None = None,
    b: str | None = None,
    axis: Axis = "flops",
    level: float = 0.95,
    samples: int = 1000,
    save: Path | None = None,
    json: bool = False,
) -> None:
    """Print how much more compute one family needs than another to the same loss, and its loss at the same compute.

    Intervals come from a bootstrap over runs; nothing is said outside of what both families have.

    Examples:
        nfnet-eqx scaling compare runs/study/results.jsonl --a NFNet --b ViT --save compare.png
        nfnet-eqx scaling compare convnets.jsonl vits.jsonl --axis seconds

    Args:
        results: one file of results with both families, or one for each.
        a: the family that is measured, as the results name it; by default the first one in the file.
        b: the family that it is measured against; by default the other one.
        axis: compute is training FLOPs, or seconds of training.
        level: of the intervals.
        samples: of the bootstrap.
        save: also draw both families to this PNG or SVG.
        json: print JSON instead of words.

    Raises:
        InputError: a file or a family cannot be used, or they have nothing in common.
    """
    points, first, second = _families(results, a, b)
    found = measure(points, first, second, axis=axis, level=level, samples=samples)
    if save is not None:
        from nfnet_eqx.scaling import plot_compare

        plot_compare(found, save)
    print(json_format.dumps(found.to_json(), indent=2, allow_nan=False) if json else "\n".join(_lines(found)))


def _families(results: tuple[Path, ...], a: str | None, b: str | None) -> tuple[list[Point], str, str]:
    """All points, and the names of the two families."""
    if not 1 <= len(results) <= 2:
        raise InputError(f"{len(results)} files of results are given; name one with both families, or one for each")
    tables = [read_points(path) for path in results]
    if len(tables) == 1:
        present = list(dict.fromkeys(point.family for point in tables[0] if point.family))
        others = [family for family in present if family not in (a, b)]
        missing = [family for family in (a, b) if family is None]
        if len(others) != len(missing) and missing:
            known = ", ".join(map(repr, present)) or "none"
            raise InputError(f"{results[0]}: choose two families with --a and --b; it has {known}")
        rest = iter(others)
        return tables[0], a or next(rest), b or next(rest)
    # A table from elsewhere need not name its family: its file does then.
    names = [_only_family(path, table, given) for path, table, given in zip(results, tables, (a, b), strict=True)]
    shown = names if names[0] != names[1] else [path.stem for path in results]
    if shown[0] == shown[1]:
        raise InputError(f"{results[0]}, {results[1]}: both are of {shown[0]!r}; give one file another name")
    points = [
        dataclasses.replace(point, family=called)
        for table, family, called in zip(tables, names, shown, strict=True)
        for point in table
        if point.family in ("", family)
    ]
    return points, shown[0], shown[1]


def _only_family(path: Path, table: list[Point], given: str | None) -> str:
    present = list(dict.fromkeys(point.family for point in table if point.family))
    if given is not None and present and given not in present:
        raise InputError(f"{path}: has no family {given!r}; there are {', '.join(map(repr, present))}")
    if given is None and len(present) > 1:
        raise InputError(f"{path}: has the families {', '.join(map(repr, present))}; choose with --a (first file), --b")
    return given or (present[0] if present else path.stem)


def _lines(found: EqualCompute) -> Iterator[str]:
    unit = {"flops": "FLOPs", "seconds": "seconds"}[found.axis]
    for frontier in (found.a, found.b):
        yield _frontier_line(frontier, unit)
    yield ""
    for title, places in (
        (f"{unit:>10}  gap of loss, nats", found.gap),
        (f"{'loss':>10}  ratio of {unit}", found.ratio),
    ):
        if places:
            yield title
            yield from map(_place, places[:: max(len(places) // 4, 1)])
            yield ""
    for note in found.notes:
        yield f"note: {note}"
    yield found.verdict


def _frontier_line(frontier: Frontier, unit: str) -> str:
    law, first, last = frontier.law, frontier.curve[0].x, frontier.curve[-1].x
    return (
        f"{name(frontier.family)}: {len(frontier.tuned)} models and budgets, {len(frontier.envelope)} on the envelope, "
        f"{first:.3g} to {last:.3g} {unit}; loss = {law.E:.4g} + {law.a:.4g} C^-{law.b:.4g}"
    )


def _place(place: At) -> str:
    estimate = place.estimate
    return f"{place.x:10.4g}  {estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"
