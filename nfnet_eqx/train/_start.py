"""What a run starts from: the network and its preprocessing, for the classes of the data."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.random as jr

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import Source
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import VARIANTS, NFNet, NFNetConfig, named_parameters, replace_head, skeleton, with_parameters
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.zoo import from_pretrained


class Start(NamedTuple):
    """The network before the first step.

    Attributes:
        config: its configuration.
        preprocess: of the pictures, at the sizes of the run.
        architecture: what it is called.
        base_model: the checkpoint that its parameters come from; `None` for random ones.
        make: gives the network with its parameters; a run that is resumed does without.
    """

    config: NFNetConfig
    preprocess: Preprocess
    architecture: str
    base_model: str | None
    make: Callable[[], NFNet]


def find_start(config: TrainConfig, num_classes: int) -> Start:
    """The network that `config.model` names, with a head for `num_classes`.

    Raises:
        InputError: there is no such architecture or checkpoint, or it is broken.
    """
    ckpt = None
    if config.model in VARIANTS:
        network = _adapted(VARIANTS[config.model].config, config, num_classes)
        base, architecture = _published_preprocess(network, config), config.model
    else:
        ckpt = from_pretrained(config.model)
        if config.keep_head and ckpt.config.num_classes != num_classes:
            raise InputError(
                f"keep_head: model (={config.model}) has {ckpt.config.num_classes} classes, the data {num_classes}"
            )
        network = _adapted(ckpt.config, config, num_classes)
        base, architecture = ckpt.preprocess, ckpt.architecture
    pretrained = None if ckpt is None or config.fresh else ckpt

    if network.in_channels != 3:
        raise InputError(f"model (={config.model}) takes {network.in_channels} channels; pictures have 3 (RGB)")

    def make() -> NFNet:
        if pretrained is None:
            return eqx.filter_jit(NFNet)(network, key=jr.key(config.seed))
        model = pretrained.model
        if not config.keep_head:
            model = replace_head(model, num_classes, key=jr.key(config.seed))
        return with_parameters(skeleton(network), named_parameters(model))

    preprocess = dataclasses.replace(
        config.preprocess or base,
        input_size=(config.image_size, config.image_size),
        test_input_size=(config.eval_size, config.eval_size),
    )
    return Start(network, preprocess, architecture, None if pretrained is None else str(pretrained.source), make)


def count_classes(config: TrainConfig, source: Source, held_out: Source) -> int:
    """Classes of the head.

    Raises:
        InputError: the two sets of pictures have different classes, or `config.num_classes` is too small for them.
    """
    if source.classes is not None and held_out.classes is not None and source.classes != held_out.classes:
        alien = sorted(set(source.classes) ^ set(held_out.classes))[:5]
        raise InputError(
            f"{source.name} and {held_out.name} do not have the same classes ({len(source.classes)} and "
            f"{len(held_out.classes)}): {', '.join(alien) or 'their order differs'}; give data of one set of classes"
        )
    needed = max(source.num_classes, held_out.num_classes)
    if config.num_classes is not None and config.num_classes < needed:
        raise InputError(
            f"num_classes (={config.num_classes}) is less than the {needed} classes of {source.name}; leave it out, "
            "and the data decides"
        )
    return config.num_classes or needed


def _adapted(network: NFNetConfig, config: TrainConfig, num_classes: int) -> NFNetConfig:
    rates = {"drop_rate": config.drop_rate, "stochastic_depth": config.stochastic_depth}
    given = {name: rate for name, rate in rates.items() if rate is not None}
    return dataclasses.replace(network, num_classes=num_classes, **given)


def _published_preprocess(network: NFNetConfig, config: TrainConfig) -> Preprocess:
    """How the networks of either numerics were evaluated."""
    if network.numerics == "timm":
        return Preprocess()
    return Preprocess.deepmind(config.image_size, config.eval_size)
