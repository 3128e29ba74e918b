"""From pictures to classes: preprocessing, one compiled call for a batch, softmax, the most probable names."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from nfnet_eqx._errors import InputError
from nfnet_eqx.images import ImageLike, Preprocess
from nfnet_eqx.models import Network

# What one compiled call takes at most: it bounds the memory that a folder of thousands takes.
_BATCH_PIXELS = 16 * 256 * 256
_BATCH_IMAGES = 64


class Prediction(NamedTuple):
    """One class that a network sees in a picture."""

    label: str
    probability: float


def classify(
    model: Network,
    preprocess: Preprocess,
    labels: Sequence[str] | None,
    images: Iterable[ImageLike],
    *,
    top: int = 5,
) -> Iterator[list[Prediction]]:
    """The most probable classes of each image, at the checkpoint's test size.

    Args:
        model: a network with a classifier.
        preprocess: what the network expects of an image.
        labels: the name of each class; `None` names them by their index.
        images: whatever `open_image` opens; each is opened when its turn comes, and only a batch of inputs is in memory
            at a time.
        top: how many classes; all of them where there are fewer.

    Yields:
        For each image, its classes from the most probable one down.

    Raises:
        InputError: an image, `top` or the number of labels cannot be used, or the network has no classifier.
    """
    return predict(model, map(preprocess, images), labels, top=top)


def predict(
    model: Network, inputs: Iterable[Float32[np.ndarray, "c h w"]], labels: Sequence[str] | None, *, top: int = 5
) -> Iterator[list[Prediction]]:
    """`classify` for images that are preprocessed already, all to one size.

    Args:
        model: a network with a classifier.
        inputs: what `Preprocess` makes of images; taken as they are needed.
        labels: the name of each class; `None` names them by their index.
        top: how many classes; all of them where there are fewer.

    Yields:
        For each input, its classes from the most probable one down.

    Raises:
        InputError: `top` or the number of labels cannot be used, or the network has no classifier.
    """
    classes = model.config.num_classes
    if classes == 0:
        raise InputError(
            "the network has no classifier (num_classes=0); load it with num_classes= to give it a new one"
        )
    if not isinstance(top, int | np.integer) or top < 1:
        raise InputError(f"top (={top!r}) must be at least 1, and a whole number")
    if labels is not None and len(labels) != classes:
        raise InputError(f"labels: {len(labels)} names for {classes} classes; give one a class, or None")
    if model.config.in_channels != 3:
        raise InputError(f"the network takes {model.config.in_channels} channels; a picture has 3 (RGB)")
    names = labels or [f"class {i}" for i in range(classes)]
    for batch, size in _batches(iter(inputs)):
        filled = batch + [batch[0]] * (size - len(batch))  # so that nothing is compiled twice
        probabilities = np.asarray(_probabilities(model, np.stack(filled)))[: len(batch)]
        yield from (_best(p, names, top) for p in probabilities)


def _batches(inputs: Iterator[np.ndarray]) -> Iterator[tuple[list[np.ndarray], int]]:
    """The inputs in batches, and the size of the first, which the last may not reach."""
    first = next(inputs, None)
    if first is None:
        return
    most = min(_BATCH_IMAGES, max(1, _BATCH_PIXELS // math.prod(first.shape[1:])))
    batch = [first, *itertools.islice(inputs, most - 1)]
    size = len(batch)
    while batch:
        yield batch, size
        batch = list(itertools.islice(inputs, size))


@eqx.filter_jit
def _probabilities(model: Network, pictures: Float32[Array | np.ndarray, "n c h w"]) -> Float[Array, "n classes"]:
    logits = jax.vmap(lambda x: model(x, inference=True))(jnp.asarray(pictures))
    return jax.nn.softmax(logits, axis=-1)


def _best(probabilities: Float32[np.ndarray, " classes"], names: Sequence[str], top: int) -> list[Prediction]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Prediction(names[int(i)], float(probabilities[i])) for i in order]
