"""What the arrays of DeepMind's networks are called, how they lie, and which network a set of them is.

References:
    google-deepmind/deepmind-research, folder nfnets (Apache-2.0): the names and shapes that its code gives.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from nfnet_eqx._errors import InputError, first
from nfnet_eqx.models import MAX_BLOCKS, NFNETS, NFNetConfig, get_config, make_divisible, plan_blocks

ROOT = "NFNet/~/"
_BLOCK = re.compile(re.escape(ROOT) + r"nf_block(?:_([1-9]\d{0,5}))?(?:/|$)")

# What DeepMind's code leaves open and shapes tell; ...
_SHAPES = ("depths", "widths", "stem_widths", "group_size", "num_features", "in_channels", "num_classes")
_ROUNDING = ("se_ratio", "se_divisor", "channel_divisor")
# ... and what no array tells, and inference does not need. (Of `std_conv_eps` only timm's numerics make use.)
_TRAINING = ("drop_rate", "stochastic_depth", "zero_init_head", "std_conv_eps")


class Layout(NamedTuple):
    """How an array lies here when it lies there, and the way back: views, no copies."""

    to_native: Callable[[np.ndarray], np.ndarray]
    to_deepmind: Callable[[np.ndarray], np.ndarray]


_AS_IT_IS = Layout(lambda x: x, lambda x: x)
# (height, width, in, out) to (out, in, height, width).
_CONV = Layout(lambda w: w.transpose(3, 2, 0, 1), lambda w: w.transpose(2, 3, 1, 0))
_GAIN = Layout(lambda g: g[:, None, None, None], lambda g: g[:, 0, 0, 0])
# (in, out) to (out, in), and to a 1x1 convolution's.
_LINEAR = Layout(lambda w: w.T, lambda w: w.T)
_SQUEEZE_EXCITE = Layout(lambda w: w.T[:, :, None, None], lambda w: w[:, :, 0, 0].T)


class Entry(NamedTuple):
    """One array: where it stands there, what it is called here, and its shape there."""

    module: str
    name: str
    native: str
    layout: Layout
    shape: tuple[int, ...]

    def native_shape(self) -> tuple[int, ...]:
        """Its shape here."""
        return self.layout.to_native(np.broadcast_to(np.float32(0), self.shape)).shape


def entries(config: NFNetConfig) -> Iterator[Entry]:
    """All arrays of a network that `not_deepminds` finds nothing wrong with, in the network's own order."""

    def conv(module: str, native: str, kernel: int, in_width: int, out_width: int) -> Iterator[Entry]:
        yield Entry(ROOT + module, "w", f"{native}.weight", _CONV, (kernel, kernel, in_width, out_width))
        yield Entry(ROOT + module, "bias", f"{native}.bias", _AS_IT_IS, (out_width,))
        yield Entry(ROOT + module, "gain", f"{native}.gain", _GAIN, (out_width,))

    def linear(module: str, native: str, layout: Layout, in_width: int, out_width: int) -> Iterator[Entry]:
        yield Entry(ROOT + module, "w", f"{native}.weight", layout, (in_width, out_width))
        yield Entry(ROOT + module, "b", f"{native}.bias", _AS_IT_IS, (out_width,))

    width = config.in_channels
    for i, stem_width in enumerate(config.stem_widths):
        yield from conv(f"stem_conv{i}", f"stem.conv{i + 1}", config.stem_kernel, width, stem_width)
        width = stem_width
    # There, blocks are counted over the whole network, and the first bears no number.
    number = 0
    for s, stage in enumerate(plan_blocks(config)):
        for b, plan in enumerate(stage):
            there, here = _block(number), f"stages.{s}.{b}"
            mid, out = plan.mid_width, plan.out_width
            if plan.shortcut_conv:
                yield from conv(f"{there}/~/conv_shortcut", f"{here}.downsample.conv", 1, plan.in_width, out)
            yield from conv(f"{there}/~/conv0", f"{here}.conv1", 1, plan.in_width, mid)
            yield from conv(f"{there}/~/conv1", f"{here}.conv2", 3, mid // plan.groups, mid)
            yield from conv(f"{there}/~/conv1b", f"{here}.conv2b", 3, mid // plan.groups, mid)
            yield from conv(f"{there}/~/conv2", f"{here}.conv3", 1, mid, out)
            hidden = make_divisible(out * config.se_ratio, config.se_divisor, round_limit=0.0)
            se = f"{there}/~/squeeze_excite/~/linear"
            yield from linear(se, f"{here}.attn_last.fc1", _SQUEEZE_EXCITE, out, hidden)
            yield from linear(f"{se}_1", f"{here}.attn_last.fc2", _SQUEEZE_EXCITE, hidden, out)
            yield Entry(ROOT + there, "skip_gain", f"{here}.skipinit_gain", _AS_IT_IS, ())
            number += 1
    yield from conv("final_conv", "final_conv", 1, config.widths[-1], config.feature_width)
    yield from linear("linear", "head.fc", _LINEAR, config.feature_width, config.num_classes)


def not_deepminds(config: NFNetConfig) -> list[str]:
    """What in a configuration DeepMind's code, or a file of its parameters, cannot express."""
    base = get_config("dm_nfnet_f0")
    fixed = [f.name for f in dataclasses.fields(config) if f.name not in (*_SHAPES, *_ROUNDING, *_TRAINING)]
    faults = [
        f"{name}={getattr(config, name)!r} (only {getattr(base, name)!r})"
        for name in fixed
        if getattr(config, name) != getattr(base, name)
    ]
    faults += [f"{name}=None" for name in ("group_size", "num_features") if getattr(config, name) is None]
    if config.num_classes == 0:
        faults.append("num_classes=0")
    if not all(stage[0].shortcut_conv for stage in plan_blocks(config)):
        faults.append(f"stem_widths={config.stem_widths} (the last must differ from widths[0]={config.widths[0]})")
    return faults


def architecture_of(config: NFNetConfig) -> str | None:
    """The name in the family of a network, whatever its classes, input channels and numerics; `None`: it has none."""
    ignored = ("numerics", "in_channels", "num_classes", *_TRAINING)
    same = {name: getattr(config, name) for name in ignored}
    return next((n for n, variant in NFNETS.items() if dataclasses.replace(variant.config, **same) == config), None)


Shapes = Mapping[tuple[str, str], tuple[int, ...]]


def recognise(shapes: Shapes) -> NFNetConfig:
    """The network whose arrays have these shapes, as far as the few shapes that tell it go.

    Args:
        shapes: by module and name.

    Raises:
        InputError: one of those few is missing or impossible; all of them are named.
    """
    faults = []

    def size(module: str, axis: int, dimensions: int = 4) -> int:
        shape = shapes.get((ROOT + module, "w"), ())
        if len(shape) != dimensions:
            faults.append(f"{ROOT}{module} w {f'has shape {shape}' if shape else 'is missing'}")
            return 1
        return shape[axis]

    numbers = {int(match[1] or 0) for module, _ in shapes if (match := _BLOCK.match(module))}
    starts = sorted(n for n in numbers if (f"{ROOT}{_block(n)}/~/conv_shortcut", "w") in shapes)
    if len(starts) != 4 or starts[0] != 0:
        found = first([_block(n) for n in starts]) or "none"
        faults.append(
            f"four blocks should have a conv_shortcut, the first being nf_block; those that have one: {found}"
        )
    if max(numbers, default=0) >= MAX_BLOCKS:
        faults.append(f"{ROOT}{_block(max(numbers))} would be one of more than {MAX_BLOCKS} blocks")
    hint = "give the name of the architecture to see all that is missing"
    if faults:
        raise InputError(f"the architecture is not recognised: {first(faults)}; {hint}")
    widths = tuple(size(f"{_block(n)}/~/conv2", 3) for n in starts)
    fields = {
        "depths": tuple(end - start for start, end in zip(starts, [*starts[1:], max(numbers) + 1], strict=True)),
        "widths": widths,
        "stem_widths": tuple(size(f"stem_conv{i}", 3) for i in range(4)),
        "group_size": size("nf_block/~/conv1", 2),
        "num_features": size("final_conv", 3),
        "in_channels": size("stem_conv0", 2),
        "num_classes": size("linear", 1, dimensions=2),
        "se_ratio": size("nf_block/~/squeeze_excite/~/linear", 1, dimensions=2) / widths[0],
    }
    if faults:
        raise InputError(f"the architecture is not recognised: {first(faults)}; {hint}")
    # timm rounds inner widths to multiples of 8, DeepMind does not: where both fit, it is timm's network as well.
    candidates = [
        dataclasses.replace(get_config("dm_nfnet_f0"), **fields, channel_divisor=channel_divisor, se_divisor=se_divisor)
        for channel_divisor in (8, 1)
        for se_divisor in (8, 1)
    ]
    return min(candidates, key=lambda config: sum(shapes.get(e[:2], e.shape) != e.shape for e in entries(config)))


def _block(number: int) -> str:
    return f"nf_block_{number}" if number else "nf_block"
