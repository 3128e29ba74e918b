"""`nfnet-eqx list`: the family, or its published checkpoints, as a table."""

import dataclasses
import fnmatch
import json as json_format
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.models import count, get_variant, list_models
from nfnet_eqx.zoo import Published, catalog


def list_(pattern: Annotated[str, tyro.conf.Positional] = "*", *, pretrained: bool = False, json: bool = False) -> None:
    """Print the architectures with their parameters, multiply-adds and picture sizes, or the checkpoints.

    Multiply-adds are those of one picture of the test size, with 1000 classes.

    Examples:
        nfnet-eqx list 'dm_*_plus'
        nfnet-eqx list --pretrained 'dm_nfnet_f0*'

    Args:
        pattern: only names that match this shell-style pattern (quote it).
        pretrained: the published checkpoints, with their accuracy at the test size, instead of the architectures.
        json: print a JSON list instead of a table; counts are exact there, and checkpoints have all that is known.

    Raises:
        InputError: no name matches.
    """
    if pretrained:
        _list_checkpoints(pattern, json)
    else:
        _list_architectures(pattern, json)


def _list_architectures(pattern: str, json: bool) -> None:
    names = list_models(pattern)
    if not names:
        raise InputError(f"no architecture matches {pattern!r}; nfnet-eqx list names them all")
    rows = []
    for name in names:
        variant = get_variant(name)
        total = count(variant.config, variant.test_size)
        rows.append(
            {
                "name": name,
                "parameters": total.parameters,
                "macs": total.macs,
                "train_size": variant.train_size,
                "test_size": variant.test_size,
            }
        )
    print(json_format.dumps(rows, indent=2) if json else _table(_ARCHITECTURE_COLUMNS, rows))


def _list_checkpoints(pattern: str, json: bool) -> None:
    chosen = [published for published in catalog() if fnmatch.fnmatchcase(published.name, pattern)]
    if not chosen:
        raise InputError(f"no checkpoint matches {pattern!r}; nfnet-eqx list --pretrained names them all")
    if json:
        rows: list[dict[str, Any]] = [dataclasses.asdict(published) for published in chosen]
        print(json_format.dumps(rows, indent=2))
        return
    print(_table(_CHECKPOINT_COLUMNS, chosen))
    for folder in sorted({published.url.rpartition("/")[0] for published in chosen if published.url}):
        print(f"files are under {folder}/")


def _where(published: Published) -> str:
    if published.url:
        return f"file {published.url.rpartition('/')[2]}"
    return published.hub_id or f"ships with the package ({published.data})"


# The columns of each table: what stands above, and what a row has there. Numbers come with the blanks that align them.
_ARCHITECTURE_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "name": lambda row: row["name"],
    "parameters": lambda row: f"{row['parameters'] / 1e6:8.1f} M",
    "mult-adds": lambda row: f"{row['macs'] / 1e9:7.2f} G",
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
