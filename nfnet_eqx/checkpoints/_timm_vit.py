"""timm's settings of a vision transformer, to and from `ViTConfig`.

timm has many more than we do (layer scale, other norms, dropout within the blocks): whatever would make another
function of it is refused by its name; what changes nothing is accepted.

References:
    timm 1.0.31, `timm/models/vision_transformer.py` (Apache-2.0): the behaviour described here was read and measured
    there.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

from nfnet_eqx.checkpoints._timm_settings import (
    CLASSES,
    FLAG,
    INTEGER,
    NUMBER,
    POSITIVE,
    Kind,
    Reader,
    faults_of,
    is_integer,
)
from nfnet_eqx.models import VITS, ViTActivation, ViTConfig

_POOLS = {"map": "map", "token": "token", "mean": "avg"}
# Where a file does not say that its size is the only one, timm takes its class's default, whatever the name ends in.
_DEFAULT_SIZE = 224
_NORM_EPS = 1e-6


def _side(value: Any) -> Any:
    """One side of a square that timm writes as a number or as two."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1] else value


def _only(words: str, *values: Any) -> Kind:
    """A setting with values that change nothing, and others that would."""
    return Kind(f"{words}, nothing else is supported", lambda v: any(type(v) is type(x) and v == x for x in values))


_SQUARE = Kind("a positive integer (or two equal ones)", lambda v: is_integer(_side(v), 1))
_NO_RATE = _only("0", 0, 0.0)
_ACTIVATIONS = get_args(ViTActivation)
_KINDS = {
    "img_size": _SQUARE,
    "patch_size": _SQUARE,
    "in_chans": INTEGER,
    "num_classes": CLASSES,
    "global_pool": Kind(f"one of {tuple(_POOLS.values())}", lambda v: v in _POOLS.values()),
    **dict.fromkeys(("embed_dim", "depth", "num_heads"), POSITIVE),
    **dict.fromkeys(("mlp_ratio", "drop_rate", "drop_path_rate"), NUMBER),
    "reg_tokens": INTEGER,
    **dict.fromkeys(("qkv_bias", "class_token", "no_embed_class", "dynamic_img_size", "fix_init"), FLAG),
    "pool_include_prefix": FLAG,
    "fc_norm": Kind("true, false or null", lambda v: v is None or isinstance(v, bool)),
    "act_layer": Kind(f"one of {_ACTIVATIONS} or null", lambda v: v is None or v in ("", *_ACTIVATIONS)),
    "pos_embed": _only("'learn'", "learn"),
    "norm_layer": _only("'layernorm' or null", None, "", "layernorm", "LayerNorm", "layer_norm"),
    "embed_norm_layer": _only("null", None, ""),
    "attn_layer": _only("'attn'", "", "attn"),
    "init_values": _only("null (no layer scale)", None, 0, 0.0, False),
    "weight_init": Kind("a text", lambda v: isinstance(v, str)),
    "proj_bias": _only("true", True),
    "final_norm": _only("true", True),
    **dict.fromkeys(
        ("qk_norm", "scale_attn_norm", "scale_mlp_norm", "pre_norm", "dynamic_img_pad"), _only("false", False)
    ),
    **dict.fromkeys(("pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"), _NO_RATE),
    "use_naflex": _only("false", False, None),
}


def _given(config_json: Mapping[str, Any], pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"img_size": _DEFAULT_SIZE}
    input_size = pretrained_cfg.get("input_size")
    if pretrained_cfg.get("fixed_input_size") and isinstance(input_size, list | tuple):
        given["img_size"] = list(input_size[1:])
    if "global_pool" in config_json:
        given["global_pool"] = config_json["global_pool"]
    return given


