"""What the readers of timm's files share: kinds of values, and what a reader of one family has to offer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nfnet_eqx.models import NetworkConfig


class Kind(NamedTuple):
    """What a setting may be: in words, and whether a value is."""

    words: str
    holds: Callable[[Any], bool]


def is_integer(value: Any, low: int = 0) -> bool:
    """Whether this is a number of something, `low` or more."""
    return type(value) is int and low <= value < 2**31


def is_number(value: Any) -> bool:
    """Whether this is a number of sensible size."""
    return type(value) in (int, float) and abs(value) < 1e6


INTEGER = Kind("an integer", is_integer)
POSITIVE = Kind("a positive integer", lambda v: is_integer(v, 1))
CLASSES = Kind("an integer, also a negative one", lambda v: is_integer(v, -(2**31)))
NUMBER = Kind("a number", is_number)
FLAG = Kind("true or false", lambda v: isinstance(v, bool))


def faults_of(settings: Mapping[str, Any], kinds: Mapping[str, Kind]) -> list[str]:
    """What in timm's settings is of the wrong kind, or is none of them."""
    faults = []
    for key, value in settings.items():
        if key not in kinds:
            faults.append(f"model_args {key!r} (={value!r}) is not supported")
        elif not kinds[key].holds(value):
            faults.append(f"{key} must be {kinds[key].words}, got {value!r}")
    return faults


class Reader(NamedTuple):
    """One family in timm's words.

    Attributes:
        config: the class of its configurations.
        architectures: timm's names, each with its settings.
        given: the settings that the rest of a file implies, from all of it and from its `pretrained_cfg`.
        faults: what in settings is impossible, or is honoured by timm and cannot be by us.
        build: the configuration that settings without faults mean, from an architecture's name and them.
        model_args: the settings in which a configuration differs from one of timm's architectures.
        differences: what makes a configuration another network than a second one, as far as timm's files describe it.
        global_pool: how a configuration pools.
    """

    config: type[NetworkConfig]
    architectures: Mapping[str, dict[str, Any]]
    given: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
    faults: Callable[[dict[str, Any]], list[str]]
    build: Callable[[str, dict[str, Any]], NetworkConfig]
    model_args: Callable[[str, Any], dict[str, Any]]
    differences: Callable[[Any, Any], list[str]]
    global_pool: Callable[[Any], str]
