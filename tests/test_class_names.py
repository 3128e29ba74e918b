"""What a class may be called: plain text, in one Unicode form; everything else is refused with all its faults."""

import os
import unicodedata

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError

LATIN_1 = os.fsdecode("Löwe".encode("latin-1"))


def test_names_are_composed_and_may_stand_twice():
    apart = unicodedata.normalize("NFD", "Löwe")
    assert check_class_names([apart, "crane", "crane"], "x") == ("Löwe", "crane", "crane")


def test_every_name_that_is_no_plain_text_is_named_with_the_remedy():
    with pytest.raises(InputError) as caught:
        check_class_names(["ok", "a\tb", LATIN_1, 7, "a\0", "\ud800"], "photos", "rename the folder")
    message = str(caught.value)
    assert message.startswith("photos: the name of class 1 must be plain text, got 'a\\tb'")
    assert "got 'L\\udcf6we' (not UTF-8; as Latin-1 it is 'Löwe')" in message
    assert "class 3 must be plain text, got 7" in message and "class 5 must" in message
    assert message.endswith("; rename the folder")


def test_two_forms_of_one_name_are_refused_with_their_code_points():
    with pytest.raises(InputError, match=r"\(L<U\+00F6>we\) and .*\(Lo<U\+0308>we\)"):
        check_class_names(["Löwe", unicodedata.normalize("NFD", "Löwe")], "photos")


@given(st.lists(st.text(st.characters(codec=None), max_size=4), max_size=4))
def test_what_is_accepted_can_be_written_and_everything_else_is_one_error(names: list[str]):
    try:
        accepted = check_class_names(names, "x")
    except InputError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return
    assert all(name.encode() is not None and unicodedata.is_normalized("NFC", name) for name in accepted)


def test_a_name_of_megabytes_is_refused():
    with pytest.raises(InputError, match=r"class 1 has 7,000,000 characters, more than 5,000 \('xxx"):
        check_class_names(["cat", "x" * 7_000_000], "here")
