"""Points from a table: our results.jsonl, or any CSV or JSONL with named columns."""

import csv
import dataclasses
import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from nfnet_eqx._errors import InputError, first
from nfnet_eqx.scaling._points import Point, Status

_TEXTS = ("run", "model", "family", "dataset")
_POSITIVE = ("parameters", "images", "unique_images", "epochs", "flops", "learning_rate")
_NAMES = tuple(field.name for field in dataclasses.fields(Point))
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def read_points(
    path: str | Path, columns: Mapping[str, str] | None = None, *, measure: Literal["loss", "top1"] = "loss"
) -> list[Point]:
    """Read the points of a table.

    Args:
        path: a .jsonl file (one JSON object a line) or a .csv file (names in the first line).
        columns: the file's name of a column, for names of `Point`; without one, a column is looked for by `Point`'s own
            name, and one that is not there is not known. Without a column of runs, each row is a run.
        measure: what every row of a run that ended must have.

    Raises:
        InputError: naming the file and all that is wrong with it.
    """
    path, columns = Path(path), dict(columns or {})
    unknown = [name for name in columns if name not in _NAMES]
    if unknown:
        raise InputError(f"columns: there is no {first(unknown)}; a point has {', '.join(_NAMES)}")
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path}: has no rows; a fit needs some")
    present = list(dict.fromkeys(key for _, row in rows for key in row))
    faults = [f"no column {column!r} (for {name})" for name, column in columns.items() if column not in present]
    found = {name: columns.get(name, name) for name in _NAMES if columns.get(name, name) in present}
    if measure not in found and measure not in columns:
        faults.append(f"no column {measure!r}; name it with --{measure}")
    if "flops" not in found and "flops" not in columns and not {"parameters", "images"} <= {*found, *columns}:
        faults.append("no column 'flops', nor 'parameters' and 'images'; name them: --compute, --parameters, --images")
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}; it has {first(list(map(repr, present)), 20)}")
    points, wrong = [], defaultdict(list)
    for number, row in rows:
        points.append(_point(number, {name: row.get(column) for name, column in found.items()}, found, measure, wrong))
    if wrong:
        raise InputError(f"{path}: " + "; ".join(f"{what} in {first(where, 3)}" for what, where in wrong.items()))
    return [point for point in points if point is not None]


def infer_images(points: Sequence[Point], flops_per_parameter: float) -> list[Point]:
    """Fill what is not known by `C = k N D`: the images from FLOPs and parameters, or the FLOPs from the other two.

    Args:
        points: of any kind; what they state stays.
        flops_per_parameter: k, the training FLOPs of one parameter and one image (or token); 6 by the usual rule.
    """
    if not 0 < flops_per_parameter < math.inf:
        raise InputError(f"flops_per_parameter (={flops_per_parameter}) must be positive; the usual rule is 6")
    filled = []
    for point in points:
        if point.images is None and point.flops is not None and point.parameters is not None:
            point = dataclasses.replace(point, images=point.flops / (flops_per_parameter * point.parameters))
        elif point.flops is None and point.images is not None and point.parameters is not None:
            point = dataclasses.replace(point, flops=flops_per_parameter * point.parameters * point.images)
        filled.append(point)
    return filled


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each row with the words for where it stands."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"{path}: unknown kind of file; a table is a .csv or a .jsonl file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8; save the table again") from None
    return _csv_rows(path, text) if path.suffix.lower() == ".csv" else _jsonl_rows(path, text)


def _csv_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}); save the table again") from None
    if not lines:
        return []
    names = [name.strip() for name in lines[0][1]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: two columns are named {first(list(map(repr, twice)))}; rename one")
    odd = [f"line {number} ({len(line)})" for number, line in lines[1:] if len(line) != len(names)]
    if odd:
        raise InputError(f"{path}: {len(names)} columns are named, but not so many are in {first(odd, 3)}")
    return [(f"line {number}", dict(zip(names, map(str.strip, line), strict=True))) for number, line in lines[1:]]


def _jsonl_rows(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    rows, faults = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"line {number} is no JSON ({str(error)[:100]})")
            continue
        if isinstance(row, dict):
            rows.append((f"line {number}", row))
        else:
            faults.append(f"line {number} is no JSON object")
    if faults:
        raise InputError(f"{path}: {first(faults, 3)}; each line of a .jsonl file is one object")
    return rows


def _point(
    where: str, row: Mapping[str, Any], found: Mapping[str, str], measure: str, wrong: defaultdict[str, list[str]]
) -> Point | None:
    """The point of one row; what is wrong with it goes to `wrong`, by kind."""
    values: dict[str, Any] = {}
    for name, given in row.items():
        if given is None or given == "":
            continue
        value, fault = _value(name, given)
        if fault:
            wrong[f"{found[name]} must {fault}"].append(f"{where} ({str(given)[:40]!r})")
        else:
            values[name] = value
    values.setdefault("run", where)
    if values.get("status", "done") == "done" and measure not in values and row.get(measure) in (None, ""):
        wrong[f"{found[measure]} is empty"].append(where)
    return None if wrong else Point(**values)


def _value(name: str, given: Any) -> tuple[Any, str]:
    """A cell as the field's type, or what it must be."""
    if name in _TEXTS:
        return (str(given), "") if isinstance(given, str | int | float) else (None, "be text")
    if name == "status":
        return (given, "") if given in get_args(Status) else (None, f"be one of {', '.join(get_args(Status))}")
    if name == "final":
        flag = given if isinstance(given, bool) else _FLAGS.get(str(given).lower())
        return (flag, "") if flag is not None else (None, "be true or false")
    try:
        number = float(given) if isinstance(given, int | float | str) and not isinstance(given, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None:
        return None, "be a number"
    if name == "loss":
        # The fits take its logarithm.
        return (number, "") if 0 < number < math.inf else (None, "be a number above 0")
    if not math.isfinite(number):
        return None, "be a finite number"
    if name in _POSITIVE and number <= 0:
        return None, "be above 0"
    if name in ("seconds", "top1") and number < 0:
        return None, "be 0 or more"
    if name == "seed":
        return (int(number), "") if number == int(number) else (None, "be a whole number")
    return number, ""
