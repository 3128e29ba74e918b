"""`Preprocess`: from a picture to the array that a checkpoint was trained on. It belongs to the checkpoint.

Two published ways exist. timm resizes with Pillow (antialiased, rounded to bytes) and keeps, squashes or pads the
aspect ratio. DeepMind's evaluation of the NFNets resizes by cubic interpolation *without* antialiasing to 32 pixels
more than needed, ignores the aspect ratio, neither rounds nor clips, and crops the centre. The difference shows in the
logits, so a checkpoint says which one it means.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx._fields import Bounds, check_fields, shown, typed_fields
from nfnet_eqx.images._open import ImageLike, open_image

CropMode = Literal["center", "squash", "border"]
Interpolation = Literal["bicubic", "bilinear", "nearest", "box", "hamming", "lanczos"]
Resize = Literal["timm", "deepmind"]

# timm's defaults for keys that a config leaves out.
_DEFAULT_SIZE = (224, 224)
_DEFAULT_CROP_PCT = 0.875
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

# DeepMind resizes to this many pixels more than it crops, in height and in width.
DEEPMIND_MARGIN = 32

# A config may come from a stranger, and so may a picture: bounds far beyond any published checkpoint, which keep the
# resized picture, and what Pillow needs on the way to it, within 64 million pixels.
_BOUNDS = {
    "input_size": Bounds(8, 2048),
    "test_input_size": Bounds(8, 2048),
    "crop_pct": Bounds(0.25, 2),
    "test_crop_pct": Bounds(0.25, 2),
    "mean": Bounds(-1000, 1000),
    "std": Bounds(1e-4, 1000),
}
_MAX_RESIZED_PIXELS = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a picture becomes the input of one checkpoint.

    An image with an EXIF orientation tag is turned upright when it is opened. timm's transform does not do so, and
    published accuracies were measured without: `preprocess(open_image(image, orient=False))` is theirs.

    Attributes:
        input_size: height and width of the input, as in training.
        test_input_size: height and width at which the checkpoint is best evaluated; `None`: `input_size`.
        crop_pct: the crop's share of the resized picture: it is resized to `input_size / crop_pct` first.
        test_crop_pct: the same at the test size; `None`: `crop_pct`.
        crop_mode: `"center"`: the shorter side is fitted and the aspect ratio kept. `"squash"`: both sides are fitted.
            `"border"`: the longer side is fitted, the rest filled with the mean colour.
        interpolation: Pillow's filter, for `resize="timm"`.
        mean: subtracted from each channel, on the scale 0 to 1.
        std: what each channel is then divided by.
        resize: `"timm"`, or `"deepmind"`: cubic, without antialiasing, to 32 pixels more than the crop, whatever
            `crop_pct`, `crop_mode` and `interpolation` say (those then only tell timm what comes nearest).

    Raises:
        InputError: naming every field whose value is impossible, and why.
    """

    input_size: tuple[int, int] = _DEFAULT_SIZE
    test_input_size: tuple[int, int] | None = None
    crop_pct: float = _DEFAULT_CROP_PCT
    test_crop_pct: float | None = None
    crop_mode: CropMode = "center"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD
    resize: Resize = "timm"

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, _combined_faults)

    def size(self, *, use_test_size: bool = True) -> tuple[int, int]:
        """Height and width of what `__call__` returns."""
        return (use_test_size and self.test_input_size) or self.input_size

    def __call__(self, image: ImageLike, *, use_test_size: bool = True) -> Float32[np.ndarray, "c h w"]:
        """The normalised image, as `classify` shows it to the network.

        Args:
            image: a file name, bytes, a binary file, a Pillow image or an array: whatever `open_image` opens.
            use_test_size: crop to `test_input_size` and with `test_crop_pct`. `False`: to `input_size`, the size in
                training, which is what timm's own transform does by default.

        Raises:
            InputError: the image cannot be read, or is too long and thin to be resized.
        """
        name = os.fsdecode(image) if isinstance(image, str | os.PathLike) else "image"
        opened = open_image(image)
        if len(self.mean) not in (1, 3):
            raise InputError(f"Preprocess: mean has {len(self.mean)} values, so it is not for pictures (3 channels)")
        size = self.size(use_test_size=use_test_size)
        if self.resize == "deepmind":
            pixels = _deepmind_resize(np.asarray(opened), size)
        else:
            crop_pct = (use_test_size and self.test_crop_pct) or self.crop_pct
            pixels = np.asarray(_timm_resize(opened, name, size, crop_pct, self)).astype(np.float32)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1))

    @classmethod
    def deepmind(cls, train_size: int, test_size: int | None = None) -> "Preprocess":
        """DeepMind's evaluation of the NFNets.

        Args:
            train_size: side of the images in training, in pixels.
            test_size: side of the images at which the network is best evaluated; `None`: `train_size`.
        """
        # timm knows no resizing to a margin around the crop, but this share of it comes to the same.
        return cls(
            input_size=(train_size, train_size),
            test_input_size=None if test_size is None else (test_size, test_size),
            crop_pct=train_size / (train_size + DEEPMIND_MARGIN),
            test_crop_pct=None if test_size is None else test_size / (test_size + DEEPMIND_MARGIN),
            crop_mode="squash",
            interpolation="bicubic",
            resize="deepmind",
        )

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any], *, resize: Any = "timm") -> "Preprocess":
        """The preprocessing that timm would use for a model with this `pretrained_cfg`.

        Args:
            pretrained_cfg: timm's dictionary; keys that are not about pictures are ignored, missing ones and nulls take
                timm's defaults.
            resize: see the class; timm's configs cannot say `"deepmind"`.

        Raises:
            InputError: naming every value that is impossible.
        """
        fields: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(cls)} | {"resize": resize}
        for key in ("input_size", "test_input_size"):
            size = pretrained_cfg.get(key)
            if size is not None:
                # timm's sizes start with the channels. Anything else is kept for the message.
                fields[key] = size[1:] if isinstance(size, list | tuple) and len(size) == 3 else size
        for key in ("crop_pct", "test_crop_pct", "crop_mode", "interpolation", "mean", "std"):
            fields[key] = pretrained_cfg.get(key) or fields[key]
        values, faults = typed_fields(cls, fields, _BOUNDS)
        if faults:
            raise InputError("Preprocess: " + "; ".join(faults))
        return cls(**values)

    def to_timm(self) -> dict[str, Any]:
        """The keys of a `pretrained_cfg` that are about pictures; `from_timm` is the inverse (but for `resize`)."""
        cfg: dict[str, Any] = {"input_size": [3, *self.input_size]}
        if self.test_input_size is not None:
            cfg["test_input_size"] = [3, *self.test_input_size]
        cfg |= {"interpolation": self.interpolation, "crop_pct": self.crop_pct}
        if self.test_crop_pct is not None:
            cfg["test_crop_pct"] = self.test_crop_pct
        return cfg | {"crop_mode": self.crop_mode, "mean": list(self.mean), "std": list(self.std)}


