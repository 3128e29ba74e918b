"""timm's settings of a normalizer-free network, to and from `NFNetConfig`.

timm's widths are scaled and rounded later; `NFNetConfig` holds the final numbers.

References:
    timm 1.0.31, `timm/models/nfnet.py` (Apache-2.0): the behaviour described here was read and measured there.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

from nfnet_eqx._errors import InputError
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
from nfnet_eqx.models import NFNETS, REGNET_WIDTHS, ActivationName, NFNetConfig, make_divisible, plan_blocks

_STEM_TYPES = ("", "7x7", "7x7_pool", "3x3", "3x3_pool", "deep", "deep_pool", "deep_tiered", "deep_quad")
_OPTIONAL = Kind("an integer or null", lambda v: v is None or is_integer(v))
_LIST = Kind(
    "a list of integers", lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(is_integer(n) for n in v)
)
_ANY = Kind("anything", lambda v: True)  # _attention_faults looks at it
_KINDS = {
    **dict.fromkeys(("in_chans", "output_stride"), INTEGER),
    **dict.fromkeys(("stem_chs", "group_size", "num_features"), _OPTIONAL),
    "ch_div": POSITIVE,
    "num_classes": CLASSES,
    **dict.fromkeys(("alpha", "attn_gain", "width_factor", "bottle_ratio", "std_conv_eps"), NUMBER),
    **dict.fromkeys(("drop_rate", "drop_path_rate"), NUMBER),
    **dict.fromkeys(("reg", "extra_conv", "gamma_in_act", "same_padding", "skipinit", "zero_init_fc"), FLAG),
    **dict.fromkeys(("depths", "channels"), _LIST),
    "global_pool": Kind("'avg', the only pooling supported", lambda v: v == "avg"),
    "stem_type": Kind(f"one of {_STEM_TYPES}", lambda v: v in _STEM_TYPES),
    "act_layer": Kind(f"one of {get_args(ActivationName)}", lambda v: v in get_args(ActivationName)),
    **dict.fromkeys(("attn_layer", "attn_kwargs"), _ANY),
}


def _given(config_json: Mapping[str, Any], pretrained_cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {"global_pool": config_json.get("global_pool", "avg"), "output_stride": 32}


def _faults(settings: dict[str, Any]) -> list[str]:
    """What in timm's settings is impossible, or is honoured by timm and cannot be by us."""
    faults = faults_of(settings, _KINDS)
    if not faults and len(settings["channels"]) < len(settings["depths"]):
        faults.append(f"depths (={settings['depths']}) has more stages than channels (={settings['channels']})")
    return faults + _attention_faults(settings["attn_layer"], settings["attn_kwargs"])


def _attention_faults(layer: Any, kwargs: Any) -> list[str]:
    """The attention layers of timm have options that no NFNet uses; each is refused unless it changes nothing."""
    kind = _attention(layer)
    if kind is None:
        return []
    if kind not in ("se", "eca"):
        return [f"attn_layer must be 'se', 'eca' or null, got {layer!r}"]
    if kwargs is not None and not isinstance(kwargs, dict):
        return [f"attn_kwargs must be an object, got {kwargs!r}"]

    def number(value: Any) -> bool:
        return type(value) in (int, float) and 0 < abs(value) < 1e6

    def positive(value: Any) -> bool:
        return type(value) is int and 0 < value < 2**31

    without_effect = (lambda _: True,)
    checks: dict[str, Any] = {
        "se": {
            "rd_ratio": number,
            "rd_channels": lambda v: v is None or positive(v),
            "rd_divisor": positive,
            "add_maxpool": lambda v: v is False,
            "bias": lambda v: v is True,
            "act_layer": lambda v: v == "relu",
            "norm_layer": lambda v: v is None,
            "gate_layer": lambda v: v == "sigmoid",
        },
        # With `channels` given, as always here, timm takes the kernel from them; the hidden layer is use_mlp's.
        "eca": {
            "gamma": number,
            "beta": lambda v: type(v) in (int, float) and abs(v) < 1e6,
            "use_mlp": lambda v: v is False,
            "gate_layer": lambda v: v == "sigmoid",
            **dict.fromkeys(("kernel_size", "act_layer", "rd_ratio", "rd_channels", "rd_divisor"), *without_effect),
        },
    }[kind]
    return [
        f"attn_kwargs {key!r} (={value!r}) is not supported"
        for key, value in (kwargs or {}).items()
        if key not in checks or not checks[key](value)
    ]


def _attention(layer: Any) -> Any:
    """The kind of attention that timm's `attn_layer` means."""
    if isinstance(layer, str):
        return layer.lower() or None
    return "se" if layer is True else (layer or None)


