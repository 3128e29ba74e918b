"""`nfnet-eqx convert`: a checkpoint of timm or DeepMind to a native one, or any of them to DeepMind's names."""

import dataclasses
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from nfnet_eqx import _names
from nfnet_eqx._config import Numerics
from nfnet_eqx._errors import InputError
from nfnet_eqx._variants import get_variant
from nfnet_eqx.convert._haiku_names import architecture_of
from nfnet_eqx.convert._tensors import load_tensors
from nfnet_eqx.convert.deepmind import (
    convert_numerics,
    deepmind_to_native,
    native_to_deepmind,
    read_deepmind,
    write_deepmind,
)
from nfnet_eqx.convert.timm import config_to_timm
from nfnet_eqx.zoo.checkpoint import Checkpoint, save_pretrained
from nfnet_eqx.zoo.hub import from_pretrained
from nfnet_eqx.zoo.labels import imagenet1k
from nfnet_eqx.zoo.preprocess import Preprocess


def convert(
    source: Annotated[str, tyro.conf.Positional],
    destination: Annotated[str, tyro.conf.Positional],
    *,
    numerics: Numerics | None = None,
    architecture: str | None = None,
) -> None:
    """Convert a checkpoint.

    The same parameters make two published functions: DeepMind's code and timm treat filters of small variance
    differently (and approximate GELU differently: 2e-4 on a logit). Conversion keeps the parameters as they are, and
    notes which function they are meant for; --numerics folds the difference into the gains, exactly.

    Examples:
        nfnet-eqx convert F0_haiku.npz dm_nfnet_f0 --numerics timm
        nfnet-eqx convert timm/dm_nfnet_f0.dm_in1k F0_haiku.npz

    Args:
        source: one of DeepMind's *_haiku.npz files (a pickle, of which nothing is executed, or a true npz), the folder
            of a checkpoint of timm or nfnet_eqx, the name of a bundled checkpoint, or a Hub id.
        destination: a folder for a native checkpoint (config.json and model.safetensors, which timm opens too), or a
            path ending in .npz for one with DeepMind's names. Nothing that exists is overwritten.
        numerics: which function the parameters should be made for. By default the source's own; an .npz is always made
            for DeepMind's.
        architecture: insist that the source is this network, such as dm_nfnet_f0.

    Raises:
        InputError: the source is broken or no such checkpoint, the destination exists, or it cannot hold the network.
    """
    target = _free(destination)
    to_npz = target.suffix == ".npz"
    if to_npz and numerics == "timm":
        raise InputError(
            f"{destination}: DeepMind's files are read with DeepMind's numerics; leave out --numerics timm"
        )
    if architecture is not None:
        get_variant(architecture)
    _say(f"reading {source}")
    # What is no native checkpoint is taken for one of DeepMind's, whatever its name: the reader looks at its content.
    if os.path.isfile(source) and not source.endswith(".safetensors"):
        ckpt, tensors = _open_deepmind(source, architecture)
    else:
        ckpt, tensors = _open_native(source, architecture)
    config = ckpt.config
    wanted = "deepmind" if to_npz else numerics or config.numerics
    if wanted != config.numerics:
        _say(f"folding the difference of numerics, {config.numerics} to {wanted}, into the gains")
        config, tensors = convert_numerics(config, tensors, wanted)
        ckpt = dataclasses.replace(ckpt, model=load_tensors(config, tensors, source=source))
    _say(f"writing {destination}")
    if to_npz:
        try:
            tree = native_to_deepmind(config, tensors)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        target.parent.mkdir(parents=True, exist_ok=True)
        write_deepmind(target, tree)
        timm = "cannot open it"
    else:
        _save_folder(ckpt, target)
        timm = _timm_opens(ckpt)
    count = sum(tensor.size for tensor in tensors.values())
    print(f"wrote {destination}: {ckpt.architecture}, {count:,} parameters, numerics={config.numerics}; timm {timm}")


def _free(destination: str) -> Path:
    """Where to write: a path that does not exist, or an empty folder."""
    target = Path(os.path.abspath(destination))
    if target.suffix == ".safetensors":
        raise InputError(f"{destination}: give a folder (it gets model.safetensors and config.json) or a path in .npz")
    if os.path.lexists(target) and not (target.is_dir() and target.suffix != ".npz" and not any(target.iterdir())):
        raise InputError(f"{destination}: exists; remove it or choose another destination")
    return target


def _open_deepmind(source: str, architecture: str | None) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    config, tensors = deepmind_to_native(read_deepmind(source), architecture=architecture, source=source)
    name = architecture_of(config)
    ckpt = Checkpoint(
        model=load_tensors(config, tensors, source=source),
        preprocess=_deepmind_preprocess(name),
        labels=imagenet1k() if config.num_classes == 1000 else None,
        architecture=name or "dm_nfnet",
        source=source,
    )
    return ckpt, tensors


def _deepmind_preprocess(name: str | None) -> Preprocess:
    """DeepMind's evaluation at the published sizes; of a network without a name, at F0's."""
    _, train_size, test_size = get_variant(name or "dm_nfnet_f0")
    # timm knows no resizing to 32 pixels more than the crop, but this share of it comes to the same.
    return Preprocess(
        input_size=(train_size, train_size),
        test_input_size=(test_size, test_size),
        crop_pct=train_size / (train_size + 32),
        test_crop_pct=test_size / (test_size + 32),
        crop_mode="squash",
        interpolation="bicubic",
        resize="deepmind",
    )


def _open_native(source: str, architecture: str | None) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    ckpt = from_pretrained(source)
    if architecture not in (None, ckpt.architecture):
        raise InputError(f"{source}: is {ckpt.architecture}, not {architecture}")
    return ckpt, {name: np.asarray(leaf) for name, leaf in _names.named_parameters(ckpt.model).items()}


def _save_folder(ckpt: Checkpoint, target: Path) -> None:
    """Write the checkpoint beside `target` and move it there when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_pretrained(ckpt, temporary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _timm_opens(ckpt: Checkpoint) -> str:
    try:
        config_to_timm(ckpt.architecture, dataclasses.replace(ckpt.config, numerics="timm"))
    except InputError:
        return "cannot open it"
    return "opens it" if ckpt.config.numerics == "timm" else "opens it with its own numerics"


def _say(what: str) -> None:
    """Progress, for those who wait: a large checkpoint takes a while."""
    if sys.stderr.isatty():
        print(f"{what} ...", file=sys.stderr, flush=True)
