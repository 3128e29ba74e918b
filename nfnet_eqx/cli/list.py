"""`nfnet-eqx list`: the family as a table."""

import json as json_format
from typing import Annotated

import tyro

from nfnet_eqx._count import count
from nfnet_eqx._errors import InputError
from nfnet_eqx._variants import get_variant, list_models


def list_(pattern: Annotated[str, tyro.conf.Positional] = "*", *, json: bool = False) -> None:
    """Print the architectures with their parameters, multiply-adds and picture sizes.

    Multiply-adds are those of one picture of the test size, with 1000 classes.

    Example:
        nfnet-eqx list 'dm_*_plus'

    Args:
        pattern: only names that match this shell-style pattern (quote it).
        json: print a JSON list instead of a table; counts are exact there.

    Raises:
        InputError: no name matches.
    """
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
