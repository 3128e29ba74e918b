"""DeepMind's files opened as what every other checkpoint is: a `Checkpoint`."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from jax.typing import DTypeLike

from nfnet_eqx._files import digest
from nfnet_eqx.checkpoints import INDEX_SUFFIX, Checkpoint, Opened, Origin, Placement, load_tensors
from nfnet_eqx.convert._deepmind import native_tensors, open_deepmind
from nfnet_eqx.convert._haiku_names import architecture_of
from nfnet_eqx.images import Preprocess, imagenet1k
from nfnet_eqx.models import get_variant, skeleton


def is_foreign(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a file to be read as one of DeepMind's: one that is not by its name safetensors.

    Whatever else it is called, the reader looks at its content.
    """
    return os.path.isfile(path) and not os.fspath(path).endswith((".safetensors", INDEX_SUFFIX))


def load_deepmind(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    dtype: DTypeLike | None = None,
    device: Placement | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Checkpoint:
    """Open one of DeepMind's files: a pickle, of which nothing is executed, or a true npz.

    The file holds arrays alone: the network is recognised from their shapes, and what else belongs to a checkpoint is
    that of DeepMind's evaluation at the published sizes.

    Args:
        path: the file, such as `F0_haiku.npz`.
        architecture: insist on this network, and be told all that does not fit it.
        dtype: what to keep the parameters in; `None` is float32.
        device: where to put the parameters; by default JAX's default device.
        known: what is known of published files (`Checkpoint.about`), by their md5.

    Raises:
        InputError: the file is damaged or holds something else, or no network of DeepMind's; the message says in what.
    """
    with open_deepmind_checkpoint(path, architecture=architecture, known=known) as opened:
        model = load_tensors(opened.ckpt.config, opened.tensors, source=str(path), dtype=dtype, device=device)
        return dataclasses.replace(opened.verified(), model=model)


@contextlib.contextmanager
def open_deepmind_checkpoint(
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Opened]:
    """As `load_deepmind`, without the parameters in memory."""
    path = Path(path)
    # The digests take as long as the arrays, and a thread of their own.
    with open_deepmind(path) as (tree, file), ThreadPoolExecutor(1) as beside:
        config, tensors = native_tensors(tree, architecture=architecture, source=str(path))
        name = architecture or architecture_of(config)
        ckpt = Checkpoint(
            model=skeleton(config),
            preprocess=_preprocess(name),
            labels=imagenet1k() if config.num_classes == 1000 else None,
            architecture=name or "dm_nfnet",
        )
        digests = beside.submit(_digests, file, bool(known))

        def verified() -> Checkpoint:
            sha256, md5 = digests.result()
            source = Origin(str(path), sha256={path.name: sha256})
            return dataclasses.replace(ckpt, source=source, about=dict((known or {}).get(md5, {})))

        yield Opened(ckpt, tensors, verified)


def _preprocess(architecture: str | None) -> Preprocess:
    """DeepMind's evaluation at the published sizes; of a network without a name, at F0's."""
    _, train_size, test_size = get_variant(architecture or "dm_nfnet_f0")
    return Preprocess.deepmind(train_size, test_size)


def _digests(file: BinaryIO, with_md5: bool) -> tuple[str, str]:
    """The sha256 of a file, and its md5 where that is asked for."""
    return digest(file), digest(file, "md5") if with_md5 else ""
