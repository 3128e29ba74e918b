"""What an image is: opened with suspicion, resized and normalized for a network, and the names of what it may show."""

from nfnet_eqx.images._open import SUFFIXES, open_image
from nfnet_eqx.images._preprocess import CropMode, ImageLike, Interpolation, Preprocess, Resize
from nfnet_eqx.images.labels import imagenet1k, imagenet1k_synsets

__all__ = [
    "SUFFIXES",
    "CropMode",
    "ImageLike",
    "Interpolation",
    "Preprocess",
    "Resize",
    "imagenet1k",
    "imagenet1k_synsets",
    "open_image",
]
