"""The native format: a folder of config.json, model.safetensors and a card, as timm reads and writes it."""

from nfnet_eqx.checkpoints._card import CARD_NAME, Conversion, History, card_on_hub, write_card
from nfnet_eqx.checkpoints._checkpoint import (
    CONFIG_NAME,
    FOREIGN_SUFFIXES,
    INDEX_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    Opened,
    Origin,
    adapt,
    checkpoint_files,
    load_checkpoint,
    open_checkpoint,
    sha256,
)
from nfnet_eqx.checkpoints._classes import ClassOrder, match_classes
from nfnet_eqx.checkpoints._classify import Prediction, classify, predict
from nfnet_eqx.checkpoints._lazy import LazyArray
from nfnet_eqx.checkpoints._runs import (
    EXPORT_NAME,
    RUN_NAME,
    STATES_NAME,
    Run,
    exported_by,
    load_run,
    read_run,
    run_of,
    saved_steps,
)
from nfnet_eqx.checkpoints._save import PARTS, save_pretrained, write_verified
from nfnet_eqx.checkpoints._tensors import INDEX_SUFFIX, Placement, checked_tensors, load_tensors, read_index
from nfnet_eqx.checkpoints._timm import config_to_timm

__all__ = [
    "CARD_NAME",
    "CONFIG_NAME",
    "EXPORT_NAME",
    "FOREIGN_SUFFIXES",
    "INDEX_NAME",
    "INDEX_SUFFIX",
    "PARTS",
    "RUN_NAME",
    "STATES_NAME",
    "WEIGHTS_NAME",
    "Checkpoint",
    "ClassOrder",
    "Conversion",
    "History",
    "LazyArray",
    "Opened",
    "Origin",
    "Placement",
    "Prediction",
    "Run",
    "adapt",
    "card_on_hub",
    "checked_tensors",
    "checkpoint_files",
    "classify",
    "config_to_timm",
    "exported_by",
    "load_checkpoint",
    "load_run",
    "load_tensors",
    "match_classes",
    "open_checkpoint",
    "predict",
    "read_index",
    "read_run",
    "run_of",
    "save_pretrained",
    "saved_steps",
    "sha256",
    "write_card",
    "write_verified",
]
