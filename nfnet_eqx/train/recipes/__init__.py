"""The recipes: each a function from a model, data and a folder to a complete `TrainConfig`."""

from nfnet_eqx.train.recipes._cifar10 import cifar10
from nfnet_eqx.train.recipes._finetune import finetune
from nfnet_eqx.train.recipes._imagenet import imagenet
from nfnet_eqx.train.recipes._smoke import smoke
from nfnet_eqx.train.recipes._vit import vit
from nfnet_eqx.train.recipes._web import web

RECIPES = {"imagenet": imagenet, "web": web, "vit": vit, "finetune": finetune, "cifar10": cifar10, "smoke": smoke}

__all__ = ["RECIPES", "cifar10", "finetune", "imagenet", "smoke", "vit", "web"]
