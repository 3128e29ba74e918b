"""What is foreign: DeepMind's files, the two numerics of the same weights, and how far two networks are apart.

What `nfnet-eqx convert` and `nfnet-eqx verify` do, from Python:

    import nfnet_eqx as nfx
    from nfnet_eqx.convert import compare, convert, noise, run

    made = convert("F0_haiku.npz", "dm_nfnet_f0", numerics="timm")  # a folder that timm opens too
    print(made.conversion.finding)

    a, b = (nfx.from_pretrained(source).model for source in ("F0_haiku.npz", "dm_nfnet_f0"))
    weights = compare(nfx.named_parameters(a), nfx.named_parameters(b))
    outputs = compare(run(a, noise(a)), run(b, noise(a)))
"""

from nfnet_eqx.convert._convert import Converted, convert
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
    "Converted",
    "Difference",
    "compare",
    "convert",
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
