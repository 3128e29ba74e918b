"""What every family of networks is to the rest of the library: a configuration, and a pure function of one image.

A family is a frozen dataclass that is a `NetworkConfig`, and a module that is a `Network`. Whatever opens, saves,
compares, trains or counts a network knows these two, and not the families.
"""

import abc
import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from nfnet_eqx._errors import InputError
from nfnet_eqx._fields import RATE, Bounds, shown, typed_fields

Numerics = Literal["timm", "deepmind"]

# A configuration may come from a stranger's file. Such bounds are far above any published network and low enough that
# nothing built from one can exhaust the machine before its weights are seen.
MAX_WIDTH = 65_536
MAX_BLOCKS = 256
MAX_CLASSES = 1_000_000

Taps = tuple[Float[Array, "channels height width"], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(abc.ABC):
    """The architecture of one network: what all families have in common.

    Attributes:
        in_channels: channels of the input.
        num_classes: outputs of the classifier; 0: no classifier, the network returns pooled features.
        drop_rate: dropout before the classifier, in training.
        stochastic_depth: drop rate of the last residual branches, in training; it rises linearly from 0.
        FAMILY: what the family is called where one is compared with another.
        DESCRIPTION: the same in a sentence.
        CITATION: its papers, in Markdown.
        BOUNDS: of the numbers among the fields.
    """

    FAMILY: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    CITATION: ClassVar[str]
    BOUNDS: ClassVar[dict[str, Bounds]] = {
        "in_channels": Bounds(1, MAX_WIDTH),
        "num_classes": Bounds(0, MAX_CLASSES),
        "drop_rate": RATE,
        "stochastic_depth": RATE,
    }

    in_channels: int = 3
    num_classes: int = 1000
    drop_rate: float = 0.0
    stochastic_depth: float = 0.0

    @property
    def numerics(self) -> Numerics:
        """Which of the two published functions of the same weights this is; where there is one, it is timm's."""
        return "timm"

    @property
    @abc.abstractmethod
    def feature_width(self) -> int:
        """Length of the pooled features, the input of the classifier."""

    @property
    @abc.abstractmethod
    def first_conv(self) -> str:
        """The name of the convolution that sees the image."""

    @property
    @abc.abstractmethod
    def classifier(self) -> str:
        """The name of the classifier, a linear layer."""

    @property
    @abc.abstractmethod
    def trial_size(self) -> int:
        """Side of a small image, in pixels, on which two networks can be compared."""

    @abc.abstractmethod
    def size_fault(self, height: int, width: int) -> str | None:
        """What an image of this size would have to be ("at least 32 pixels ..."); `None`: it can be used."""

    def with_numerics(self, numerics: Numerics) -> "NetworkConfig":
        """The architecture with one of the two published functions of the same weights.

        Raises:
            InputError: the family has no such function.
        """
        if numerics != self.numerics:
            raise InputError(
                f"numerics (={numerics!r}): a {self.FAMILY} has one function, {self.numerics!r}; leave numerics out"
            )
        return self

    def at_image_size(self, side: int) -> "NetworkConfig":
        """The architecture for images of another size, where its parameters depend on that."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; `from_dict` is the inverse."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Any:
        """A configuration from `to_dict`'s output.

        Raises:
            InputError: naming every key that is unknown or missing, and every value that is impossible.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}
        faults = []
        for name in (name for name in fields if name not in known):
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            faults.append(f"unknown key {shown(name)} (={shown(fields[name])}{meant})")
        faults += [
            f"{k!r} is missing" for k, f in known.items() if f.default is dataclasses.MISSING and k not in fields
        ]
        hint = ". Was it written by a newer nfnet_eqx?" if faults else ""
        values, wrong = typed_fields(cls, fields, cls.BOUNDS)
        if faults or wrong:
            raise InputError(f"{cls.__name__}: " + "; ".join(faults + wrong) + hint)
        return cls(**values)


