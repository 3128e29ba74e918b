"""The three forms of a scaling law, as functions of arrays."""

import dataclasses

import numpy as np
from jaxtyping import Float

Numbers = float | Float[np.ndarray, "..."]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """The lower envelope over compute: `L = E + a C^-b`.

    Attributes:
        E: what no compute removes, in nats.
        a: scale, in nats.
        b: exponent of compute.
    """

    E: float
    a: float
    b: float

    def loss(self, flops: Numbers) -> Numbers:
        """The loss that the best network reaches with so many training FLOPs."""
        return self.E + self.a * np.asarray(flops, np.float64) ** -self.b


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parametric:
    """Size and data apart: `L = E + A N^-alpha + B D^-beta`.

    Attributes:
        E: what neither removes, in nats.
        A: scale of the term of size.
        alpha: exponent of the parameters N.
        B: scale of the term of data.
        beta: exponent of the images seen, D.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, parameters: Numbers, images: Numbers) -> Numbers:
        """The loss of a network of so many parameters after so many images, each seen once."""
        return (
            self.E
            + self.A * np.asarray(parameters, np.float64) ** -self.alpha
            + self.B * np.asarray(images, np.float64) ** -self.beta
        )

    @property
    def size_exponent(self) -> float:
        """How the best number of parameters grows with compute: `N_opt ~ C^(beta / (alpha + beta))`."""
        return self.beta / (self.alpha + self.beta)

    @property
    def data_exponent(self) -> float:
        """How the best number of images grows with compute: `D_opt ~ C^(alpha / (alpha + beta))`."""
        return self.alpha / (self.alpha + self.beta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """Data that is seen again: `L = E + A N^-alpha + B T^-beta + G N^gamma U^-delta`.

    Attributes:
        E: what nothing removes, in nats.
        A: scale of the term of size.
        alpha: exponent of the parameters N.
        B: scale of the term of training.
        beta: exponent of the images seen, T, repeats counted.
        G: scale of the term of overfitting.
        gamma: how it grows with the parameters.
        delta: how it falls with the number of unique images U.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    G: float
    gamma: float
    delta: float

    def loss(self, parameters: Numbers, images: Numbers, unique_images: Numbers) -> Numbers:
        """The loss of a network of so many parameters after so many images, of which so many are different."""
        parameters = np.asarray(parameters, np.float64)
        return (
            self.E
            + self.A * parameters**-self.alpha
            + self.B * np.asarray(images, np.float64) ** -self.beta
            + self.G * parameters**self.gamma * np.asarray(unique_images, np.float64) ** -self.delta
        )

    @property
    def size_exponent(self) -> float:
        """How the best number of parameters grows with compute: `N_opt ~ C^(beta / (alpha + beta))`, of fresh data."""
        return self.beta / (self.alpha + self.beta)

    @property
    def data_exponent(self) -> float:
        """How the best number of images grows with compute: `D_opt ~ C^(alpha / (alpha + beta))`, of fresh data."""
        return self.alpha / (self.alpha + self.beta)


Law = PowerLaw | Parametric | Repeated
