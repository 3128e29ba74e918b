"""The conversion itself: one array at a time, from a file to a file, read back and compared."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nfnet_eqx._errors import InputError, first
from nfnet_eqx._files import os_error_text, replacing
from nfnet_eqx.checkpoints import (
    Checkpoint,
    Conversion,
    History,
    LazyArray,
    Opened,
    checked_tensors,
    open_checkpoint,
    write_verified,
)
from nfnet_eqx.convert._deepmind import Tree, check_family, deepmind_tree, open_deepmind, write_deepmind
from nfnet_eqx.convert._load import is_foreign, open_deepmind_checkpoint
from nfnet_eqx.convert._numerics import fold_gain
from nfnet_eqx.convert._verify import compare, convolutions, standardized_difference
from nfnet_eqx.models import NetworkConfig, Numerics, get_variant, named_parameters, skeleton


class Converted(NamedTuple):
    """What a conversion made.

    Attributes:
        path: the folder or file that was written.
        architecture: what the network is called.
        config: the network, with the numerics that its parameters are made for now.
        parameters: how many numbers it has.
        conversion: where it came from, and what was compared.
    """

    path: Path
    architecture: str
    config: NetworkConfig
    parameters: int
    conversion: Conversion


def convert(
    source: str | os.PathLike[str] | Checkpoint,
    target: str | os.PathLike[str],
    *,
    numerics: Numerics | None = None,
    architecture: str | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Converted:
    """Convert a checkpoint to a native one, or to a file with DeepMind's names.

    The same parameters make two published functions (see `convert_numerics`). A conversion keeps them as they are and
    notes which function they are meant for; `numerics` folds the difference into the gains.

    What was written is read back and compared before it takes its name: all tensors to the bit and, where gains were
    folded, the standardized weights that the network computes from them. A folder gets a card that tells where it came
    from. Files are read and written tensor by tensor: a conversion needs memory for a few of them.

    Example:
        >>> import nfnet_eqx as nfx
        >>> nfx.convert.convert("F0_haiku.npz", "dm_nfnet_f0", numerics="timm")  # doctest: +SKIP
        >>> ckpt = nfx.from_pretrained("timm/dm_nfnet_f0.dm_in1k")  # doctest: +SKIP
        >>> nfx.convert.convert(ckpt, "F0_haiku.npz")  # doctest: +SKIP

    Args:
        source: one of DeepMind's files, the folder of a checkpoint of timm or nfnet_eqx, or an open `Checkpoint`, for
            what `from_pretrained` opens by a name: a checkpoint of the Hub or of the package.
        target: a folder, or a path ending in .npz for DeepMind's names. Nothing that exists is overwritten.
        numerics: which function the parameters should be made for. By default the source's own; an .npz is always made
            for DeepMind's.
        architecture: insist that the source is this network.
        known: what is known of published files of DeepMind's (`Checkpoint.about`), by their md5.

    Returns:
        What was made, and what was compared.

    Raises:
        InputError: the source is broken or no such checkpoint, the target exists, or it cannot hold the network.
        RuntimeError: what was read back is something else than was written; nothing is left of it.
    """
    path = _free(target)
    to_npz = path.suffix == ".npz"
    if to_npz and numerics == "timm":
        raise InputError(f"{target}: DeepMind's files are read with DeepMind's numerics; leave out --numerics timm")
    if architecture is not None:
        get_variant(architecture)
    with _open(source, architecture, known) as opened:
        try:
            return _convert(opened, path, "deepmind" if to_npz else numerics or opened.ckpt.config.numerics)
        except InputError as error:
            name = str(opened.ckpt.source)
            raise error if not name or str(error).startswith(name) else InputError(f"{name}: {error}") from None


def _convert(opened: Opened, path: Path, numerics: Numerics) -> Converted:
    if path.suffix == ".npz":
        check_family(opened.ckpt.config)
    config = opened.ckpt.config.with_numerics(numerics)
    tensors, differences = _for_numerics(opened, config)
    original = opened.verified()
    compared = f"all {len(tensors)} tensors to the bit"
    if differences:
        compared += f", and the standardized weights of all {len(differences)} convolutions with the original's"
    conversion = Conversion(
        source=original.source,
        numerics=original.config.numerics,
        compared=compared,
        difference=float(np.max(differences, initial=0.0)),  # NaN, if there is one
    )
    if path.suffix == ".npz":
        _write_npz(deepmind_tree(config, tensors), path)
    else:
        converted = dataclasses.replace(original, model=skeleton(config))
        write_verified(converted, path, History(conversion=conversion), tensors=tensors, overwrite=False)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return Converted(path, original.architecture, config, parameters, conversion)


def _free(target: str | os.PathLike[str]) -> Path:
    """Where to write: a path that does not exist, or an empty folder."""
    path = Path(os.path.abspath(target))
    if path.suffix == ".safetensors":
        raise InputError(f"{target}: give a folder (it gets model.safetensors and config.json) or a path in .npz")
    if os.path.lexists(path) and not (path.is_dir() and path.suffix != ".npz" and not any(path.iterdir())):
        raise InputError(f"{target}: exists; remove it or choose another destination")
    return path


@contextlib.contextmanager
def _open(
    source: str | os.PathLike[str] | Checkpoint,
    architecture: str | None,
    known: Mapping[str, Mapping[str, Any]] | None,
) -> Iterator[Opened]:
    if isinstance(source, Checkpoint):
        ckpt = dataclasses.replace(source, model=skeleton(source.config))
        opening = contextlib.nullcontext(Opened(ckpt, named_parameters(source.model), lambda: ckpt))
    elif is_foreign(source):
        opening = open_deepmind_checkpoint(source, architecture=architecture, known=known)
    else:
        opening = open_checkpoint(source)
    with opening as opened:
        found = opened.ckpt.architecture
        if architecture not in (None, found):
            raise InputError(f"{opened.ckpt.source}: is {found}, not {architecture}; leave architecture out to take it")
        yield opened


def _for_numerics(opened: Opened, config: NetworkConfig) -> tuple[dict[str, Any], list[float]]:
    """The parameters in float32 and for the numerics of `config`, after each of them has been looked at.

    The gains that other numerics need are small, and kept; all else is read again when it is asked for.

    Returns:
        The parameters by name; and, where gains were folded, for each convolution how far its standardized weight is
        from the original's.
    """
    before = opened.ckpt.config
    here, there = (convolutions(before), convolutions(config)) if config.numerics != before.numerics else ({}, {})
    tensors, gains, differences = {}, {}, []
    for name, array in checked_tensors(before, opened.tensors, source=opened.ckpt.source.name or "the checkpoint"):
        tensors[name] = LazyArray(array.shape, array.dtype, lambda name=name: np.asarray(opened.tensors[name]))
        if name in here:
            gain_name = name.removesuffix("weight") + "gain"
            gain = np.asarray(opened.tensors[gain_name]).astype(np.float32)
            gains[gain_name] = fold_gain(array, gain, here[name].eps, config.numerics)
            differences.append(standardized_difference(here[name], there[name], array, gain, gains[gain_name]))
    return tensors | gains, differences


def _write_npz(tree: Tree, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, overwrite=False) as unfinished:
            write_deepmind(unfinished, tree)
            with open_deepmind(unfinished) as (written, _):
                different = [tensor.name for tensor in compare(_flat(tree), _flat(written)) if not tensor.same_bits]
            if different:
                raise RuntimeError(f"{path}: was read back with another {first(different, 3)}; nothing was written")
    except FileExistsError:
        raise InputError(f"{path}: exists by now; remove it or choose another destination") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {os_error_text(error)}; mend that, and try again") from None


def _flat(tree: Tree) -> dict[str, Any]:
    return {f"{module} {name}": array for module, leaves in tree.items() for name, array in leaves.items()}
