"""What a plan consists of: the networks that a budget could train, which is chosen, and where that comes from."""

import dataclasses
from typing import Any

from nfnet_eqx.scaling._budget import Budget
from nfnet_eqx.scaling._equal_compute import Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One network, trained for as long as the budget lasts.

    Attributes:
        model: its name.
        parameters: its learnable numbers.
        flops_per_image: of training.
        images: images seen, repeats counted.
        epochs: passes over the data.
        loss: that the fit predicts, in nats; `None` without a fit.
        best_in: the share of the fit's samples in which no other network has a lower loss; `None` without samples.
    """

    model: str
    parameters: float
    flops_per_image: float
    images: float
    epochs: float
    loss: Estimate | None = None
    best_in: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best size and length where networks of every size exist.

    Attributes:
        parameters: learnable numbers, with the interval of the fit's samples where it has some.
        images: images seen.
    """

    parameters: Estimate
    images: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputePlan:
    """What to do with a budget.

    Attributes:
        budget: what may be spent.
        data_images: images of the data; an epoch is one pass over them.
        image_size: side of the images in pixels; `None`: as in the fit's runs.
        source: what the plan follows from.
        optimum: the best size and length by it.
        candidates: the chosen network and its neighbours, by size, each at exactly the budget.
        chosen: one of them.
        learning_rates: what to try, in this order, as `optimizer.learning_rate` states it (for a batch of 256).
        price: of the budget, in the currency that an hour's price was given in; `None` if it was not.
        notes: what the fit says that its data cannot carry; empty without one.
        extrapolated: what lies outside of what the source has seen, in words.
        derived: what is our arithmetic or assumption and not the source's, in words.
        command: the line that trains the chosen network; `None` where it is none of `nfnet_eqx.list_models()`.
    """

    budget: Budget
    data_images: float
    image_size: int | None
    source: str
    optimum: Optimum
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    learning_rates: tuple[float, ...]
    price: float | None
    notes: tuple[str, ...]
    extrapolated: tuple[str, ...]
    derived: tuple[str, ...]
    command: str | None

    def to_json(self) -> dict[str, Any]:
        """All of it in JSON's types, nothing rounded."""
        return dataclasses.asdict(self) | {
            "optimum": {name: value._asdict() for name, value in vars(self.optimum).items()},
            "candidates": [_as_json(candidate) for candidate in self.candidates],
            "chosen": _as_json(self.chosen),
        }


def _as_json(candidate: Candidate) -> dict[str, Any]:
    loss = None if candidate.loss is None else candidate.loss._asdict()
    return dataclasses.asdict(candidate) | {"loss": loss}
