"""The same function from the other published formula for standardized weights.

DeepMind and timm scale a filter of variance `var` over `fan_in` weights by

    deepmind:  gain / sqrt(max(var * fan_in, 1e-4))
    timm:      gain / sqrt((var + eps) * fan_in)

With the same gains these differ by up to a hundredth on a logit, for filters of small variance. The factor between them
can be multiplied into the gains, once, and the two agree to the last digit.

What stays different is GELU, tanh's approximation at DeepMind and the exact one in timm: up to 2e-4 on a logit.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import NFNetConfig, Numerics

_FLOOR = 1e-4
_AT_A_TIME = 2**16


def convert_numerics(
    config: NFNetConfig, tensors: Mapping[str, Any], to: Numerics
) -> tuple[NFNetConfig, dict[str, np.ndarray]]:
    """The network with `numerics=to` that computes the same function, but for the form of its GELU.

    Args:
        config: the network.
        tensors: its parameters by name.
        to: the numerics to have.

    Returns:
        The configuration, and the parameters: gains multiplied by the ratio of the two scales, computed in float64,
        in float32 or better; all others as they are.

    Raises:
        InputError: a gain has no weight beside it, or `to` is unknown.
    """
    converted = dataclasses.replace(config, numerics=to)
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    if to == config.numerics:
        return converted, arrays
    orphans = [name for name in arrays if name.endswith(".gain") and _weight_of(name) not in arrays]
    if orphans:
        raise InputError(f"convert_numerics: {len(orphans)} gains have no weight beside them ({orphans[0]}, ...)")
    for name, gain in arrays.items():
        if name.endswith(".gain"):
            arrays[name] = fold_gain(arrays[_weight_of(name)], gain, config.std_conv_eps, to)
    return converted, arrays


def fold_gain(weight: np.ndarray, gain: np.ndarray, eps: float, to: Numerics) -> np.ndarray:
    """The gain with which the other numerics standardize `weight` to the same filters, in float32 or better."""
    ratio = _timm_to_deepmind(weight, eps)
    exact = gain.astype(np.float64) * (ratio if to == "deepmind" else 1 / ratio)
    return exact.astype(np.promote_types(gain.dtype, np.float32))


def _weight_of(gain: str) -> str:
    return gain.removesuffix("gain") + "weight"


def _timm_to_deepmind(weight: np.ndarray, eps: float) -> np.ndarray:
    """The scale that timm divides each filter by, in units of DeepMind's: (out, 1, 1, 1)."""
    fan_in = math.prod(weight.shape[1:])
    # A few filters at a time: in the cache it takes half the time, and next to no memory.
    rows = max(_AT_A_TIME // fan_in, 1)
    pieces = (weight[i : i + rows].astype(np.float64) for i in range(0, len(weight), rows))
    var = np.concatenate([np.var(piece, axis=(1, 2, 3), keepdims=True) for piece in pieces])
    deepmind, timm = np.maximum(var * fan_in, _FLOOR), (var + eps) * fan_in
    # A filter of equal weights standardizes to zeros whatever its gain; with eps = 0 there is nothing to divide by.
    return np.sqrt(np.divide(deepmind, timm, out=np.ones_like(var), where=timm > 0))
