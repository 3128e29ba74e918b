"""Strangers' text in a terminal."""

import hypothesis
import hypothesis.strategies as st
import pytest

from nfnet_eqx.cli._text import name, pad, printable, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("cat", 3),
        ("Vögel", 5),
        ("Vo\u0308gel", 5),  # a letter and a mark
        ("日本語", 6),
        ("ｆｕｌｌ", 8),
        ("한국어", 6),
        ("\u1112\u1161\u11ab", 2),  # one syllable of three parts, as macOS writes file names
        ("नमस्ते", 4),
        ("🐈", 2),
        ("שָׁלוֹם", 4),
    ],
)
def test_the_width_is_the_columns_that_a_terminal_needs(text: str, columns: int):
    assert width(text) == columns
    assert width(pad(text, 20)) == 20
    assert pad(text, 0) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("golden retriever", "golden retriever"),
        ("Vo\u0308gel – oiseaux", "Vögel – oiseaux"),
        ("two\nlines", "two lines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("zero\u200bwidth\u2060\ufeff", r"zero\u200bwidth\u2060\ufeff"),
        ("half a \ud800 pair", r"half a \ud800 pair"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_written_out(text: str, shown: str):
    assert name(text) == shown


@pytest.mark.parametrize(
    "text",
    ["x" * 7_000_000, "日" * 1000, "x" + "\u0301" * 100_000, "\u202e" * 100_000],
    ids=["letters", "wide", "marks", "direction marks"],
)
def test_a_name_of_megabytes_is_cut(text: str):
    shown = name(text)
    assert width(shown) <= 80
    assert len(shown) <= 500
    assert shown.endswith("…")


def test_a_name_of_eighty_columns_is_whole_and_one_more_is_cut():
    assert name("x" * 80) == "x" * 80
    assert name("x" * 81) == "x" * 79 + "…"
    assert name("日" * 40) == "日" * 40
    assert name("日" * 41) == "日" * 39 + "…"


@hypothesis.given(st.text(max_size=600))
def test_any_name_is_printable_and_bounded(text: str):
    shown = name(text)
    assert shown.isprintable()
    assert width(shown) <= 80
    assert printable(text).isprintable()
