"""The check of all configs: NumPy's numbers are numbers, wrong types are refused, messages name field and rule."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import hypothesis
import hypothesis.strategies as st
import jaxtyping
import numpy as np
import pytest

import nfnet_eqx as nfx
from nfnet_eqx._errors import InputError
from nfnet_eqx._fields import COUNT, NOT_NEGATIVE, POSITIVE, RATE, Bounds, check_fields, typed_fields
from nfnet_eqx.data import Augment
from nfnet_eqx.images import Preprocess
from nfnet_eqx.train import OptimizerConfig, TrainConfig

CONFIGS = {
    "NFNetConfig": nfx.get_config("dm_nfnet_f0"),
    "Preprocess": Preprocess(test_input_size=(256, 256)),
    "Augment": Augment(),
    "OptimizerConfig": OptimizerConfig(),
    "TrainConfig": TrainConfig(model="m", data=Path("d"), out=Path("o"), num_classes=3, drop_rate=0.1),
}


@pytest.fixture
def as_users(monkeypatch: pytest.MonkeyPatch):
    """Without the tests' own checks of types, which users do not have."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def in_numpy(value: Any) -> Any:
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, tuple):
        return [in_numpy(item) for item in value]
    return np.str_(value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", CONFIGS)
def test_numpys_numbers_are_pythons(name: str, as_users):
    config = CONFIGS[name]
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    other = type(config)(**{key: in_numpy(value) for key, value in fields.items()})
    assert other == config and hash(other) == hash(config)
    types = {key: type(value) for key, value in vars(other).items()}
    assert types == {key: type(value) for key, value in vars(config).items()}
    json.dumps(dataclasses.asdict(other), default=str)


def test_a_number_of_classes_may_come_from_numpy(as_users):
    labels = np.array([0, 3, 6])
    config = dataclasses.replace(CONFIGS["NFNetConfig"], num_classes=labels.max() + 1, widths=np.array([256] * 4))
    assert json.loads(json.dumps(config.to_dict()))["num_classes"] == 7
    assert config.widths == (256, 256, 256, 256)


WRONG = {
    "integer": (["7", 7.0, True, None, [7], math.nan, np.float64(7), np.bool_(True)], "an integer"),
    "number": (["0.1", True, None, math.nan, math.inf, np.float32("nan"), [1.0]], "a finite number"),
    "flag": ([1, 0, None, "true", np.int64(1)], "true or false"),
    "choice": (["c", None, 1, ["a"], {}], "one of 'a', 'b'"),
    "maybe": (["1", 1.0, False], "an integer or None"),
    "several": (["12", [], (), [1, 2.0], [True], None, {"0": 1}, np.array([1.5])], "a sequence of integers"),
    "pair": ([[1.0], [1.0, 2.0, 3.0], 1.0, ["1", "2"]], "2 finite numbers"),
    "words": (["stem", [1], None, [None]], "a sequence of texts"),
    "text": ([3, None, ["a"]], "text"),
    "path": ([3, None], "a path"),
    "inner": ([{}, None, "augment"], "of the class Augment"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A field of every kind."""

    integer: int = 1
    number: float = 1.0
    flag: bool = False
    choice: Literal["a", "b"] = "a"
    maybe: int | None = None
    several: tuple[int, ...] = (1,)
    pair: tuple[float, float] = (1.0, 2.0)
    words: tuple[str, ...] = ()
    text: str = "t"
    path: Path = Path("p")
    inner: Augment = Augment()

    def __post_init__(self) -> None:
        check_fields(self, {"several": Bounds(1, 5), "maybe": COUNT})


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_refused_by_name_and_rule(name: str):
    values, expected = WRONG[name]
    for value in values:
        with pytest.raises(InputError) as error:
            Example(**{name: value})
        assert str(error.value).startswith(f"Example: {name} must be {expected}, got "), f"{name}={value!r}"


def test_what_can_be_meant_is_taken():
    taken = Example(number=3, maybe=np.int32(2), several=[1, np.uint8(2)], pair=np.array([0.5, 1.0]), path="p")  # type: ignore
    assert (taken.number, taken.maybe, taken.several, taken.pair) == (3, 2, (1, 2), (0.5, 1.0))
    assert {type(v) for v in (taken.number, taken.maybe, *taken.several)} == {int}
    assert Example(words=["stem", "stages.0"]).words == ("stem", "stages.0")  # type: ignore


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "rule"),
    [
        (POSITIVE, [1e-9, 10**9], [0, -1, math.nan], "be positive"),
        (NOT_NEGATIVE, [0, 7], [-1e-9, math.nan], "be 0 or more"),
        (COUNT, [1, 7], [0, 0.5], "be 1 or more"),
        (RATE, [0, 0.999], [-0.1, 1, 10**400], "lie in [0, 1)"),
        (Bounds(0, 1, above=True), [1e-9, 1], [0, 1.1], "lie in (0, 1]"),
        (Bounds(2, 5), [2, 5], [1, 6], "lie between 2 and 5"),
    ],
)
def test_bounds_hold_what_they_say(bounds: Bounds, inside: list, outside: list, rule: str):
    assert all(value in bounds for value in inside) and not any(value in bounds for value in outside)
    assert str(bounds) == rule


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.integers(-9, 9).map(np.int64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@hypothesis.given(st.sampled_from([Augment, Preprocess, OptimizerConfig, Example]), st.data())
def test_whatever_is_given_is_a_config_or_an_input_error(cls: type, data: st.DataObject):
    names = [field.name for field in dataclasses.fields(cls)]
    fields = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        try:
            config = cls(**fields)
        except InputError as error:
            assert "\n" not in str(error)
            return
        assert cls(**vars(config)) == config


def test_a_path_given_as_text_becomes_one():
    values, faults = typed_fields(TrainConfig, {"data": "digits", "out": b"runs/x", "eval_data": Path("val")}, {})
    assert values == {"data": Path("digits"), "eval_data": Path("val")}
    assert faults == ["out must be a path, got b'runs/x'"]
