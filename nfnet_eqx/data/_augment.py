"""Every random change of a training picture."""

import dataclasses
import math
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from nfnet_eqx._fields import COUNT, NOT_NEGATIVE, POSITIVE, Bounds, check_fields
from nfnet_eqx.data._randaugment import randaugment

# The pipeline decodes many pictures at once; a second layer of threads inside each resize costs more than it brings.
cv2.setNumThreads(0)

Crop = Literal["resized", "padded", "none"]
_CROP_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """How training pictures are varied. The defaults are those of pre-training: crops and flips.

    Attributes:
        crop: `"resized"`: a random box of the picture, resized. `"padded"`: the picture at its size, reflected at the
            border and shifted. `"none"`: resized only.
        crop_area: smallest and largest area of a random box, as a share of the picture's.
        crop_ratio: smallest and largest width / height of a random box.
        crop_padding: pixels by which a padded picture may be shifted.
        flip: mirrors half of the pictures.
        randaugment_layers: operations of RandAugment, one after the other.
        randaugment_magnitude: strength of them all, 0 to 20; the papers go to 15.
        mixup: parameter of MixUp's Beta distribution (`mix`); 0: off.
        cutmix: mixes by boxes (`mix`), half of the pictures where MixUp is on too.
        repeats: times that a batch holds a picture, each time varied anew.

    Raises:
        InputError: naming every field whose value is impossible.

    References:
        2102.06171, section 6.1 and appendix A.1; 2310.16764, section 2 (`repeats`).
    """

    crop: Crop = "resized"
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 4
    flip: bool = True
    randaugment_layers: int = 0
    randaugment_magnitude: float = 10.0
    mixup: float = 0.0
    cutmix: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, _combined_faults)


_BOUNDS = {
    "crop_area": Bounds(0, 1, above=True),
    "crop_ratio": POSITIVE,
    "crop_padding": NOT_NEGATIVE,
    "randaugment_layers": NOT_NEGATIVE,
    "randaugment_magnitude": Bounds(0, 20),
    "mixup": NOT_NEGATIVE,
    "repeats": COUNT,
}


def _combined_faults(config: Augment) -> list[str]:
    """Values that are possible one by one, and not together."""
    return [
        f"{name} must be the smallest, then the largest, got {bounds}"
        for name, bounds in (("crop_area", config.crop_area), ("crop_ratio", config.crop_ratio))
        if bounds[0] > bounds[1]
    ]


def vary(
    pixels: UInt8[np.ndarray, "h w 3"], augment: Augment, size: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "s s 3"]:
    """One random version of a picture, `size` pixels a side: cropped, flipped, changed by RandAugment."""
    if augment.crop == "resized":
        top, left, height, width = _random_box(pixels.shape[0], pixels.shape[1], augment, rng)
        pixels = _resize(pixels[top : top + height, left : left + width], size)
    else:
        pixels = _resize(pixels, size)
        if augment.crop == "padded" and augment.crop_padding:
            pad = augment.crop_padding
            pixels = cv2.copyMakeBorder(pixels, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
            top, left = rng.integers(2 * pad + 1, size=2)
            pixels = pixels[top : top + size, left : left + size]
    if augment.flip and rng.random() < 0.5:
        pixels = cv2.flip(pixels, 1)
    if augment.randaugment_layers:
        pixels = randaugment(
            np.ascontiguousarray(pixels),
            rng,
            layers=augment.randaugment_layers,
            magnitude=augment.randaugment_magnitude,
        )
    return pixels


def _random_box(height: int, width: int, augment: Augment, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width: a ratio first, then a height among those that give a permitted area.

    So TensorFlow samples its distorted boxes, and so the papers' networks saw their pictures: not uniform in area,
    but in its root. Where ten ratios fit nowhere, it is the whole picture.
    """
    for _ in range(_CROP_ATTEMPTS):
        ratio = rng.uniform(*augment.crop_ratio)
        low, high = (math.sqrt(share * height * width / ratio) for share in augment.crop_area)
        low, high = max(round(low), 1), min(math.floor(high), height, math.floor(width / ratio))
        if low <= high:
            box_height = int(rng.integers(low, high + 1))
            box_width = min(max(round(box_height * ratio), 1), width)
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return 0, 0, height, width


def _resize(pixels: np.ndarray, size: int) -> np.ndarray:
    if pixels.shape[:2] == (size, size):
        return pixels
    smaller = min(pixels.shape[:2]) >= size
    # Means over areas do not alias; where the picture grows they would only repeat pixels.
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
