"""The optimizer of the papers, as optax transformations."""

from nfnet_eqx.optim._agc import agc, unit_norm
from nfnet_eqx.optim._ema import update_ema
from nfnet_eqx.optim._sgd import nfnet_sgd, warmup_cosine

__all__ = ["agc", "nfnet_sgd", "unit_norm", "update_ema", "warmup_cosine"]
