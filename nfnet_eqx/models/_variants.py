"""The NFNets as one table: every name, its architecture, and the picture sizes it is trained and tested at.

Names and settings are those of timm (36 of them); `dm_nfnet_f7` and the wider `dm_nfnet_f0_plus` ... `dm_nfnet_f7_plus`
follow DeepMind's released code.

References:
    2102.06171, tables 1 and 3, section 4 and appendix A.3 (F0-F6, the "+" models); 2310.16764 (F3, F7 and "+" at
    scale); 2101.08692 (NF-ResNet, NF-RegNet).
"""

import dataclasses

from nfnet_eqx.models._config import NFNetConfig, make_divisible
from nfnet_eqx.models._network import Variant

_F_DEPTHS = (1, 2, 6, 3)
_F_WIDTHS = (256, 512, 1536, 1536)
_F_PLUS_WIDTHS = (384, 768, 2048, 2048)
_F_SIZES = ((192, 256), (224, 320), (256, 352), (320, 416), (384, 512), (416, 544), (448, 576), (480, 608))
_DEEP_STEM_STRIDES = (2, 1, 1, 2)
# The widths of the RegNet that each NF-RegNet takes three quarters of.
REGNET_WIDTHS = {
    "nf_regnet_b0": (48, 104, 208, 440),
    "nf_regnet_b1": (48, 104, 208, 440),
    "nf_regnet_b2": (56, 112, 232, 488),
    "nf_regnet_b3": (56, 128, 248, 528),
    "nf_regnet_b4": (64, 144, 288, 616),
    "nf_regnet_b5": (80, 168, 336, 704),
}
# Depths, training and test size.
_REGNETS = {
    "nf_regnet_b0": ((1, 3, 6, 6), 192, 256),
    "nf_regnet_b1": ((2, 4, 7, 7), 256, 288),
    "nf_regnet_b2": ((2, 4, 8, 8), 240, 272),
    "nf_regnet_b3": ((2, 5, 9, 9), 288, 320),
    "nf_regnet_b4": ((2, 6, 11, 11), 320, 384),
    "nf_regnet_b5": ((3, 7, 14, 14), 384, 456),
}


def _f_depths(size: int) -> tuple[int, ...]:
    return tuple(depth * (size + 1) for depth in _F_DEPTHS)


def _dm_nfnet(size: int, widths: tuple[int, ...] = _F_WIDTHS) -> NFNetConfig:
    return NFNetConfig(
        depths=_f_depths(size),
        widths=widths,
        stem_widths=(16, 32, 64, widths[0] // 2),
        stem_strides=_DEEP_STEM_STRIDES,
        gamma_in="activation",
        padding="same",
        skipinit=True,
        num_features=2 * widths[-1],
        numerics="deepmind",
    )


def _nfnet(size: int) -> NFNetConfig:
    return NFNetConfig(
        depths=_f_depths(size),
        widths=_F_WIDTHS,
        stem_widths=(16, 32, 64, 128),
        stem_strides=_DEEP_STEM_STRIDES,
        num_features=3072,
    )


def _nfnet_light(
    size: int, num_features: int, widths: tuple[int, ...] = _F_WIDTHS, group_size: int = 64, eca: bool = False
) -> NFNetConfig:
    return NFNetConfig(
        depths=_f_depths(size),
        widths=widths,
        stem_widths=(16, 32, 64, 128),
        stem_strides=_DEEP_STEM_STRIDES,
        bottleneck_ratio=0.25,
        group_size=group_size,
        activation="silu",
        attention="eca" if eca else "se",
        se_ratio=0.25,
        num_features=num_features,
    )


def _nf_regnet(depths: tuple[int, ...], channels: tuple[int, ...]) -> NFNetConfig:
    # All widths are three quarters of the RegNet's, in multiples of 8.
    widths = tuple(make_divisible(0.75 * c, 8) for c in channels)
    return NFNetConfig(
        depths=depths,
        widths=widths,
        stem_widths=widths[:1],
        stem_strides=(2,),
        stage_strides=(2, 2, 2, 2),
        block="regnet",
        bottleneck_ratio=2.25,
        extra_conv=False,
        group_size=8,
        activation="silu",
        num_features=make_divisible(0.75 * (1280 * channels[-1] // 440), 8),
    )


def _nf_resnet(depths: tuple[int, ...], attention: str | None = None) -> NFNetConfig:
    return NFNetConfig(
        depths=depths,
        widths=(256, 512, 1024, 2048),
        stem_widths=(64,),
        stem_strides=(2,),
        stem_kernel=7,
        stem_pool=True,
        bottleneck_ratio=0.25,
        extra_conv=False,
        group_size=None,
        activation="relu",
        attention=attention,  # pyright: ignore[reportArgumentType]
        se_ratio=1 / 16,
    )


def _family() -> dict[str, Variant]:
    rows: dict[str, Variant] = {}
    for size, sizes in enumerate(_F_SIZES):
        rows[f"dm_nfnet_f{size}"] = Variant(_dm_nfnet(size), *sizes)
    for size, sizes in enumerate(_F_SIZES):
        rows[f"dm_nfnet_f{size}_plus"] = Variant(_dm_nfnet(size, _F_PLUS_WIDTHS), *sizes)
    for size, sizes in enumerate(_F_SIZES):
        rows[f"nfnet_f{size}"] = Variant(_nfnet(size), *sizes)
    rows["nfnet_l0"] = Variant(_nfnet_light(0, 2304), 224, 288)
    rows["eca_nfnet_l0"] = Variant(_nfnet_light(0, 2304, eca=True), 224, 288)
    rows["eca_nfnet_l1"] = Variant(_nfnet_light(1, 3072, eca=True), 256, 320)
    rows["eca_nfnet_l2"] = Variant(_nfnet_light(2, 3072, eca=True), 320, 384)
    rows["eca_nfnet_l3"] = Variant(_nfnet_light(3, 3072, eca=True), 352, 448)
    for name, (depths, *sizes) in _REGNETS.items():
        rows[name] = Variant(_nf_regnet(depths, REGNET_WIDTHS[name]), *sizes)
    resnet_depths = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
    for prefix, attention in (("nf_resnet", None), ("nf_seresnet", "se"), ("nf_ecaresnet", "eca")):
        for layers, depths in resnet_depths.items():
            sizes = (256, 288) if (prefix, layers) == ("nf_resnet", 50) else (224, 224)
            rows[f"{prefix}{layers}"] = Variant(_nf_resnet(depths, attention), *sizes)
    test = _nfnet_light(0, 192, widths=(32, 64, 96, 128), group_size=8)
    rows["test_nfnet"] = Variant(dataclasses.replace(test, depths=(1, 1, 1, 1)), 160, 160)
    return rows


NFNETS: dict[str, Variant] = _family()
