"""Small JSON files read with suspicion, and files that are written whole or not at all."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nfnet_eqx._errors import InputError

# Parsed JSON takes some twenty times its size in memory; the largest real header (NFNet-F7+) has a quarter of a MiB.
MAX_JSON_BYTES = 8 * 2**20


def parse_json(text: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `text`, which a stranger may have written.

    Args:
        text: at most `MAX_JSON_BYTES` of UTF-8.
        source: what it came from, for the message.

    Raises:
        InputError: it is too long, no JSON, no object, or says something twice.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InputError(f"{source}: more than {MAX_JSON_BYTES} bytes of JSON; no checkpoint needs that many")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not valid JSON ({error}); fetch or write the file again") from None
    if not isinstance(value, dict):
        raise InputError(f"{source}: a JSON object is needed, this is a {type(value).__name__}")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1), str(path))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON; the caller sees to it that a half-written file does no harm (`replacing`)."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path` that takes its place when the block ends, and vanishes when the block fails.

    Whoever reads `path` sees the old content or the new, never a part of it.

    Raises:
        OSError: naming a file; that of a write, on a full disk say, names none until it comes here.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