def _faults(settings: dict[str, Any]) -> list[str]:
    """What in timm's settings is impossible, or is honoured by timm and cannot be by us."""
    faults = faults_of(settings, _KINDS)
    if faults:
        return faults
    prefix = settings["class_token"] or settings["reg_tokens"]
    pool = settings["global_pool"]
    if settings.get("pool_include_prefix") and prefix and pool != "token":
        faults.append(f"pool_include_prefix (=True) is not supported where global_pool is {pool!r}")
    if settings.get("fc_norm") not in (None, pool == "avg"):
        faults.append(f"fc_norm (={settings['fc_norm']}) is not supported where global_pool is {pool!r}")
    return faults


def _build(architecture: str, settings: dict[str, Any]) -> ViTConfig:
    """Settings of timm, which are valid one by one, as a configuration."""
    pools = {theirs: ours for ours, theirs in _POOLS.items()}
    prefix = settings["class_token"] or settings["reg_tokens"]
    fields = VITS[architecture].config.to_dict() | dict(
        image_size=_side(settings["img_size"]),
        patch_size=_side(settings["patch_size"]),
        width=settings["embed_dim"],
        depth=settings["depth"],
        heads=settings["num_heads"],
        mlp_width=int(settings["embed_dim"] * settings["mlp_ratio"]),
        pool=pools[settings["global_pool"]],
        class_token=settings["class_token"],
        registers=settings["reg_tokens"],
        positions="learned",
        prefix_positions=bool(prefix) and not settings["no_embed_class"],
        activation=settings["act_layer"] or "gelu",
        norm_eps=_NORM_EPS,
        qkv_bias=settings["qkv_bias"],
        drop_rate=settings["drop_rate"],
        stochastic_depth=settings["drop_path_rate"],
        in_channels=settings["in_chans"],
        num_classes=max(settings["num_classes"], 0),
    )
    return ViTConfig.from_dict(fields)


def _settings(config: ViTConfig) -> dict[str, Any]:
    """Everything that timm has to know of a network, in its words: `_build` makes the network of them again."""
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "num_classes": config.num_classes,
        "global_pool": _POOLS[config.pool],
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "mlp_ratio": _mlp_ratio(config),
        "qkv_bias": config.qkv_bias,
        "class_token": config.class_token,
        "reg_tokens": config.registers,
        "no_embed_class": config.prefix_tokens > 0 and not config.prefix_positions,
        "act_layer": config.activation,
    }


def _mlp_ratio(config: ViTConfig) -> float:
    """A ratio that makes `mlp_width` of the width again: timm cuts the product, which may lie just below."""
    ratio = config.mlp_width / config.width
    return ratio if int(config.width * ratio) == config.mlp_width else math.nextafter(ratio, math.inf)


# The table's names without our own.
_ARCHITECTURES = {name: _settings(variant.config) for name, variant in VITS.items() if name != "vit_micro_patch4_32"}


def _model_args(architecture: str, config: ViTConfig) -> dict[str, Any]:
    """The settings in which `config` differs from one of timm's architectures."""
    wanted, base = _settings(config), _ARCHITECTURES[architecture]
    # From a file timm starts with its class's size, by a name alone with what that was published with: SigLIP's trunks
    # have no classifier.
    from_file = base | {"img_size": _DEFAULT_SIZE}
    by_name = base | ({"num_classes": 0} if "siglip" in architecture else {})
    return {key: value for key, value in wanted.items() if value != from_file[key] or value != by_name[key]}


def _differences(config: ViTConfig, other: ViTConfig) -> list[str]:
    """The fields of `config` that make it another network than `other`."""
    ignored = {"drop_rate", "stochastic_depth"} | (set() if config.prefix_tokens else {"prefix_positions"})
    names = [field.name for field in dataclasses.fields(config) if field.name not in ignored]
    return [f"{name} (={getattr(config, name)})" for name in names if getattr(config, name) != getattr(other, name)]


READER = Reader(
    config=ViTConfig,
    architectures=_ARCHITECTURES,
    given=_given,
    faults=_faults,
    build=_build,
    model_args=_model_args,
    differences=_differences,
    global_pool=lambda config: _POOLS[config.pool],
)
