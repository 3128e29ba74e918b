"""Text from outside in a card: shown as it is, whatever it looks like, and without what is nobody's business."""

import html
import os
import re
from collections.abc import Mapping
from typing import Any

# A path of this machine or another one, by its beginning; a relative one is known by being there.
_PATH = re.compile(r"[/\\]|~[\w.-]*[/\\]|\.\.?([/\\]|$)|[A-Za-z]:[/\\]|file:")
# Tokens of the Hub, and the name and password in an address.
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{16,}|(?<=://)[^/@\s]+@")


def is_path(name: str) -> bool:
    """Whether a name is that of a file or folder, and not of something on the Hub."""
    return _PATH.match(name) is not None or os.path.exists(name)


def shown(name: str) -> str:
    """A name; of a path, which is nobody else's business, the last part."""
    if not is_path(name):
        return name
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return os.path.basename(os.path.abspath(name)) if last in ("", ".", "..") else last


def plain(words: str) -> str:
    """One line without control characters and secrets."""
    line = " ".join("".join(c for c in words if c.isprintable() or c.isspace()).split())
    return _SECRET.sub("", line)


def text(words: str) -> str:
    """Text that Markdown and HTML show as it is; it never stands at the start of a line."""
    return re.sub(r"([\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", html.escape(plain(words), quote=False))


def code(name: str) -> str:
    """A name as code, where it is one."""
    return f"`{name}`" if re.fullmatch(r"[\w.-]+", name, re.ASCII) and plain(name) == name else text(name)


def value(of: Any) -> str:
    """A setting as text."""
    if of is None:
        return "none"
    if isinstance(of, str | os.PathLike):
        return shown(os.fspath(of))
    if isinstance(of, Mapping):
        return ", ".join(f"{key}: {value(item)}" for key, item in of.items()) or "none"
    return ", ".join(map(value, of)) or "none" if isinstance(of, list | tuple) else str(of)


def table(left: str, right: str, rows: Mapping[str, str]) -> str:
    """A table of names and their values; both are text from outside."""
    lines = [f"| {code(name)} | {text(words)} |" for name, words in rows.items()]
    return "\n".join([f"| {left} | {right} |", "| --- | --- |", *lines])
