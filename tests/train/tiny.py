"""The network that the tests of training train."""

import dataclasses

import nfnet_eqx as nfx
from nfnet_eqx.images._preprocess import Preprocess

TINY = dataclasses.replace(
    nfx.get_config("dm_nfnet_f0"),
    depths=(1,),
    widths=(16,),
    stem_widths=(8,),
    stem_strides=(2,),
    stage_strides=(2,),
    group_size=8,
    num_features=32,
    num_classes=4,
)
PREPROCESS = Preprocess(input_size=(16, 16), crop_pct=1.0, crop_mode="squash")
