"""Which class of a checkpoint is which of the data's: by name where names are known, and never silently wrong."""

import random
import unicodedata

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import match_classes
from nfnet_eqx.checkpoints._classes import natural_order
from nfnet_eqx.images import imagenet1k, imagenet1k_synsets

NUMBERS = ("1", "10", "11", "12", "2", "3")


def refusal(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        match_classes(*arguments, **options)
    return str(caught.value)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=8, unique_by=lambda n: unicodedata.normalize("NFC", n)))
def test_names_that_both_know_are_matched_whatever_their_order(names: list[str]):
    shuffled = random.Random(0).sample(names, len(names))
    order = match_classes(shuffled, len(names), names, len(names))
    assert order.dtype == np.int32
    assert [shuffled[i] for i in order] == names


def test_a_name_is_the_same_in_either_unicode_form():
    composed, apart = "Löwe", unicodedata.normalize("NFD", "Löwe")
    assert composed != apart
    assert match_classes(("Tiger", composed), 2, (apart, "Tiger"), 2).tolist() == [1, 0]


def test_names_that_look_alike_are_told_apart_by_code_points():
    message = refusal(("Mops", "Dackel"), 2, ("Mоps", "Dackel"), 2)  # a Cyrillic o
    assert "(M<U+043E>ps), which is not 'Mops', is none of the checkpoint's" in message
    assert "(a<U+200B>b), which is not 'ab'" in refusal(("ab", "c"), 2, ("a\u200bb", "c"), 2)


def test_other_names_are_refused_unless_by_index():
    message = refusal(("bear", "cat"), 2, ("x", "y"), 2, checkpoint="runs/a", data="photos")
    assert message.startswith("runs/a and photos name their classes differently ('x' is none of the checkpoint's, ")
    assert "--by-index" in message
    assert match_classes(("bear", "cat"), 2, ("x", "y"), 2, order="index").tolist() == [0, 1]


def test_a_name_for_two_classes_matches_only_the_same_names_in_the_same_order():
    assert "stands for several classes" in refusal(("cat", "dog", "cat"), 3, ("dog", "cat", "dog"), 3)
    assert match_classes(("cat", "dog", "cat"), 3, ("cat", "dog", "cat"), 3).tolist() == [0, 1, 2]


def test_some_of_imagenets_folders_are_matched_by_their_ids():
    ids = imagenet1k_synsets()
    assert match_classes(imagenet1k(), 1000, (ids[7], ids[999], ids[3]), 3).tolist() == [7, 999, 3]
    assert "('n00000001' is none" in refusal(imagenet1k(), 1000, (ids[7], "n00000001"), 2)
    assert match_classes(imagenet1k(), 1000, (ids[7], ids[999]), 2, order="index").tolist() == [0, 1]


def test_another_number_of_classes_is_refused_and_fewer_are_the_first_ones_by_index():
    assert "has 3 classes, the data 2" in refusal(None, 3, ("a", "b"), 2)
    assert "has 1 classes, the data 2" in refusal(None, 1, ("a", "b"), 2, order="index")
    assert match_classes(None, 3, ("a", "b"), 2, order="index").tolist() == [0, 1]


@pytest.mark.parametrize("classes", [NUMBERS, ("Banana", "Cherry", "apple")])
def test_where_timm_sorts_folders_in_another_order_a_checkpoint_without_names_asks_which(classes: tuple[str, ...]):
    message = refusal(None, len(classes), classes, len(classes))
    assert "has no names of classes" in message and "'index'" in message and "'natural'" in message
    assert match_classes(None, len(classes), classes, len(classes), order="index").tolist() == list(range(len(classes)))
    natural = match_classes(None, len(classes), classes, len(classes), order="natural")
    by_place = sorted(range(len(classes)), key=natural.tolist().__getitem__)
    expected = ["1", "2", "3", "10", "11", "12"] if classes is NUMBERS else ["apple", "Banana", "Cherry"]
    assert [classes[i] for i in by_place] == expected


@pytest.mark.parametrize("classes", [("a", "b", "c"), ("frog", "cat", "Dog"), ("0", "1", "2"), None])
def test_where_there_is_one_order_the_classes_are_taken_as_they_are_numbered(classes: tuple[str, ...] | None):
    assert match_classes(None, 3, classes, 3).tolist() == [0, 1, 2]
    assert match_classes(("x", "y", "z"), 3, None, 3).tolist() == [0, 1, 2]


def test_classes_without_names_have_no_natural_order():
    assert "match them by index" in refusal(("x", "y"), 2, None, 2, order="natural")


@given(st.lists(st.text("aB10٢é²_", max_size=6), max_size=8))
def test_the_natural_order_holds_every_name_once_and_counts_by_value(names: list[str]):
    assert sorted(natural_order(names)) == sorted(names)
    assert natural_order(["x10", "x9", "X1", "x007"]) == ["X1", "x007", "x9", "x10"]
