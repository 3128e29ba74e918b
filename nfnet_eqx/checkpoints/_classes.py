"""Which class of a checkpoint is which class of a data set: one answer for evaluation and for training."""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int32

from nfnet_eqx._class_names import nfc, told_apart
from nfnet_eqx._errors import InputError
from nfnet_eqx.images import imagenet1k, imagenet1k_synsets

ClassOrder = Literal["name", "index", "natural"]


def match_classes(
    labels: Sequence[str] | None,
    num_classes: int,
    classes: Sequence[str] | None,
    num_data_classes: int,
    *,
    order: ClassOrder = "name",
    checkpoint: str = "the checkpoint",
    data: str = "the data",
) -> Int32[np.ndarray, " classes"]:
    """The checkpoint's class of each class of the data.

    >>> match_classes(["dog", "cat"], 2, ["cat", "dog"], 2)
    array([1, 0], dtype=int32)

    Args:
        labels: the names of the checkpoint's classes, where known.
        num_classes: how many classes it has.
        classes: the names of the data's classes, where known.
        num_data_classes: how many classes the data has.
        order: `"name"`: by name where both sides have names (ImageNet's also by WordNet ids, of which some will do),
            else as the data numbers them. `"index"`: as the data numbers them, whatever they are called; class folders
            are numbered in the order of their names as text (1, 10, 2; Banana, apple). `"natural"`: in the order that
            timm gives to class folders (1, 2, 10; apple, Banana), for a checkpoint that it trained.
        checkpoint: what messages call the one.
        data: what messages call the other.

    Raises:
        InputError: the classes are not the same; or the checkpoint has no names, and it matters in which of the two
            orders it was trained.
    """
    labels = None if labels is None else [nfc(label) for label in labels]
    classes = None if classes is None else [nfc(name) for name in classes]
    ids = {synset: i for i, synset in enumerate(imagenet1k_synsets())} if labels == list(imagenet1k()) else {}
    by_id = order == "name" and any(name in ids for name in classes or ())
    fewer = num_data_classes < num_classes
    if num_data_classes > num_classes or (fewer and order == "name" and not by_id):
        raise InputError(
            f"{checkpoint} has {num_classes} classes, {data} {num_data_classes}; give data of the checkpoint's "
            "classes, or fine-tune it on these"
            + (" (class_order 'index', evaluate's --by-index, takes them for its first ones)" if fewer else "")
        )
    if order == "natural":
        if classes is None:
            raise InputError(f"{data}: its classes have no names to put in natural order; match them by index")
        return _places(classes)
    if order == "name" and labels is not None and classes is not None:
        return _by_name(ids if by_id else labels, classes, checkpoint, data)
    if order == "name" and classes is not None:
        _check_orders_agree(classes, checkpoint, data)
    return np.arange(num_data_classes, dtype=np.int32)


def natural_order(classes: Sequence[str]) -> list[str]:
    """The names as timm sorts class folders: by number where there are digits, and upper case like lower."""

    def key(name: str) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", name.lower())  # text and digits by turns; without leading zeros the longer is more
        return [(len(digits := part.lstrip("0")), digits) if i % 2 else (0, part) for i, part in enumerate(parts)]

    return sorted(sorted(classes), key=key)


def _places(classes: Sequence[str]) -> Int32[np.ndarray, " classes"]:
    place = {name: i for i, name in enumerate(natural_order(classes))}
    return np.array([place[name] for name in classes], np.int32)


def _by_name(
    labels: Sequence[str] | dict[str, int], classes: Sequence[str], checkpoint: str, data: str
) -> Int32[np.ndarray, " classes"]:
    by_id = isinstance(labels, dict)  # these are no words: none is like another
    if not by_id and list(labels) == list(classes):  # also where a name stands for several classes
        return np.arange(len(classes), dtype=np.int32)
    index = labels if by_id else {label: i for i, label in enumerate(labels)}
    strange = [name for name in classes if name not in index]
    if strange or len(index) < len(labels) or len(set(classes)) < len(classes):
        example = (
            f"{repr(strange[0]) if by_id else told_apart(strange[0], index)} is none of the checkpoint's"
            if strange
            else "a name stands for several classes"
        )
        remedy = (
            "take that folder out"
            if by_id
            else "rename them; or, if both have them in the same order, match them by index (class_order 'index', "
            "evaluate's --by-index)"
        )
        raise InputError(
            f"{checkpoint} and {data} name their classes differently ({example}, whose first is "
            f"{next(iter(index))!r}); {remedy}"
        )
    return np.array([index[name] for name in classes], np.int32)


def _check_orders_agree(classes: Sequence[str], checkpoint: str, data: str) -> None:
    """Raise where folders have another order for timm than for us; what a file numbers itself has one for all."""
    natural = natural_order(classes)
    if list(classes) != sorted(classes) or natural == list(classes):
        return
    at = next(i for i, (ours, theirs) in enumerate(zip(classes, natural, strict=True)) if ours != theirs)
    raise InputError(
        f"{checkpoint} has no names of classes, and those of {data} have two orders: its class {at} is {classes[at]!r} "
        f"if it was trained by nfnet-eqx, which sorts folders as text, and {natural[at]!r} if by timm, which sorts "
        "numbers by value and ignores case; say which: class_order 'index' (evaluate's --by-index) or 'natural'"
    )
