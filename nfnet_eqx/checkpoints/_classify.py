"""From pictures to classes: preprocessing, one compiled call for a batch, softmax, the most probable names."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from nfnet_eqx._errors import InputError
from nfnet_eqx.images import ImageLike, Preprocess
from nfnet_eqx.models import NFNet

# Pixels in one compiled call, sixteen pictures of 256 x 256: it bounds the memory that a folder of thousands takes.
_BATCH_PIXELS = 16 * 256 * 256


class Prediction(NamedTuple):
    """One class that a network sees in a picture."""

    label: str
    probability: float


def classify(
    model: NFNet,
    preprocess: Preprocess,
    labels: Sequence[str] | None,
    images: Sequence[ImageLike],
    *,
    top: int = 5,
) -> Iterator[list[Prediction]]:
    """The most probable classes of each picture, at the checkpoint's test size.

    Args:
        model: a network with a classifier.
        preprocess: what the network expects of a picture.
        labels: the name of each class; `None` names them by their index.
        images: paths, Pillow images or arrays of bytes; only a batch of them is in memory at a time.
        top: how many classes; all of them where there are fewer.

    Yields:
        For each picture, its classes from the most probable one down.

    Raises:
        InputError: a picture, `top` or the number of labels cannot be used, or the network has no classifier.
    """
    classes = model.config.num_classes
    if classes == 0:
        raise InputError(
            "the network has no classifier (num_classes=0); load it with num_classes= to give it a new one"
        )
    if top < 1:
        raise InputError(f"top (={top}) must be at least 1")
    if labels is not None and len(labels) != classes:
        raise InputError(f"labels: {len(labels)} names for {classes} classes; give one a class, or None")
    if model.config.in_channels != 3:
        raise InputError(f"the network takes {model.config.in_channels} channels; a picture has 3 (RGB)")
    names = labels or [f"class {i}" for i in range(classes)]
    batch_size = max(1, min(len(images), _BATCH_PIXELS // math.prod(preprocess.size(use_test_size=True))))
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        pictures = [preprocess(image, use_test_size=True) for image in batch]
        filled = pictures + [pictures[0]] * (batch_size - len(batch))  # so that nothing is compiled twice
        probabilities = np.asarray(_probabilities(model, np.stack(filled)))[: len(batch)]
        yield from (_best(p, names, top) for p in probabilities)


@eqx.filter_jit
def _probabilities(model: NFNet, pictures: Float32[Array | np.ndarray, "n c h w"]) -> Float[Array, "n classes"]:
    logits = jax.vmap(lambda x: model(x, inference=True))(jnp.asarray(pictures))
    return jax.nn.softmax(logits, axis=-1)


def _best(probabilities: Float32[np.ndarray, " classes"], names: Sequence[str], top: int) -> list[Prediction]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Prediction(names[int(i)], float(probabilities[i])) for i in order]
