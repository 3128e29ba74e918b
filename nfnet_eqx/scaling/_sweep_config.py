"""What a sweep trains: a TOML file, or the same as frozen dataclasses."""

import dataclasses
import difflib
import inspect
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx._fields import NOT_NEGATIVE, POSITIVE, Bounds, check_fields, typed_fields
from nfnet_eqx.models import NetworkConfig, config_from_dict
from nfnet_eqx.train import TrainConfig
from nfnet_eqx.train.recipes import RECIPES

# It names folders and files.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")

# What a sweep decides by itself, and where a user says it.
_OWN = {
    "model": "models.model",
    "data": "data",
    "out": "the command's --out",
    "epochs": "epochs",
    "seed": "seeds",
    "learning_rate": "learning_rates",
    "export": "keep_checkpoints",
}


# For every budget, or by budgets; TOML's keys are text.
Rates = tuple[float, ...] | dict


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepModel:
    """One network of a sweep.

    Attributes:
        name: of its runs and in the results.
        model: what it starts from, as in `TrainConfig.model`: random parameters of an architecture, by its name or its
            configuration; or a checkpoint.
        family: what `compare` tells apart; empty: the network's own, "NFNet" say.
        learning_rates: those that it is trained at, for all budgets or as a table of budgets ("0.25" = [0.8, 1.6], as
            the best one falls with the epochs); none: the sweep's.
        recipe: what its runs start from; empty: the sweep's.
        train: changes of the recipe for this network alone, on top of the sweep's: any field of `TrainConfig`.

    Raises:
        InputError: naming every value that is impossible, and why.
    """

    name: str
    model: str | NetworkConfig
    family: str = ""
    learning_rates: Rates = ()
    recipe: str = ""
    train: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self, _bounds(vars(self)), _model_faults)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Models x epoch budgets x learning rates x seeds, each a training run with its own full schedule.

    Attributes:
        data: what all are trained and evaluated on, as in `TrainConfig.data`.
        models: the networks.
        epochs: the budgets, in passes over the data, whole or not.
        learning_rates: those of every model that names none itself, likewise. The paper's are powers of two apart.
        seeds: every run is made once with each.
        recipe: the recipe that the runs start from.
        train: changes of it: any field of `TrainConfig`, nested ones as tables; "none" is None.
        keep_checkpoints: keep the trained network of every run, as `from_pretrained` opens it.

    Raises:
        InputError: naming every value that is impossible, and why.
    """

    data: Path
    models: tuple[SweepModel, ...]
    epochs: tuple[float, ...]
    learning_rates: Rates = ()
    seeds: tuple[int, ...] = (0,)
    recipe: str = ""
    train: dict = dataclasses.field(default_factory=dict)
    keep_checkpoints: bool = False

    def __post_init__(self) -> None:
        check_fields(self, _bounds(vars(self)), _sweep_faults)

    def rates(self, model: SweepModel, epochs: float) -> tuple[float, ...]:
        """The learning rates of one of the models for one of the budgets."""
        rates = model.learning_rates or self.learning_rates
        return rates if isinstance(rates, tuple) else {float(key): tuple(value) for key, value in rates.items()}[epochs]

    def train_config(
        self, model: SweepModel, out: Path, *, epochs: float, learning_rate: float, seed: int
    ) -> TrainConfig:
        """The settings of one run.

        Raises:
            InputError: naming every change that the recipe cannot take.
        """
        recipe = RECIPES[model.recipe or self.recipe]
        start: dict[str, Any] = {"data": self.data, "out": out}
        default = inspect.signature(recipe).parameters["model"].default
        if isinstance(model.model, str) or default is inspect.Parameter.empty:
            start["model"] = model.model
        config = dataclasses.replace(recipe(**start), model=model.model)
        faults: list[str] = []
        config = _changed(config, _merged(self.train, model.train), "train", faults)
        if faults:
            raise InputError("; ".join(faults))
        length = {} if _says(self, model, "eval_every_epochs") else {"eval_every_epochs": epochs}
        return dataclasses.replace(
            config,
            epochs=epochs,
            seed=seed,
            optimizer=dataclasses.replace(config.optimizer, learning_rate=learning_rate),
            export="last" if self.keep_checkpoints else None,
            **length,
        )


def read_sweep(path: Path) -> SweepConfig:
    """The sweep that a TOML file describes; its own relative paths are relative to the working directory.

    Raises:
        InputError: the file cannot be read, or with every fault in it: an unknown field by the nearest known one, a
            value that is impossible, a change that a recipe cannot take.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give the TOML file of a sweep") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no valid TOML ({error}); mend that line") from None
    try:
        return _from_table(table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _from_table(table: Mapping[str, Any]) -> SweepConfig:
    faults: list[str] = []
    models: list[SweepModel] = []
    given = table.get("models")
    if not isinstance(given, list) or not given or not all(isinstance(model, dict) for model in given):
        faults.append("models must be tables, one [[models]] for each network")
        given = []
    for number, model in enumerate(given, 1):
        try:
            models.append(_model(model))
        except InputError as error:
            named = f" ({model['name']})" if isinstance(model.get("name"), str) else ""
            faults.append(f"models[{number}]{named}: {error}")
    possible = {"data": Path(), "epochs": (1,), "learning_rates": (1,) if "learning_rates" in table else ()}
    others = {name: value for name, value in table.items() if name != "models"}
    return _made(SweepConfig, others, possible, faults, models=tuple(models))


def _model(table: Mapping[str, Any]) -> SweepModel:
    """A table of `[[models]]`, in which `network` may stand for `model`: an architecture by its configuration."""
    faults, network = [], table.get("model", "")
    if ("model" in table) == ("network" in table):
        faults.append("give either model (a name) or network (a table of an architecture's fields)")
    elif "network" in table:
        try:
            network = _network(table["network"])
        except InputError as error:
            faults.append(str(error))
    others = {name: value for name, value in table.items() if name != "network"}
    return _made(SweepModel, others | {"model": network}, {"name": "name", "model": ""}, faults)


_Made = typing.TypeVar("_Made")


def _made(
    cls: type[_Made], table: Mapping[str, Any], possible: Mapping[str, Any], faults: Sequence[str], **others: Any
) -> _Made:
    """A dataclass from a table, unless there are faults.

    Args:
        cls: the class.
        table: its fields.
        possible: values for what is missing or impossible in the table, so that the rest is looked at as well.
        faults: what is wrong besides.
        others: fields that the table has not.
    """
    unknown = _unknown(table, _names(cls))
    missing = [f"{name} is missing" for name in possible if name not in table and possible[name] != ()]
    typed, wrong = typed_fields(cls, table, _bounds(table))
    faults = [*faults, *unknown, *missing, *wrong]
    try:
        made = cls(**{**possible, **typed, **others})
    except InputError as error:
        faults.append(str(error).removeprefix(f"{cls.__name__}: "))
    else:
        if not faults:
            return made
    raise InputError("; ".join(faults))


def _bounds(values: Mapping[str, Any]) -> dict[str, Bounds]:
    """Of the numbers in a sweep or a model; only the learning rates may be empty."""
    given = values.get("learning_rates")
    rates = {"learning_rates": POSITIVE} if given and not isinstance(given, dict) else {}
    return {"epochs": POSITIVE, "seeds": NOT_NEGATIVE} | rates


def _network(fields: Any) -> NetworkConfig:
    if not isinstance(fields, dict):
        raise InputError(f"network must be a table, got {fields!r}")
    return config_from_dict({name: None if value == "none" else value for name, value in fields.items()})


def _sweep_faults(config: SweepConfig) -> list[str]:
    faults = [f"{name} names {value} twice" for name in ("epochs", "seeds") for value in _twice(getattr(config, name))]
    faults += [f"two models are called {name}" for name in _twice([model.name for model in config.models])]
    faults += _rates_faults(config.learning_rates, config.epochs)
    faults += _recipe_faults(config.recipe) if config.recipe else []
    for model in config.models:
        where = f"model {model.name}: "
        if isinstance(model.learning_rates, dict):
            faults += [where + fault for fault in _rates_faults(model.learning_rates, config.epochs)]
        if not (model.learning_rates or config.learning_rates):
            faults.append(f"{where}learning_rates is missing, here and for the whole sweep")
        if not (model.recipe or config.recipe):
            faults.append(f"{where}recipe is missing, here and for the whole sweep: one of {', '.join(RECIPES)}")
    for model in config.models:
        if (model.recipe or config.recipe) not in RECIPES:
            continue
        try:
            config.train_config(model, Path(), epochs=config.epochs[0], learning_rate=1, seed=config.seeds[0])
        except InputError as error:
            fault = f"model {model.name}: {error}"
            faults += [] if str(error) in " ".join(faults) else [fault]  # of the whole sweep's changes
    return faults


def _model_faults(model: SweepModel) -> list[str]:
    faults = _rates_faults(model.learning_rates, None)
    if not _NAME.fullmatch(model.name):
        faults.append(f"name (={model.name!r}) must be of letters, digits and . _ + -, as folders are named by it")
    return faults + (_recipe_faults(model.recipe) if model.recipe else [])


def _rates_faults(rates: Rates, epochs: Sequence[float] | None) -> list[str]:
    """What is wrong with learning rates for such budgets; a model does not know these."""
    if isinstance(rates, tuple):
        return [f"learning_rates names {rate} twice" for rate in _twice(rates)]
    if epochs is None:
        return []
    faults, seen = [], []
    for key, value in rates.items():
        numbers = value if isinstance(value, list | tuple) else ()
        if not numbers or not all(type(rate) in (int, float) and rate in POSITIVE for rate in numbers):
            faults.append(f"learning_rates.{key!r} must be a sequence of positive numbers, got {value!r}")
        elif twice := _twice(numbers):
            faults.append(f"learning_rates.{key!r} names {twice[0]} twice")
        try:
            seen.append(float(key))
        except ValueError:
            faults.append(f"learning_rates.{key!r}: is no number of epochs")
    faults += [f"learning_rates.{key:g}: epochs names no such budget" for key in seen if key not in epochs]
    return faults + [f"learning_rates has nothing for {budget:g} epochs" for budget in epochs if budget not in seen]


def _recipe_faults(name: str) -> list[str]:
    if name in RECIPES:
        return []
    near = difflib.get_close_matches(name, RECIPES, n=1)
    return [f"there is no recipe {name!r}; " + (f"did you mean {near[0]}?" if near else f"take {', '.join(RECIPES)}")]


def _changed(config: Any, changes: Mapping[str, Any], where: str, faults: list[str]) -> Any:
    """A config with changed fields, those of its parts too; what cannot be is added to the faults."""
    own = [name for name in changes if name in _OWN and (where == "train" or name == "learning_rate")]
    faults += [f"{where}.{name} is the sweep's to set: use {_OWN[name]}" for name in own]
    strange = _unknown(changes, _names(type(config)))
    faults += [f"{where}.{fault}" for fault in strange]
    values: dict[str, Any] = {}
    hints: dict[str, Any] = typing.get_type_hints(type(config))
    for name, value in changes.items():
        if name in own or name not in hints:
            continue
        parts: list[Any] = [
            kind for kind in (hints[name], *typing.get_args(hints[name])) if dataclasses.is_dataclass(kind)
        ]
        if isinstance(value, Mapping) and parts:
            current = getattr(config, name)
            try:
                part = current if dataclasses.is_dataclass(current) else parts[0]()
            except TypeError:  # a part that has no defaults
                faults.append(f"{where}.{name} cannot be given by some of its fields")
                continue
            values[name] = _changed(part, value, f"{where}.{name}", faults)
        else:
            is_none = value == "none" and type(None) in typing.get_args(hints[name])
            values[name] = None if is_none else value
    typed, wrong = typed_fields(type(config), values, {})
    faults += [f"{where}: {fault}" for fault in wrong]
    try:
        return dataclasses.replace(config, **typed)
    except InputError as error:
        faults.append(f"{where}: {str(error).removeprefix(f'{type(config).__name__}: ')}")
        return config


def _merged(changes: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Both changes in one, nested tables too; the further ones win."""
    merged = dict(changes)
    for name, value in further.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _says(config: SweepConfig, model: SweepModel, name: str) -> bool:
    return name in config.train or name in model.train


def _unknown(given: Iterable[str], known: Sequence[str]) -> list[str]:
    """For each name that is not known, a fault with the nearest one that is."""
    faults = []
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            faults.append(f"{name}: there is no such field; {hint}")
    return faults


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


def _twice(values: Sequence[Any]) -> list[Any]:
    return sorted({value for value in values if list(values).count(value) > 1})
