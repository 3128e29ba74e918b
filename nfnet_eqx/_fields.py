"""The one check of every config: each field in the type that it declares, numbers in their bounds, all faults at once.

A config is a frozen dataclass; it may come from a user's script, the command line or a stranger's JSON. So lists become
tuples and NumPy's numbers Python's; anything else of another type than declared is refused by name.
"""

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from nfnet_eqx._errors import InputError


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Where a number must lie, or each number of a sequence, which then has one at least.

    Attributes:
        low: the smallest value.
        high: the largest value.
        above: `low` itself is excluded.
        below: `high` itself is excluded.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        low_holds = self.low < number if self.above else self.low <= number
        return low_holds and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return "be positive" if self.above and self.low == 0 else f"be {self.low} or more"
        if self.above or self.below:
            return f"lie in {'[('[self.above]}{self.low}, {self.high}{'])'[self.below]}"
        return f"lie between {self.low} and {self.high}"


POSITIVE = Bounds(0, above=True)
NOT_NEGATIVE = Bounds(0)
COUNT = Bounds(1)
# A layer that drops everything divides by zero.
RATE = Bounds(0, 1, below=True)


def check_fields(config: Any, bounds: Mapping[str, Bounds], together: Callable[[Any], list[str]] | None = None) -> None:
    """Checks a config and sets its fields in the types that they declare; for `__post_init__`.

    Args:
        config: the instance of a frozen dataclass.
        bounds: of its numbers, by the fields' names.
        together: faults of values that are possible one by one.

    Raises:
        InputError: naming the config's class and every fault.
    """
    values, faults = typed_fields(type(config), vars(config), bounds)
    for name, value in values.items():
        object.__setattr__(config, name, value)
    if not faults and together is not None:
        faults = together(config)
    if faults:
        raise InputError(f"{type(config).__name__}: " + "; ".join(faults))


def typed_fields(
    cls: type, values: Mapping[str, Any], bounds: Mapping[str, Bounds]
) -> tuple[dict[str, Any], list[str]]:
    """Those of `values` that are fields of `cls`, in the declared types, and the faults of the others."""
    typed, faults = {}, []
    for name, kind in _kinds(cls).items():
        if name not in values:
            continue
        value, limit = _as(kind, values[name]), bounds.get(name)
        if value is _WRONG or (limit is not None and value == ()):
            given = values[name]
            given = tuple(given) if isinstance(given, list) else given
            faults.append(f"{name} must be {_described(kind)}, got {shown(given)}")
        elif limit is not None and not all(number in limit for number in _numbers(value)):
            faults.append(f"{name} must {limit}, got {shown(value)}")
        else:
            typed[name] = value
    return typed, faults


def shown(value: Any) -> str:
    """`repr`, cut where a stranger's file holds a megabyte."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


# What is no value of the declared type; None may be one.
_WRONG = object()


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _as(kind: Any, value: Any) -> Any:
    """`value` in the type `kind`, or `_WRONG`. True is no integer, and a number no text."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return next((found for found in (_as(arg, value) for arg in args) if found is not _WRONG), _WRONG)
    if origin is Literal:
        return next((choice for choice in args if type(value) is type(choice) and value == choice), _WRONG)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return _WRONG
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        items = tuple(_as(*pair) for pair in zip(kinds, value, strict=False))
        return _WRONG if len(kinds) != len(value) or any(item is _WRONG for item in items) else items
    if kind is float:
        # A whole number stays one, as it is shown and written; one beyond the floats is for the bounds to refuse.
        return value if type(value) is int or (type(value) is float and math.isfinite(value)) else _WRONG
    if kind in (int, bool, types.NoneType):
        return value if type(value) is kind else _WRONG
    if kind is Path:
        return Path(value) if isinstance(value, str | os.PathLike) else _WRONG
    return value if isinstance(value, kind) else _WRONG


def _numbers(value: Any) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


_NAMES = {
    int: ("an integer", "integers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "flags"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    dict: ("a table", "tables"),
    types.NoneType: ("None", "Nones"),
}


def _described(kind: Any) -> str:
    """What a field must be, for a message."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, args))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple:
        items = _NAMES[args[0]][1] if args[0] in _NAMES else f"the class {args[0].__name__}"
        return f"a sequence of {items}" if args[-1] is Ellipsis else f"{len(args)} {items}"
    return _NAMES[kind][0] if kind in _NAMES else f"of the class {kind.__name__}"