class Network(eqx.Module):
    """A pure function of one image; `jax.vmap` makes it one of a batch.

    Attribute paths are timm's tensor names.

    Attributes:
        config: the architecture.
    """

    config: eqx.AbstractVar[Any]  # a family narrows it to its own class

    @abc.abstractmethod
    def features_and_logits(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Taps, Float[Array, " classes"]]:
        """What `features` and calling the network give, from one forward pass."""

    @abc.abstractmethod
    def with_classifier(self, num_classes: int, *, key: PRNGKeyArray) -> "Network":
        """The network with a fresh classifier; see `replace_head`."""

    @abc.abstractmethod
    def with_remat(self) -> "Network":
        """The network whose blocks' activations are computed again in the backward pass, to save memory."""

    def at_image_size(self, side: int) -> "Network":
        """The network for images of another size, where its parameters depend on that."""
        return self

    def __call__(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, " classes"]:
        """Logits of one image; pooled features if the configuration has no classes.

        Args:
            x: a normalized image, `(channels, height, width)`, floating point.
            key: randomness of dropout and stochastic depth; needed in training if their rates are not 0.
            inference: overrides the layers' own `inference` flags (`equinox.nn.inference_mode` sets those).

        Returns:
            `(num_classes,)`, or `(feature_width,)` where `num_classes` is 0, in `x`'s dtype.

        Raises:
            InputError: `x` has a wrong rank, dtype, channel count or size, or `key` is missing.
        """
        return self.features_and_logits(x, key=key, inference=inference)[1]

    def features(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Taps:
        """Feature maps of one image at timm's taps, in the order of the layers.

        An NFNet's: the stem's (its last convolution but one, or its only one, before the activation), each stage's but
        the last, and the final convolution's before its activation (the last stage's where there is none): strides 2,
        4, 8, 16 and 32 in the published networks. A ViT's: the patches' after each block.

        Arguments and errors are those of calling the network.

        Returns:
            A `(channels, height, width)` map for each tap.
        """
        return self.features_and_logits(x, key=key, inference=inference)[0]


class Remat(eqx.Module):
    """A block whose activations are computed again in the backward pass."""

    block: Callable[..., Array]

    def __call__(self, x: Array, *, key: PRNGKeyArray | None = None, inference: bool | None = None) -> Array:
        return eqx.filter_checkpoint(self.block)(x, key=key, inference=inference)


AnyNetwork = TypeVar("AnyNetwork", bound=Network)


def replaced(model: AnyNetwork, **fields: Any) -> AnyNetwork:
    """The network with other parts: `dataclasses.replace`, which cannot call a constructor that draws them itself."""
    copy = object.__new__(type(model))
    for field in dataclasses.fields(model):
        object.__setattr__(copy, field.name, fields.get(field.name, getattr(model, field.name)))
    return copy


def check_image(x: Shaped[Array | np.ndarray, "..."], config: NetworkConfig) -> None:
    """Refuses what is no image for the network.

    Raises:
        InputError: `x` has a wrong rank, dtype, channel count or size.
    """
    if x.ndim != 3:
        hint = "use jax.vmap(model)(x) for a batch" if x.ndim == 4 else "give one picture"
        raise InputError(f"x must be (channels, height, width), got shape {x.shape}; {hint}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x must be floating point, got {x.dtype}; normalize the picture first (Checkpoint.preprocess)"
        )
    channels, height, width = x.shape
    if channels != config.in_channels:
        hint = "; is it (height, width, channels)? use x.transpose(2, 0, 1)" if width == config.in_channels else ""
        raise InputError(f"x must have in_channels={config.in_channels} channels first, got shape {x.shape}{hint}")
    # A size that is a symbol (`jax.export`) is known when the function is called.
    if isinstance(height, int) and isinstance(width, int) and (fault := config.size_fault(height, width)):
        raise InputError(f"x must be {fault}, got {height} x {width}; resize the picture")


class Count(NamedTuple):
    """What a network costs.

    Attributes:
        parameters: learnable numbers.
        macs: multiply-adds of one forward pass on one picture: convolutions, attention and classifier. The papers'
            tables call them FLOPs.
    """

    parameters: int
    macs: int


class Variant(NamedTuple):
    """One row of a family: the architecture and its published picture sizes (train, test), in pixels a side."""

    config: Any  # of the family's own class
    train_size: int
    test_size: int
