"""Names of classes that many checkpoints share; a checkpoint with classes of its own carries their names itself."""

import functools
import importlib.resources


@functools.cache
def imagenet1k() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k in the order of the classifier's outputs."""
    return _lines("imagenet1k.txt")


@functools.cache
def imagenet1k_synsets() -> tuple[str, ...]:
    """The WordNet ids of the same classes in the same order: what ImageNet's class folders are called.

    >>> imagenet1k_synsets()[0]
    'n01440764'
    """
    return _lines("imagenet1k_synsets.txt")


def _lines(file: str) -> tuple[str, ...]:
    text = (importlib.resources.files(__name__) / file).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
