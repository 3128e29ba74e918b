"""The optimizers of the papers, as optax transformations."""

from nfnet_eqx.optim._adaptive import adafactor, adamw
from nfnet_eqx.optim._agc import agc, unit_norm
from nfnet_eqx.optim._ema import update_ema
from nfnet_eqx.optim._layer_decay import scale_by_layer
from nfnet_eqx.optim._sam import sam_ascent
from nfnet_eqx.optim._schedules import warmup_cosine, warmup_rsqrt
from nfnet_eqx.optim._sgd import nfnet_sgd

__all__ = [
    "adafactor",
    "adamw",
    "agc",
    "nfnet_sgd",
    "sam_ascent",
    "scale_by_layer",
    "unit_norm",
    "update_ema",
    "warmup_cosine",
    "warmup_rsqrt",
]
