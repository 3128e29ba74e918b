"""What an image is: opened with suspicion, resized and normalized for a network, and the names of what it may show."""

from nfnet_eqx.images._formats import SUFFIXES, decode_image
from nfnet_eqx.images._open import ImageLike, check_file, open_image
from nfnet_eqx.images._preprocess import DEEPMIND_MARGIN, CropMode, Interpolation, Preprocess, Resize
from nfnet_eqx.images.labels import imagenet1k, imagenet1k_synsets

__all__ = [
    "DEEPMIND_MARGIN",
    "SUFFIXES",
    "CropMode",
    "ImageLike",
    "Interpolation",
    "Preprocess",
    "Resize",
    "check_file",
    "decode_image",
    "imagenet1k",
    "imagenet1k_synsets",
    "open_image",
]
