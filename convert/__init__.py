"""What is foreign: DeepMind's files, the two numerics of the same weights, and how far two networks are apart."""

from nfnet_eqx.convert._deepmind import (
    convert_numerics,
    deepmind_to_native,
    native_to_deepmind,
    read_deepmind,
    write_deepmind,
)
from nfnet_eqx.convert._load import is_foreign, load_deepmind
from nfnet_eqx.convert._verify import Difference, compare, noise, run, run_timm

__all__ = [
    "Difference",
    "compare",
    "convert_numerics",
    "deepmind_to_native",
    "is_foreign",
    "load_deepmind",
    "native_to_deepmind",
    "noise",
    "read_deepmind",
    "run",
    "run_timm",
    "write_deepmind",
]
