"""`nfnet-eqx convert`: a checkpoint of timm or DeepMind to a native one, or any of them to DeepMind's names."""

import contextlib
import dataclasses
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import (
    Checkpoint,
    Conversion,
    History,
    config_to_timm,
    load_checkpoint,
    load_tensors,
    save_pretrained,
    write_card,
)
from nfnet_eqx.convert import (
    compare,
    convert_numerics,
    is_foreign,
    load_deepmind,
    native_to_deepmind,
    noise,
    read_deepmind,
    run,
    write_deepmind,
)
from nfnet_eqx.models import Numerics, get_variant, named_parameters
from nfnet_eqx.zoo import from_pretrained


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

    What was written is read back and compared before it takes its name: all tensors to the bit and, where gains were
    folded, the outputs of both networks on noise. A folder gets a card (README.md) that tells where it came from.

    Examples:
        nfnet-eqx convert F0_haiku.npz dm_nfnet_f0 --numerics timm
        nfnet-eqx convert timm/dm_nfnet_f0.dm_in1k F0_haiku.npz

    Args:
        source: one of DeepMind's *_haiku.npz files (a pickle, of which nothing is executed, or a true npz), the folder
            of a checkpoint of timm or nfnet_eqx, the name of a bundled checkpoint, or a Hub id.
        destination: a folder for a native checkpoint (config.json, model.safetensors, which timm opens too, and its
            card), or a path ending in .npz for one with DeepMind's names. Nothing that exists is overwritten.
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
    original = _open(source, architecture)
    wanted = "deepmind" if to_npz else numerics or original.config.numerics
    converted = original if wanted == original.config.numerics else _folded(original, wanted, source)
    _say(f"writing {destination}")
    try:
        conversion = (_write_npz if to_npz else _write_folder)(original, converted, target)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    timm = "cannot open it" if to_npz else _timm_opens(converted)
    count = sum(tensor.size for tensor in named_parameters(converted.model).values())
    print(
        f"wrote {destination}: {converted.architecture}, {count:,} parameters, numerics={wanted}; timm {timm}; "
        f"{conversion.finding}"
    )


def _free(destination: str) -> Path:
    """Where to write: a path that does not exist, or an empty folder."""
    target = Path(os.path.abspath(destination))
    if target.suffix == ".safetensors":
        raise InputError(f"{destination}: give a folder (it gets model.safetensors and config.json) or a path in .npz")
    if os.path.lexists(target) and not (target.is_dir() and target.suffix != ".npz" and not any(target.iterdir())):
        raise InputError(f"{destination}: exists; remove it or choose another destination")
    return target


def _open(source: str, architecture: str | None) -> Checkpoint:
    if architecture is not None and is_foreign(source):
        return load_deepmind(source, architecture=architecture)  # tells all that does not fit the name
    ckpt = from_pretrained(source)
    if architecture not in (None, ckpt.architecture):
        raise InputError(f"{source}: is {ckpt.architecture}, not {architecture}; leave out --architecture to take it")
    return ckpt


def _folded(ckpt: Checkpoint, numerics: Numerics, source: str) -> Checkpoint:
    _say(f"folding the difference of numerics, {ckpt.config.numerics} to {numerics}, into the gains")
    config, tensors = convert_numerics(ckpt.config, named_parameters(ckpt.model), numerics)
    return dataclasses.replace(ckpt, model=load_tensors(config, tensors, source=source))


def _write_folder(original: Checkpoint, converted: Checkpoint, target: Path) -> Conversion:
    with _unfinished(target) as unfinished:
        save_pretrained(converted, unfinished)
        _say("reading it back")
        written = load_checkpoint(unfinished)
        if written.config != converted.config:
            raise RuntimeError(f"{target}: was read back with another configuration; nothing was written")
        conversion = _same_bits(original, named_parameters(converted.model), named_parameters(written.model), target)
        if written.config.numerics != original.config.numerics:
            conversion = _near_outputs(original, written)
        write_card(unfinished, converted, History(conversion=conversion))
    return conversion


def _write_npz(original: Checkpoint, converted: Checkpoint, target: Path) -> Conversion:
    tree = native_to_deepmind(converted.config, named_parameters(converted.model))
    with _unfinished(target) as unfinished:
        write_deepmind(unfinished, tree)
        _say("reading it back")
        return _same_bits(original, _flat(tree), _flat(read_deepmind(unfinished)), target)


def _flat(tree: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{module} {name}": array for module, leaves in tree.items() for name, array in leaves.items()}


def _same_bits(original: Checkpoint, saved: Mapping[str, Any], opened: Mapping[str, Any], target: Path) -> Conversion:
    different = [tensor.name for tensor in compare(saved, opened) if not tensor.same_bits]
    if different:
        raise RuntimeError(f"{target}: was read back with another {', '.join(different[:3])}; nothing was written")
    return _conversion(original, f"all {len(saved)} tensors to the bit", 0.0)


def _near_outputs(original: Checkpoint, written: Checkpoint) -> Conversion:
    """Folding leaves the difference of the two forms of GELU, which is measured as `nfnet-eqx verify` does."""
    _say("running both networks")
    picture = noise(original.model)
    stages = compare(run(original.model, picture), run(written.model, picture))
    difference = float(np.max([stage.relative for stage in stages]))  # NaN, if there is one
    return _conversion(original, "the feature maps and logits of both networks on noise", difference)


def _conversion(original: Checkpoint, compared: str, difference: float) -> Conversion:
    numerics = original.config.numerics
    return Conversion(source=original.source, numerics=numerics, compared=compared, difference=difference)


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A path beside `target` for what takes its name when the block ends, and vanishes when the block fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)


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
