"""`nfnet-eqx info`: one architecture or checkpoint in full."""

import dataclasses
import difflib
import json as json_format
import os
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.cli._text import name, pad, printable, width
from nfnet_eqx.models import VARIANTS, NetworkConfig, count, flops
from nfnet_eqx.zoo import bundled, from_pretrained


def info(source: Annotated[str, tyro.conf.Positional], *, json: bool = False) -> None:
    """Print the configuration, size and preprocessing of an architecture or a checkpoint.

    A checkpoint is loaded for it, so what is printed has passed the strict loader. Multiply-adds (macs) and FLOPs
    are those of one image of the test size.

    Examples:
        nfnet-eqx info dm_nfnet_f0
        nfnet-eqx info path/to/checkpoint --json

    Args:
        source: an architecture, a bundled checkpoint, the folder or the .safetensors file of a checkpoint, one of
            DeepMind's .npz files, or a Hub id such as timm/dm_nfnet_f0.dm_in1k.
        json: print JSON.

    Raises:
        InputError: there is no such architecture or checkpoint, or it is broken.
    """
    described = _describe(source)
    print(json_format.dumps(described, indent=2) if json else "\n".join(_lines(described)))


def _describe(source: str) -> dict[str, Any]:
    """What there is to say, as JSON values."""
    if source in VARIANTS and not os.path.exists(source):
        config, train_size, side = VARIANTS[source]
        sizes = {"train_size": train_size, "test_size": side}
        return {"architecture": source, **sizes, **_facts(config, (side, side))}
    names = [*VARIANTS, *bundled()]
    if source.isidentifier() and source not in names and not os.path.exists(source):
        near = difflib.get_close_matches(source, names, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "nfnet-eqx list names the architectures"
        raise InputError(f"{source!r} is no architecture, no bundled checkpoint and no existing file or folder; {hint}")
    ckpt = from_pretrained(source)
    return {
        "source": str(ckpt.source),
        "architecture": ckpt.architecture,
        **_facts(ckpt.config, ckpt.preprocess.size(use_test_size=True)),
        "preprocess": dataclasses.asdict(ckpt.preprocess),
        "about": dict(ckpt.about),
        "labels": list(ckpt.labels or ()),
    }


def _facts(config: NetworkConfig, size: tuple[int, int]) -> dict[str, Any]:
    total = count(config, size)
    return {
        "parameters": total.parameters,
        "macs": total.macs,
        "forward_flops": flops(config, size, training=False),
        "training_flops": flops(config, size),
        "macs_size": list(size),
        "config": config.to_dict(),
    }


def _lines(described: Mapping[str, Any], indent: str = "") -> list[str]:
    """One line a value; what is nested comes below its name."""
    columns = max((width(name(key)) for key in described), default=0)
    lines = []
    for key, value in described.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name(key)}", *_lines(value, indent + "  ")] if value else []
        else:
            lines.append(f"{indent}{pad(name(key), columns)}  {printable(_shown(key, value))}")
    return lines


def _shown(key: str, value: Any) -> str:
    if key == "parameters":
        return f"{value:,}"
    if key in ("macs", "forward_flops", "training_flops"):
        return f"{value / 1e9:.2f} G"
    if isinstance(value, list | tuple):
        shown = [name(str(item)) for item in value[:8]]
        return ", ".join(shown) + (f", ... ({len(value)})" if len(value) > len(shown) else "")
    return "none" if value is None or value == "" else str(value)
