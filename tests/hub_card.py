"""What the Hub of the tests makes of a card: its metadata, the tags that a search filters by, and what is wrong."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)

# What each item of `model-index` must have.
_METRIC = {"type": str, "value": object}
_RESULT = {"task": {"type": str}, "dataset": {"name": str, "type": str}, "metrics": [_METRIC]}
_MODEL_INDEX = [{"name": str, "results": [_RESULT]}]


def _front_matter(text: str) -> Any:
    match = _FRONT_MATTER.match(text)
    return yaml.safe_load(match[1]) if match else None


def metadata(text: str) -> dict[str, Any]:
    """The metadata of a card; nothing where they cannot be read."""
    try:
        found = _front_matter(text)
    except yaml.YAMLError:
        found = None
    return json.loads(json.dumps(found, default=str)) if isinstance(found, dict) else {}


def tags(card: dict[str, Any]) -> list[str]:
    """What a search filters by."""
    prefixes = {"library_name": "", "pipeline_tag": "", "tags": ""}
    prefixes |= {"license": "license:", "datasets": "dataset:", "base_model": "base_model:"}
    return list(dict.fromkeys(f"{prefix}{item}" for key, prefix in prefixes.items() for item in _items(card, key)))


def look_at(text: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about the metadata of a card."""
    try:
        card = _front_matter(text)
    except yaml.YAMLError as error:
        return [" ".join(str(error).split())], []
    if card is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(card, dict):
        return ["the metadata must be a mapping"], []
    errors = [
        f'"{key}" must be a string or a list of strings'
        for key in ("license", "tags", "datasets", "metrics", "language", "base_model")
        if not all(isinstance(item, str) for item in _items(card, key))
    ]
    return errors + list(_faults(card.get("model-index", []), "model-index", _MODEL_INDEX)), []


def _items(card: dict[str, Any], key: str) -> list[Any]:
    value = card.get(key, [])
    return value if isinstance(value, list) else [value]


def _faults(value: Any, where: str, wanted: Any) -> Iterator[str]:
    """The places in which a value is not of the form that is wanted."""
    kind = wanted if isinstance(wanted, type) else type(wanted)
    if not isinstance(value, kind):
        yield f'"{where}" must be a {kind.__name__}'
    elif isinstance(wanted, list):
        for i, item in enumerate(value):
            yield from _faults(item, f"{where}[{i}]", wanted[0])
    elif isinstance(wanted, dict):
        for key, inner in wanted.items():
            if key in value:
                yield from _faults(value[key], f"{where}.{key}", inner)
            else:
                yield f'"{where}.{key}" is required'
