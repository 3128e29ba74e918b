"""`nfnet-eqx list`: the family, or its published checkpoints, as a table."""

import dataclasses
import fnmatch
import json as json_format
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
    if json:
        print(json_format.dumps(rows, indent=2))
        return
    width = max(len(name) for name in names)
    print(f"{'name':{width}}  parameters  mult-adds  train   test")
    for row in rows:
        print(
            f"{row['name']:{width}}  {row['parameters'] / 1e6:8.1f} M  {row['macs'] / 1e9:7.2f} G"
            f"  {row['train_size']:5}  {row['test_size']:5}"
        )


def _list_checkpoints(pattern: str, json: bool) -> None:
    chosen = [published for published in catalog() if fnmatch.fnmatchcase(published.name, pattern)]
    if not chosen:
        raise InputError(f"no checkpoint matches {pattern!r}; nfnet-eqx list --pretrained names them all")
    if json:
        rows: list[dict[str, Any]] = [dataclasses.asdict(published) for published in chosen]
        print(json_format.dumps(rows, indent=2))
        return
    width = max(len(published.name) for published in chosen)
    print(f"{'name':{width}}  parameters  mult-adds  size  top-1    numerics  licence     where")
    for published in chosen:
        print(
            f"{published.name:{width}}  {published.parameters / 1e6:8.1f} M  {published.test_macs / 1e9:7.2f} G"
            f"  {published.test_size:4}  {f'{round(published.protocol().top1, 2)} %':7}  {published.numerics:8}"
            f"  {published.license or 'not stated':10}  {_where(published)}"
        )
    for folder in sorted({published.url.rpartition("/")[0] for published in chosen if published.url}):
        print(f"files are under {folder}/")


def _where(published: Published) -> str:
    if published.url:
        return f"file {published.url.rpartition('/')[2]}"
    return published.hub_id or f"ships with the package ({published.data})"
