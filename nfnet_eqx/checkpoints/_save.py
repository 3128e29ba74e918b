"""Checkpoints written: in one step, config and weights naming each other, and on request verified to the bit."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_eqx._errors import InputError, first
from nfnet_eqx._files import os_error_text, replacing_folder, write_json
from nfnet_eqx.checkpoints._card import CARD_NAME, History, write_card
from nfnet_eqx.checkpoints._checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    open_checkpoint,
    version,
)
from nfnet_eqx.checkpoints._tensors import checked_tensors, write_safetensors
from nfnet_eqx.checkpoints._timm import TIMM_ARCHITECTURES, config_to_timm, global_pool_in_timm
from nfnet_eqx.images import imagenet1k
from nfnet_eqx.models import named_parameters, skeleton

# All that a folder gets. Where it cannot change in one step, the config goes before the weights that it names, so that
# it never lies beside weights of a later time without a word about them.
PARTS = (CARD_NAME, CONFIG_NAME, WEIGHTS_NAME)

_log = logging.getLogger(__name__)


def save_pretrained(ckpt: Checkpoint, folder: str | os.PathLike[str]) -> None:
    """Write a checkpoint to a folder, as `config.json` and `model.safetensors`, for nfnet_eqx and for timm.

    Whoever opens the folder finds what it held or what is written, never a part of it; a folder with nothing but a
    checkpoint in it is exchanged as a whole. The config names the weights by their sha256, and `from_pretrained`
    refuses any others.

    Where timm cannot rebuild the network, or computes another function with it, the log says so; nfnet_eqx reads back
    exactly what was saved in any case.

    Args:
        ckpt: the checkpoint.
        folder: is made where needed; a checkpoint that it holds is replaced, other files in it stay, its card too,
            and the log says so: what it states was measured on other weights.

    Raises:
        InputError: `ckpt` is no checkpoint, its network was folded, or changed so that its configuration no longer
            describes it, or `folder` is a file.
    """
    _check(ckpt, folder)
    with replacing_folder(Path(folder), PARTS) as unfinished:
        _write(ckpt, named_parameters(ckpt.model), unfinished)
    if os.path.exists(card := os.path.join(folder, CARD_NAME)):
        _log.warning("%s: tells of the weights that were there before; write it anew, or remove it", card)


def write_verified(
    ckpt: Checkpoint,
    folder: str | os.PathLike[str],
    history: History,
    *,
    tensors: Mapping[str, Any] | None = None,
    overwrite: bool = True,
) -> None:
    """Write a checkpoint with its card, read it back, and let it take its name only if it is the same to the bit.

    Args:
        ckpt: the checkpoint.
        folder: is made where needed, and changes in one step: see `save_pretrained`.
        history: what is known of how the checkpoint came to be, for the card.
        tensors: its parameters by name, where its model is a `skeleton`: arrays, or `LazyArray`s, each of which is
            made twice, to be written and to be compared.
        overwrite: whether a checkpoint that is there by then gives way.

    Raises:
        InputError: `folder` cannot be written, or exists and must not give way; a parameter is not finite, or
            something else that a checkpoint or card cannot hold; or see `save_pretrained`.
        RuntimeError: what was read back is something else.
    """
    folder = Path(folder)
    _check(ckpt, folder)
    tensors = named_parameters(ckpt.model) if tensors is None else tensors
    unfinished = folder
    try:
        with replacing_folder(folder, PARTS, overwrite=overwrite) as unfinished:
            _write(ckpt, tensors, unfinished)
            _compare(ckpt, tensors, unfinished, folder)
            write_card(unfinished, ckpt, history)
    except InputError as error:
        raise InputError(str(error).replace(str(unfinished), str(folder))) from None
    except FileExistsError:
        raise InputError(f"{folder}: exists by now; remove it or choose another destination") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {os_error_text(error)}; mend that, and try again") from None


def _check(ckpt: Any, folder: str | os.PathLike[str]) -> None:
    if not isinstance(ckpt, Checkpoint):
        raise InputError(
            f"a Checkpoint is needed, this is of type {type(ckpt).__name__}; a network becomes one with what is needed "
            "to use it: Checkpoint(model=model, preprocess=Preprocess(...), architecture='...', labels=[...] or None)"
        )
    shapes = {name: leaf.shape for name, leaf in named_parameters(ckpt.model).items()}
    if shapes != {name: leaf.shape for name, leaf in named_parameters(skeleton(ckpt.config)).items()}:
        raise InputError(
            "the parameters are not those of the model's own configuration. A folded network cannot be saved: save the "
            "one it was folded from"
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"{os.fspath(folder)}: is a file; give a folder")


def _write(ckpt: Checkpoint, tensors: Mapping[str, Any], folder: Path) -> None:
    metadata = {"format": "pt", "architecture": ckpt.architecture, "library": "nfnet-eqx", "library_version": version()}
    written = write_safetensors(folder / WEIGHTS_NAME, tensors, metadata)
    settings = _config_json(ckpt)
    settings["nfnet_eqx"]["sha256"] = {WEIGHTS_NAME: written}
    write_json(folder / CONFIG_NAME, settings)


def _compare(ckpt: Checkpoint, tensors: Mapping[str, Any], written: Path, folder: Path) -> None:
    """Raise where what was read back is not what was written."""
    with open_checkpoint(written) as opened:
        # In float32, as it will be opened.
        arrays = checked_tensors(ckpt.config, opened.tensors, source=str(written / WEIGHTS_NAME))
        different = [name for name, array in arrays if not _same_bits(array, tensors[name])]
        for what in ("config", "preprocess", "architecture", "labels"):
            value = getattr(ckpt, what)
            if value is not None and value != getattr(opened.ckpt, what):
                different.append(what)
        if different:
            raise RuntimeError(f"{folder}: was read back with another {first(different, 3)}; nothing was written")
        opened.verified()


def _same_bits(array: np.ndarray, other: Any) -> bool:
    expected = np.asarray(other).astype(array.dtype, order="C", copy=False)
    return array.shape == expected.shape and bool((array.view(np.uint32) == expected.view(np.uint32)).all())


def _config_json(ckpt: Checkpoint) -> dict[str, Any]:
    """What goes into config.json; see `timm.models._hub.save_config_for_hf` for timm's keys."""
    config = ckpt.config
    # timm has no numerics: it opens either kind, as its own.
    try:
        architecture, model_args = config_to_timm(ckpt.architecture, config.with_numerics("timm"))
    except InputError as error:
        _log.warning("saved for nfnet_eqx alone: %s", error)
        # A name that timm does not know: it must refuse this network, not build another.
        known = ckpt.architecture in TIMM_ARCHITECTURES
        architecture, model_args = (f"{ckpt.architecture}_nfnet_eqx" if known else ckpt.architecture), {}
    else:
        if config.numerics == "deepmind":
            _log.warning(
                "timm will open this checkpoint with its own numerics, and its outputs will differ slightly; "
                "convert it to numerics='timm' for equal ones"
            )
    pretrained_cfg = ckpt.preprocess.to_timm()
    for key in ("input_size", "test_input_size"):
        if pretrained_cfg.get(key):
            pretrained_cfg[key] = [config.in_channels, *pretrained_cfg[key][-2:]]
    pretrained_cfg |= {"num_classes": config.num_classes, "pool_size": None}
    pretrained_cfg |= {"first_conv": config.first_conv, "classifier": config.classifier, **ckpt.about}
    settings: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.feature_width,
        "global_pool": global_pool_in_timm(config),
    }
    if ckpt.labels is not None and not (len(ckpt.labels) == 1000 and ckpt.labels == imagenet1k()):
        settings["label_names"] = list(ckpt.labels)
    if model_args:
        settings["model_args"] = model_args
    settings["pretrained_cfg"] = pretrained_cfg
    settings["library"] = {"name": "nfnet-eqx", "version": version()}
    settings["nfnet_eqx"] = {
        "version": version(),
        "architecture": ckpt.architecture,
        "config": config.to_dict(),
        "resize": ckpt.preprocess.resize,
    }
    return settings
