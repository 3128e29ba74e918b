"""From a trained network to a checkpoint that anyone can open."""

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    History,
    load_checkpoint,
    save_pretrained,
    write_card,
)
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import NFNet, named_parameters


def export(
    model: NFNet,
    folder: str | os.PathLike[str],
    *,
    architecture: str,
    preprocess: Preprocess,
    labels: Sequence[str] | None,
    training: Mapping[str, Any] | None,
    results: Mapping[str, float] | None,
    dataset: str | None,
    base_model: str | None,
) -> Checkpoint:
    """Writes a network as a native checkpoint with a card, and opens what was written.

    The folder appears whole or not at all: everything is written beside it, opened again and compared with the network
    to the bit, and only then takes its name. In several processes, only the first one calls this.

    Args:
        model: the network; every parameter must be readable from this process.
        folder: where to; a checkpoint that it holds is replaced, anything else is not.
        architecture: what the network is called.
        preprocess: how a picture becomes its input.
        labels: the name of each class, where known.
        training: the settings of the training run, for the card.
        results: what was measured on the network, for the card: see `History`.
        dataset: what it was trained on, for the card.
        base_model: the checkpoint that it was fine-tuned from, for the card.

    Returns:
        The checkpoint as it is opened from `folder`.

    Raises:
        InputError: `folder` holds other files, or cannot be written; the network was folded, or a parameter is not
            finite; or a label or result is impossible.
    """
    folder = Path(folder).resolve()
    check_replaceable(folder)
    ckpt = Checkpoint(
        model=model,
        preprocess=preprocess,
        labels=None if labels is None else tuple(labels),
        architecture=architecture,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        save_pretrained(ckpt, unfinished)
        write_card(
            unfinished, ckpt, History(training=training, results=results, dataset=dataset, base_model=base_model)
        )
        written = load_checkpoint(unfinished, name=str(folder))
        _check_same(ckpt, written)
        _take_name(unfinished, folder)
    except InputError as error:
        raise InputError(str(error).replace(str(unfinished), str(folder))) from None
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written: {error.strerror or error}; mend that, and export again"
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return written


def check_replaceable(folder: Path) -> None:
    """Raise where `folder` holds what an export must not replace."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; export to a folder")
    ours = {CONFIG_NAME, WEIGHTS_NAME, CARD_NAME}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours) if folder.is_dir() else []
    if others:
        raise InputError(
            f"{folder}: holds {', '.join(map(repr, others[:3]))}{', ...' if others[3:] else ''}, which is no part of a "
            "checkpoint and would be lost; export to another folder, or move it away"
        )


def _check_same(saved: Checkpoint, opened: Checkpoint) -> None:
    """Raise where what was read back is not what was written; the file's parameters are opened as float32."""
    before, after = named_parameters(saved.model), named_parameters(opened.model)
    different = [name for name, array in before.items() if _bits(array) != _bits(after[name])]
    for what in ("config", "preprocess", "architecture", "labels"):
        value = getattr(saved, what)
        if value is not None and value != getattr(opened, what):
            different.append(what)
    if different:
        raise RuntimeError(f"the checkpoint was read back with another {', '.join(different)}; nothing was exported")


def _bits(array: jax.Array) -> bytes:
    return np.asarray(jnp.asarray(array, jnp.float32)).tobytes()


def _take_name(unfinished: Path, folder: Path) -> None:
    """Put a finished folder where it belongs; one that is there already gives way in the same moment."""
    older = folder.with_name(f"{unfinished.name}.old")
    if folder.exists():
        os.rename(folder, older)
    os.rename(unfinished, folder)
    shutil.rmtree(older, ignore_errors=True)
