"""Names of classes that many checkpoints share; a checkpoint with classes of its own carries their names itself."""

import functools
import importlib.resources


@functools.cache
def imagenet1k() -> tuple[str, ...]:
    """The 1000 class names of ImageNet-1k in the order of the classifier's outputs."""
    text = (importlib.resources.files(__name__) / "imagenet1k.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
