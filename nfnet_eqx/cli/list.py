"""`nfnet-eqx list`: the family, or its published checkpoints, as a table."""

import dataclasses
import fnmatch
import json as json_format
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import count, flops, get_variant, list_models
from nfnet_eqx.zoo import Published, catalog


def list_(
    patterns: Annotated[tuple[str, ...], tyro.conf.Positional] = ("*",),
    *,
    pretrained: bool = False,
    size: int | None = None,
    json: bool = False,
) -> None:
    """Print the architectures with their parameters, multiply-adds, FLOPs and image sizes, or the checkpoints.

    Multiply-adds are those of one image of the test size, with 1000 classes. A multiply-add is two FLOPs in the forward
    pass, and six in training.

    Examples:
        nfnet-eqx list 'dm_*_plus'
        nfnet-eqx list --size 224 'dm_nfnet_f[0137]' 'dm_nfnet_f[37]_plus' 'vit_g*' 'vit_so400m*_224'
        nfnet-eqx list --pretrained 'dm_nfnet_f0*'

    Args:
        patterns: only names that match one of these shell-style patterns (quote them).
        pretrained: the published checkpoints, with their accuracy at the test size, instead of the architectures.
        size: count for images of this side, in pixels, instead of each architecture's test size.
        json: print a JSON list instead of a table; counts are exact there, and checkpoints have all that is known.

    Raises:
        InputError: a pattern matches no name, or an architecture cannot take images of this size.
    """
    if pretrained and size is not None:
        raise InputError("--size does not go with --pretrained: the checkpoints are listed at their own test sizes")
    if pretrained:
        _list_checkpoints(patterns, json)
    else:
        _list_architectures(patterns, size, json)


def _list_architectures(patterns: Sequence[str], size: int | None, json: bool) -> None:
    names = _matching(patterns, list_models(), "architecture", "nfnet-eqx list")
    rows = [_architecture(name, size) for name in names]
    if json:
        print(json_format.dumps(rows, indent=2))
        return
    print(_table(_ARCHITECTURE_COLUMNS, rows))
    if size is not None:
        print(f"counted for images of {size} x {size} pixels")


def _architecture(name: str, size: int | None) -> dict[str, Any]:
    variant = get_variant(name)
    side = variant.test_size if size is None else size
    try:
        config = variant.config.at_image_size(side)
        total = count(config, side)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return {
        "name": name,
        "parameters": total.parameters,
        "macs": total.macs,
        "forward_flops": flops(config, side, training=False),
        "training_flops": flops(config, side),
        "size": side,
        "train_size": variant.train_size,
        "test_size": variant.test_size,
    }


def _list_checkpoints(patterns: Sequence[str], json: bool) -> None:
    published = {published.name: published for published in catalog()}
    chosen = [published[name] for name in _matching(patterns, published, "checkpoint", "nfnet-eqx list --pretrained")]
    if json:
        rows: list[dict[str, Any]] = [dataclasses.asdict(published) for published in chosen]
        print(json_format.dumps(rows, indent=2))
        return
    print(_table(_CHECKPOINT_COLUMNS, chosen))
    for folder in sorted({published.url.rpartition("/")[0] for published in chosen if published.url}):
        print(f"files are under {folder}/")


def _matching(patterns: Sequence[str], names: Iterable[str], what: str, command: str) -> list[str]:
    """The names that match any of the patterns, in their own order; each pattern must match one."""
    names = list(names)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no {what} matches {pattern!r}; {command} names them all")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _where(published: Published) -> str:
    if published.url:
        return published.url.rpartition("/")[2]
    # The repository has the checkpoint's name.
    return f"Hub, {published.hub_id.rpartition('/')[0]}/" if published.hub_id else "in the package"


# The columns of each table: what stands above, and what a row has there. Numbers come with the blanks that align them.
_ARCHITECTURE_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "name": lambda row: row["name"],
    "parameters": lambda row: f"{row['parameters'] / 1e6:8.1f} M",
    "mult-adds": lambda row: f"{row['macs'] / 1e9:7.2f} G",
    "fwd FLOPs": lambda row: f"{row['forward_flops'] / 1e9:7.2f} G",
    "in training": lambda row: f"{row['training_flops'] / 1e9:9.2f} G",
    "train": lambda row: f"{row['train_size']:5}",
    " test": lambda row: f"{row['test_size']:5}",
}
_CHECKPOINT_COLUMNS: dict[str, Callable[[Published], str]] = {
    "name": lambda row: row.name,
    "parameters": lambda row: f"{row.parameters / 1e6:8.1f} M",
    "mult-adds": lambda row: f"{row.test_macs / 1e9:7.2f} G",
    "size": lambda row: f"{row.test_size:4}",
    "top-1": lambda row: f"{round(row.accuracy().top1, 2)} %",
    "numerics": lambda row: row.numerics,
    "licence": lambda row: row.license or "not stated",
    "where": _where,
}


def _table(columns: Mapping[str, Callable[[Any], str]], rows: Sequence[Any]) -> str:
    """A line of headers, and one for each row."""
    cells = [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)
