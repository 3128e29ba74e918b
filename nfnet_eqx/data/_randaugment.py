"""RandAugment with DeepMind's operations and level maps, on bytes."""

import cv2
import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "h w 3"]

_MAX_LEVEL = 10
_FILL = (128, 128, 128)
_CUTOUT = 40
_TRANSLATE = 100
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_VALUES = np.arange(256)


def randaugment(pixels: Pixels, rng: np.random.Generator, *, layers: int, magnitude: float) -> Pixels:
    """Applies `layers` operations, each drawn from sixteen, all at the same magnitude.

    As in the published code each drawn operation is applied (its probability is drawn and not used), distances are in
    pixels whatever the size of the picture, and what comes in from outside is grey 128. Two maps run against
    intuition, and are kept: posterize and solarize change *less* as the magnitude grows.

    Args:
        pixels: a picture at the size of the network's input.
        rng: what decides.
        layers: how many operations, one after the other.
        magnitude: 0 to 20. Ten is each operation's published full strength; the papers' larger networks take 15.

    References:
        Cubuk et al., 1909.13719; 2102.06171, appendix A.1, and its code.
    """
    level = magnitude / _MAX_LEVEL
    for _ in range(layers):
        operation = _OPERATIONS[rng.integers(len(_OPERATIONS))]
        pixels = operation(pixels, level, rng)
    return pixels


def _auto_contrast(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    tables = np.empty((256, 3), np.float32)
    for channel in range(3):
        low, high = np.flatnonzero(_histogram(pixels, channel))[[0, -1]]
        scale = np.float32(255) / np.float32(high - low) if high > low else 1
        tables[:, channel] = (_VALUES - (low if high > low else 0)) * scale
    return _look_up(pixels, tables)


def _equalize(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    tables = np.empty((256, 3))
    for channel in range(3):
        counts = _histogram(pixels, channel)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        # The rank of a value among the pixels below it; with too few pixels for 256 steps nothing changes.
        ranks = np.concatenate([[0], (np.cumsum(counts)[:-1] + step // 2) // max(step, 1)])
        tables[:, channel] = ranks if step else _VALUES
    return _look_up(pixels, tables)


def _invert(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return 255 - pixels


def _posterize(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    shift = 8 - int(4 * level)
    return _look_up(pixels, _VALUES >> shift << shift)


def _solarize(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _look_up(pixels, np.where(int(256 * level) > _VALUES, _VALUES, 255 - _VALUES))


def _solarize_add(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _look_up(pixels, np.where(_VALUES < 128, _VALUES + int(110 * level), _VALUES))


def _color(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(grey, pixels, level)


def _contrast(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    # Away from or towards the mean grey, were it not that the published code divides the number of pixels by 256 where
    # it means to divide their sum. The networks were trained with that: white from 256 x 256 on.
    grey = min(pixels.shape[0] * pixels.shape[1] // 256, 255)
    return _look_up(pixels, grey + _factor(level) * (_VALUES - grey))


def _brightness(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _look_up(pixels, _factor(level) * _VALUES)


def _sharpness(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(pixels, -1, _SMOOTH)[1:-1, 1:-1]  # the border stays sharp
    return _blend(smooth, pixels, level)


def _rotate(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    return _warp(pixels, cv2.getRotationMatrix2D(centre, _sign(rng) * 30 * level, 1))


def _shear_x(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _warp(pixels, np.array([[1, _sign(rng) * 0.3 * level, 0], [0, 1, 0]]))


def _shear_y(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _warp(pixels, np.array([[1, 0, 0], [_sign(rng) * 0.3 * level, 1, 0]]))


def _translate_x(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _warp(pixels, np.array([[1, 0, _sign(rng) * _TRANSLATE * level], [0, 1, 0]]))


def _translate_y(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    return _warp(pixels, np.array([[1, 0, 0], [0, 1, _sign(rng) * _TRANSLATE * level]]))


def _cutout(pixels: Pixels, level: float, rng: np.random.Generator) -> Pixels:
    half = int(_CUTOUT * level)
    row, column = rng.integers(pixels.shape[0]), rng.integers(pixels.shape[1])
    cut = pixels.copy()
    cut[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = _FILL
    return cut


_OPERATIONS = (
    _auto_contrast,
    _equalize,
    _invert,
    _rotate,
    _posterize,
    _solarize,
    _color,
    _contrast,
    _brightness,
    _sharpness,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _cutout,
    _solarize_add,
)


def _factor(level: float) -> float:
    """Below 1 an image moves towards its degenerate form, above 1 away from it."""
    return 1.8 * level + 0.1


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _histogram(pixels: Pixels, channel: int) -> np.ndarray:
    return cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel().astype(np.int64)


def _look_up(pixels: Pixels, table: np.ndarray) -> Pixels:
    """Each value replaced by the table's, for all channels or (256, 3) one by one."""
    table = np.clip(table, 0, 255).astype(np.uint8)
    return cv2.LUT(pixels, table.reshape(256, 1, -1) if table.ndim > 1 else table)


def _blend(degenerate: Pixels, pixels: Pixels, level: float) -> Pixels:
    factor = _factor(level)
    return cv2.addWeighted(degenerate, 1 - factor, pixels, factor, 0)


def _warp(pixels: Pixels, matrix: np.ndarray) -> Pixels:
    size = (pixels.shape[1], pixels.shape[0])
    return cv2.warpAffine(
        pixels, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=_FILL
    )