def _build(architecture: str, settings: dict[str, Any]) -> NFNetConfig:
    """Settings of timm, which are valid one by one, as a configuration."""

    def scaled(width: int) -> int:
        return make_divisible(width * settings["width_factor"], settings["ch_div"])

    depths = tuple(settings["depths"])
    stem_widths, stem_strides, stem_kernel, stem_pool = _stem(
        settings["stem_type"], scaled(settings["stem_chs"] or settings["channels"][0])
    )
    stem_stride = math.prod(stem_strides) * (2 if stem_pool else 1)
    group_size = settings["group_size"] or None
    attention = _attention(settings["attn_layer"])
    kwargs = settings["attn_kwargs"] or {}
    attention_fields: dict[str, Any] = {}
    if attention == "se":
        attention_fields = {"se_ratio": kwargs.get("rd_ratio", 1 / 16), "se_divisor": kwargs.get("rd_divisor", 8)}
        if kwargs.get("rd_channels"):
            # A fixed hidden width: what a ratio of almost nothing, rounded up to one divisor, is too.
            attention_fields = {"se_ratio": 1e-3, "se_divisor": kwargs["rd_channels"]}
    elif attention == "eca":
        attention_fields = {"eca_gamma": kwargs.get("gamma", 2.0), "eca_beta": kwargs.get("beta", 1.0)}
    fields = NFNETS[architecture].config.to_dict() | dict(
        depths=depths,
        widths=tuple(scaled(width) for width in settings["channels"][: len(depths)]),
        stem_widths=stem_widths,
        stem_strides=stem_strides,
        stem_kernel=stem_kernel,
        stem_pool=stem_pool,
        stage_strides=(1 if stem_stride > 2 else 2, *(2 for _ in depths[1:])),
        block="regnet" if settings["reg"] else "resnet",
        bottleneck_ratio=settings["bottle_ratio"],
        bottleneck_floor=group_size is None or group_size % settings["ch_div"] == 0,
        extra_conv=settings["extra_conv"],
        group_size=group_size,
        activation=settings["act_layer"],
        gamma_in="activation" if settings["gamma_in_act"] else "weight",
        padding="same" if settings["same_padding"] else "symmetric",
        skipinit=settings["skipinit"],
        alpha=settings["alpha"],
        attention=attention,
        attention_gain=settings["attn_gain"],
        num_features=scaled(settings["num_features"]) if settings["num_features"] else None,
        channel_divisor=settings["ch_div"],
        std_conv_eps=settings["std_conv_eps"],
        numerics="timm",
        drop_rate=settings["drop_rate"],
        stochastic_depth=settings["drop_path_rate"],
        output_stride=settings["output_stride"],
        in_channels=settings["in_chans"],
        num_classes=max(settings["num_classes"], 0),
        zero_init_head=settings["zero_init_fc"],
        **attention_fields,
    )
    config = NFNetConfig.from_dict(fields)
    if attention == "se" and kwargs.get("rd_channels"):
        hidden = {make_divisible(w * 1e-3, kwargs["rd_channels"], 0.0) for w in _attention_widths(config)}
        if hidden != {kwargs["rd_channels"]}:
            raise InputError(f"attn_kwargs 'rd_channels' (={kwargs['rd_channels']}) is not supported here")
    return config


def _attention_widths(config: NFNetConfig) -> set[int]:
    blocks = [block for stage in plan_blocks(config) for block in stage]
    return {block.mid_width if config.block == "regnet" else block.out_width for block in blocks}