def _combined_faults(config: Preprocess) -> list[str]:
    """Values that are possible one by one, and not together."""
    if len(config.mean) == len(config.std):
        return []
    return [f"mean and std must have as many channels as each other, got {shown(config.mean)} and {shown(config.std)}"]


def _timm_resize(image: Image.Image, name: str, size: tuple[int, int], crop_pct: float, how: Preprocess) -> Image.Image:
    height, width = size
    fit_h, fit_w = math.floor(height / crop_pct), math.floor(width / crop_pct)
    if how.crop_mode == "squash":
        new_h, new_w = fit_h, fit_w
    elif how.crop_mode == "border":
        ratio = max(image.height / fit_h, image.width / fit_w)
        new_h, new_w = round(image.height / ratio), round(image.width / ratio)
    elif fit_h == fit_w:
        # A square target is fitted by torchvision, which truncates where timm's own resize (below) rounds.
        new_h = fit_h if image.height <= image.width else int(fit_h * image.height / image.width)
        new_w = fit_w if image.width <= image.height else int(fit_w * image.width / image.height)
    else:
        ratio = min(image.height / fit_h, image.width / fit_w)
        new_h, new_w = round(image.height / ratio), round(image.width / ratio)
    # Pillow resizes one side after the other; which one first depends on its version.
    largest = max(max(image.height, new_h) * new_w, max(image.width, new_w) * new_h)
    if min(new_h, new_w) < 1 or largest > _MAX_RESIZED_PIXELS:
        raise InputError(
            f"{name}: {image.width} x {image.height} is too long and thin: it would be resized to {new_w} x {new_h}"
            f" before the crop of {width} x {height}; cut it first"
        )
    if (new_w, new_h) != image.size:
        image = image.resize((new_w, new_h), getattr(Image.Resampling, how.interpolation.upper()))
    mean = how.mean * 3 if len(how.mean) == 1 else how.mean
    fill = tuple(round(255 * v) for v in mean) if how.crop_mode == "border" else (0, 0, 0)
    return _center_crop(image, size, fill)


