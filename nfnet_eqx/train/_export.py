"""From a trained network to a checkpoint that anyone can open."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import PARTS, Checkpoint, History, load_checkpoint, write_verified
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import Network


def export(
    model: Network,
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

    Whoever opens the folder finds the older checkpoint or the new one: see `write_verified`. In several processes, only
    the first one calls this.

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
    history = History(training=training, results=results, dataset=dataset, base_model=base_model)
    write_verified(ckpt, folder, history)
    return load_checkpoint(folder)


def check_replaceable(folder: Path) -> None:
    """Raise where an export would cost other files than a checkpoint's.

    Raises:
        InputError: naming them.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; export to a folder")
    others = sorted(path.name for path in folder.iterdir() if path.name not in PARTS) if folder.is_dir() else []
    if others:
        raise InputError(
            f"{folder}: holds {', '.join(map(repr, others[:3]))}{', ...' if others[3:] else ''}, which is no part of a "
            "checkpoint and would be lost; export to another folder, or move it away"
        )