def _stem(kind: str, width: int) -> tuple[tuple[int, ...], tuple[int, ...], int, bool]:
    """Widths, strides, kernel and pool of timm's stems."""
    pool = kind.endswith("_pool")
    match kind.removesuffix("_pool"):
        case "deep_quad":
            return (width // 8, width // 4, width // 2, width), (2, 1, 1, 2), 3, pool
        case "deep_tiered":
            return (3 * width // 8, width // 2, width), (2, 1, 1), 3, pool
        case "deep":
            return (width // 2, width // 2, width), (2, 1, 1), 3, pool
        case "3x3":
            return (width,), (2,), 3, pool
        case _:
            return (width,), (2,), 7, pool


def _stem_type(config: NFNetConfig) -> str | None:
    """The name of a stem in timm; `None` where it has none."""
    wanted = (config.stem_widths, config.stem_strides, config.stem_kernel, config.stem_pool)
    return next((kind for kind in _STEM_TYPES[1:] if _stem(kind, config.stem_widths[-1]) == wanted), None)


def _settings(config: NFNetConfig) -> dict[str, Any]:
    """Everything that timm has to know of a network, in its words: `_build` makes the network of them again."""
    attention_kwargs: dict[str, Any] = {}
    if config.attention == "se":
        attention_kwargs = {"rd_ratio": config.se_ratio, "rd_divisor": config.se_divisor}
    elif config.attention == "eca" and (config.eca_gamma, config.eca_beta) != (2.0, 1.0):
        attention_kwargs = {"gamma": config.eca_gamma, "beta": config.eca_beta}
    return {
        "depths": list(config.depths),
        "channels": list(config.widths),
        "stem_chs": config.stem_widths[-1],
        "num_features": config.num_features or 0,
        "width_factor": 1.0,
        "stem_type": _stem_type(config),
        "reg": config.block == "regnet",
        "bottle_ratio": config.bottleneck_ratio,
        "extra_conv": config.extra_conv,
        "group_size": config.group_size or 0,
        "ch_div": config.channel_divisor,
        "act_layer": config.activation,
        "gamma_in_act": config.gamma_in == "activation",
        "same_padding": config.padding == "same",
        "skipinit": config.skipinit,
        "alpha": config.alpha,
        "attn_layer": config.attention or "",
        "attn_kwargs": attention_kwargs,
        "attn_gain": config.attention_gain,
        "std_conv_eps": config.std_conv_eps,
        "zero_init_fc": config.zero_init_head,
        "output_stride": config.output_stride,
        "in_chans": config.in_channels,
        "num_classes": config.num_classes,
    }


# What timm scales by `width_factor`.
_SCALED = ("channels", "stem_chs", "num_features")


def _architecture(name: str, config: NFNetConfig) -> dict[str, Any]:
    """All settings of one of timm's architectures. It says the NF-RegNets as RegNets whose widths are scaled."""
    if name not in REGNET_WIDTHS:
        return _settings(config)
    channels = list(REGNET_WIDTHS[name])
    scaled = {"channels": channels, "stem_chs": None, "num_features": 1280 * channels[-1] // 440}
    return _settings(config) | scaled | {"width_factor": 0.75}


# The family without those that only DeepMind's code has.
_ARCHITECTURES: dict[str, dict[str, Any]] = {
    name: _architecture(name, variant.config)
    for name, variant in NFNETS.items()
    if not name.endswith("_plus") and name != "dm_nfnet_f7"
}


def _model_args(architecture: str, config: NFNetConfig) -> dict[str, Any]:
    """The settings in which `config` differs from one of timm's architectures, as far as timm has them."""
    if _stem_type(config) is None:
        raise InputError(
            f"timm cannot build this network: it has no stem of widths {config.stem_widths}, strides "
            f"{config.stem_strides}, kernel {config.stem_kernel} and stem_pool={config.stem_pool}"
        )
    published = dataclasses.replace(NFNETS[architecture].config, numerics="timm")
    wanted, base = _settings(config), _settings(published)
    without_effect = () if config.attention else ("attn_kwargs", "attn_gain")
    different = {key for key in wanted if wanted[key] != base[key] and key not in without_effect}
    # Where the architecture scales its widths, one that differs takes all of them along.
    if different.intersection(_SCALED) and _ARCHITECTURES[architecture]["width_factor"] != 1.0:
        different.update(_SCALED, ["width_factor"])
    return {key: value for key, value in wanted.items() if key in different}


def _differences(config: NFNetConfig, other: NFNetConfig) -> list[str]:
    """The fields of `config` that make it another network than `other`, in training as in inference."""
    # What these decide is in the plan of the blocks, or is not part of the network that timm's files describe.
    planned = ("depths", "stage_strides", "bottleneck_ratio", "bottleneck_floor", "group_size", "channel_divisor")
    ignored = {*planned, "output_stride", "drop_rate", "stochastic_depth", "numerics"}
    ignored |= {"se_ratio", "se_divisor"} if config.attention != "se" else set()
    ignored |= {"eca_gamma", "eca_beta"} if config.attention != "eca" else set()
    ignored |= {"attention_gain"} if config.attention is None else set()
    fields = [field.name for field in dataclasses.fields(config)]
    different = [name for name in fields if name not in ignored and getattr(config, name) != getattr(other, name)]
    if _bare_plan(config) != _bare_plan(other):
        suspects = [name for name in (*planned, "output_stride") if getattr(config, name) != getattr(other, name)]
        different += suspects
    return [f"{name} (={getattr(config, name)})" for name in different]


def _bare_plan(config: NFNetConfig) -> Any:
    return plan_blocks(dataclasses.replace(config, stochastic_depth=0.0))


READER = Reader(
    config=NFNetConfig,
    architectures=_ARCHITECTURES,
    given=_given,
    faults=_faults,
    build=_build,
    model_args=_model_args,
    differences=_differences,
    global_pool=lambda config: "avg",
)