def _center_crop(image: Image.Image, size: tuple[int, int], fill: tuple[int, ...]) -> Image.Image:
    """The middle `size` of the picture; what is missing on a side is filled, the odd pixel goes below and right."""
    height, width = size
    missing_h, missing_w = max(height - image.height, 0), max(width - image.width, 0)
    if missing_h or missing_w:
        padded = Image.new("RGB", (image.width + missing_w, image.height + missing_h), fill)
        padded.paste(image, (missing_w // 2, missing_h // 2))
        image = padded
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _deepmind_resize(pixels: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> Float32[np.ndarray, "h w 3"]:
    """Cubic, no antialiasing, no clipping; equal to `jax.image.resize(..., "cubic", antialias=False)`.

    Only the four taps of each output row and column are read, and only those of the centre crop are computed; the
    longer side first, since what is left of it is short.
    """
    resized: np.ndarray = pixels
    for axis in (0, 1) if pixels.shape[0] > pixels.shape[1] else (1, 0):
        side = size[axis]
        taps, weights = _keys_taps(pixels.shape[axis], side + DEEPMIND_MARGIN)
        middle = slice(DEEPMIND_MARGIN // 2, DEEPMIND_MARGIN // 2 + side)
        shape = [1, 1, 1]
        shape[axis] = side
        terms = [
            np.take(resized, taps[middle, k], axis).astype(np.float32) * weights[middle, k].reshape(shape)
            for k in range(4)
        ]
        resized = terms[0] + terms[1] + terms[2] + terms[3]
    return resized


def _keys_taps(length: int, resized: int) -> tuple[np.ndarray, Float32[np.ndarray, "resized 4"]]:
    """Indices and weights of the four inputs of each output.

    Half-pixel centres; a tap outside the picture gets no weight and the others are scaled up to a sum of 1.

    References:
        Keys, "Cubic convolution interpolation for digital image processing" (1981), with a = -1/2.
    """
    # Positions are float32, rounded once, as XLA's fused multiply-add leaves them: on a picture thousands of pixels
    # wide, a more exact position or one rounded twice moves a sharp edge by a tenth of a grey level.
    step = np.float64(np.float32(1 / (resized / length)))
    centre = ((np.arange(resized) + 0.5) * step - 0.5).astype(np.float32)
    taps = np.floor(centre).astype(np.int64)[:, None] + np.arange(-1, 3)
    x = np.abs(centre[:, None] - taps.astype(np.float32))
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0)).astype(np.float32)
    weights = np.where((taps >= 0) & (taps < length), weights, np.float32(0))
    weights /= weights.sum(1, keepdims=True)
    return np.clip(taps, 0, length - 1), weights
