"""What a run starts from: the network and its preprocessing, for the classes of the data."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax.random as jr
import numpy as np

from nfnet_eqx._errors import InputError
from nfnet_eqx.checkpoints import Checkpoint, match_classes
from nfnet_eqx.data import Example, Source
from nfnet_eqx.images import Preprocess
from nfnet_eqx.models import VARIANTS, Network, NetworkConfig, named_parameters, replace_head, skeleton, with_parameters
from nfnet_eqx.train._config import TrainConfig
from nfnet_eqx.zoo import from_pretrained

# What a network is called that was given by its configuration.
_UNNAMED = "unnamed"


class Start(NamedTuple):
    """The network before the first step.

    Attributes:
        config: its configuration.
        preprocess: of the images, at the sizes of the run.
        architecture: what it is called.
        base_model: the checkpoint that its parameters come from; `None` for random ones.
        labels: the names of its classes, where known.
        classes: its class of each class of the data.
    """

    config: NetworkConfig
    preprocess: Preprocess
    architecture: str
    base_model: str | None
    labels: tuple[str, ...] | None
    classes: tuple[int, ...]


def find_start(
    config: TrainConfig, num_classes: int, names: Sequence[str] | None = None
) -> tuple[Start, Network | None]:
    """The network that `config.model` names, with a head for the data.

    Args:
        config: the run's.
        num_classes: how many classes the data has, or the head is to have.
        names: those of the data's classes, where known.

    Returns:
        What the run starts from, and the network with the checkpoint's parameters, which nobody needs after the first
        step; `None` for random ones.

    Raises:
        InputError: there is no such architecture or checkpoint, or it is broken, or it does not fit the data.
    """
    model, ckpt, sizes = config.model, None, None
    if isinstance(model, NetworkConfig):
        network, architecture = model, _UNNAMED
    elif model in VARIANTS:
        variant = VARIANTS[model]
        network, architecture, sizes = variant.config, model, (variant.train_size, variant.test_size)
    else:
        ckpt = from_pretrained(model)
        network, architecture = ckpt.config, ckpt.architecture
        sizes = ckpt.preprocess.input_size[0], ckpt.preprocess.size(use_test_size=True)[0]
    if network.in_channels != 3:
        raise InputError(f"model (={architecture}) takes {network.in_channels} channels; images have 3 (RGB)")
    if config.keep_head and ckpt is None:
        raise InputError(f"keep_head: model (={architecture}) is an architecture, which has no classifier yet to keep")

    labels = tuple(names) if names is not None and len(names) == num_classes else None
    classes = tuple(range(num_classes if names is None else len(names)))
    if ckpt is not None and config.keep_head:
        labels, classes = _kept_classes(ckpt, config, num_classes, names)
        num_classes = ckpt.config.num_classes
    rates = {"drop_rate": config.drop_rate, "stochastic_depth": config.stochastic_depth}
    given = {name: rate for name, rate in rates.items() if rate is not None}
    network = dataclasses.replace(network, num_classes=num_classes, **given)

    image_size, eval_size = _sizes(config, architecture, sizes)
    for name, size in {"image_size": image_size, "eval_size": eval_size}.items():
        if fault := network.size_fault(size, size):
            raise InputError(f"{name} (={size}) must be {fault}")
    network = network.at_image_size(image_size)
    base = _published_preprocess(network, image_size, eval_size) if ckpt is None else ckpt.preprocess
    preprocess = dataclasses.replace(
        config.preprocess or base,
        input_size=(image_size, image_size),
        test_input_size=(eval_size, eval_size),
    )
    base_model = None if ckpt is None else str(ckpt.source)
    pretrained = None if ckpt is None else _pretrained(ckpt, network, image_size, config)
    return Start(network, preprocess, architecture, base_model, labels, classes), pretrained


def count_classes(config: TrainConfig, source: Source, held_out: Source) -> int:
    """Classes of the head.

    Raises:
        InputError: the two sets of images have different classes, or `config.num_classes` is too small for them.
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


class Relabelled:
    """Images of a source under the network's own numbers for their classes.

    Args:
        source: the images.
        classes: the network's class of each class of the source.
        num_classes: how many the network has.
    """

    def __init__(self, source: Source, classes: Sequence[int], num_classes: int):
        self.name, self.num_classes = source.name, num_classes
        self.classes = None  # the run knows the network's
        self._source, self._classes = source, tuple(classes)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        return example._replace(label=self._classes[example.label])


def relabelled(source: Source, start: Start) -> Source:
    """The source with the network's classes: itself, where it numbers them alike."""
    if start.classes == tuple(range(len(start.classes))):
        return source
    return Relabelled(source, start.classes, start.config.num_classes)


def _kept_classes(
    ckpt: Checkpoint, config: TrainConfig, num_classes: int, names: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, tuple[int, ...]]:
    """The names of a kept classifier's classes, the data's where it has none, and which of them the data's are."""
    order = match_classes(
        ckpt.labels,
        ckpt.config.num_classes,
        names,
        num_classes,
        order=config.class_order,
        checkpoint=f"keep_head: model (={config.model})",
    )
    classes = tuple(int(index) for index in order)
    labels = ckpt.labels
    if labels is None and names is not None and sorted(classes) == list(range(ckpt.config.num_classes)):
        labels = tuple(names[int(index)] for index in np.argsort(order))
    return labels, classes


def _pretrained(ckpt: Checkpoint, network: NetworkConfig, image_size: int, config: TrainConfig) -> Network:
    model = ckpt.model.at_image_size(image_size)
    if not config.keep_head:
        model = replace_head(model, network.num_classes, key=jr.key(config.seed))
    return with_parameters(skeleton(network), named_parameters(model))


def _sizes(config: TrainConfig, architecture: str, own: tuple[int, int] | None) -> tuple[int, int]:
    """Of an image in training and in evaluation."""
    if own is None and (config.image_size is None or config.eval_size is None):
        raise InputError(f"image_size and eval_size: model (={architecture}) has no sizes of its own; give both")
    train_size, eval_size = own or (0, 0)
    return config.image_size or train_size, config.eval_size or eval_size


def _published_preprocess(network: NetworkConfig, image_size: int, eval_size: int) -> Preprocess:
    """How the networks of either numerics were evaluated."""
    return Preprocess() if network.numerics == "timm" else Preprocess.deepmind(image_size, eval_size)
