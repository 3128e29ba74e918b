"""Text for a terminal: what strangers wrote, made harmless, short, and as wide as it looks."""

import itertools
import unicodedata

# Columns of a name in a table, and characters that are looked at: they may be marks that take no column.
_WIDEST_NAME = 80
_LONGEST_NAME = 400


def printable(text: str) -> str:
    r"""`text` as one line without control characters: it may quote a stranger's file, which could repaint the screen.

    What a terminal would obey, or not show (controls, marks of direction, separators of lines, signs without width,
    bytes that are no text), is written out: `\x1b`, `\u202e`.
    """
    return "".join(c if c.isprintable() else " " if c == "\n" else repr(c)[1:-1] for c in text)


def name(text: str) -> str:
    """A stranger's name for something, such as a label, in a table: `printable`, and at most 80 columns wide."""
    shown = printable(unicodedata.normalize("NFC", text[:_LONGEST_NAME]))
    if len(text) <= _LONGEST_NAME and width(shown) <= _WIDEST_NAME:
        return shown
    ends = itertools.accumulate(map(_columns, shown))
    return shown[: sum(end < _WIDEST_NAME for end in ends)] + "…"


def width(text: str) -> int:
    """The columns that a line takes in a terminal: two for a wide character (日), none for a mark on the one before."""
    return sum(map(_columns, unicodedata.normalize("NFC", text)))


def pad(text: str, columns: int) -> str:
    """`text` with blanks up to a width; `str.ljust` counts characters instead of columns."""
    return text + " " * (columns - width(text))


def _columns(character: str) -> int:
    """Columns of one character.

    References:
        Unicode Standard Annex 11, East Asian Width.
    """
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
