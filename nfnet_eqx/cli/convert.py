"""`nfnet-eqx convert`: a checkpoint of timm or DeepMind to a native one, or any of them to DeepMind's names."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import CONFIG_NAME, Checkpoint, config_to_timm
from nfnet_eqx.convert import Converted
from nfnet_eqx.convert import convert as library_convert
from nfnet_eqx.models import Numerics
from nfnet_eqx.zoo import bundled, from_pretrained, published_files


def convert(
    source: Annotated[str, tyro.conf.Positional],
    destination: Annotated[str, tyro.conf.Positional],
    *,
    numerics: Numerics | None = None,
    architecture: str | None = None,
    labels: Path | None = None,
) -> None:
    """Convert a checkpoint.

    The same parameters make two published functions: DeepMind's code and timm treat filters of small variance
    differently (and approximate GELU differently: 2e-4 on a logit). Conversion keeps the parameters as they are, and
    notes which function they are meant for; --numerics folds the difference into the gains, exactly.

    What was written is read back and compared before it takes its name: all tensors to the bit and, where gains were
    folded, the standardized weights that the networks compute. A folder gets a card (README.md) that tells where it
    came from. `nfnet-eqx verify` also compares what both networks answer.

    Examples:
        nfnet-eqx convert F0_haiku.npz dm_nfnet_f0 --numerics timm
        nfnet-eqx convert timm/dm_nfnet_f0.dm_in1k F0_haiku.npz
        nfnet-eqx convert runs/flowers/checkpoints/700 renamed --labels names.txt

    Args:
        source: one of DeepMind's *_haiku.npz files (a pickle, of which nothing is executed, or a true npz), the folder
            of a checkpoint of timm or nfnet_eqx, the name of a bundled checkpoint, or a Hub id.
        destination: a folder for a native checkpoint (config.json, model.safetensors, which timm opens too, and its
            card), or a path ending in .npz for one with DeepMind's names. Nothing that exists is overwritten.
        numerics: which function the parameters should be made for. By default the source's own; an .npz is always made
            for DeepMind's.
        architecture: insist that the source is this network, such as dm_nfnet_f0.
        labels: a text file with other names for the classes, one a line, in the order of the network's.

    Raises:
        InputError: the source is broken or no such checkpoint, the destination exists, or it cannot hold the network.
    """
    _say(f"converting {source}")
    opened = _source(source) if labels is None else _with_labels(from_pretrained(source), labels)
    made = library_convert(opened, destination, numerics=numerics, architecture=architecture, known=published_files())
    timm = "cannot open it" if made.path.suffix == ".npz" else _timm_opens(made)
    print(
        f"wrote {destination}: {made.architecture}, {made.parameters:,} parameters, "
        f"numerics={made.config.numerics}; timm {timm}; {made.conversion.finding}"
    )


def _source(source: str) -> str | Checkpoint:
    """A file or a checkpoint's folder as it is, to be read piece by piece; all else opened."""
    here = os.path.isfile(source) or os.path.isfile(os.path.join(source, CONFIG_NAME))
    return source if here and source not in bundled() else from_pretrained(source)


def _with_labels(ckpt: Checkpoint, file: Path) -> Checkpoint:
    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not UTF-8 text; write it again") from None
    try:
        return dataclasses.replace(ckpt, labels=check_class_names(names, "--labels"))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _timm_opens(made: Converted) -> str:
    try:
        config_to_timm(made.architecture, made.config.with_numerics("timm"))
    except InputError:
        return "cannot open it"
    return "opens it" if made.config.numerics == "timm" else "opens it with its own numerics"


def _say(what: str) -> None:
    """Progress, for those who wait: a large checkpoint takes a while."""
    if sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)
