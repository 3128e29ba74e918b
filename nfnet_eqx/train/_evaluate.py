"""How good a network is on a set of pictures: every picture once, over all devices, with intervals."""

import dataclasses
from collections.abc import Iterable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, Float32, Int32, Int64, PyTree

from nfnet_eqx._errors import InputError
from nfnet_eqx.data import EvalBatch
from nfnet_eqx.models import Network
from nfnet_eqx.train._mesh import BATCH, REPLICATED, make_mesh, put, put_batch

Measure = Literal["top1", "top5", "loss"]
Precision = Literal["float32", "bfloat16"]

# Bootstrap draws that are in memory at a time.
_DRAWS = 2**18


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a network answered on a set of pictures, picture by picture, and what follows from it.

    Attributes:
        labels: the class of each picture.
        predictions: the class that the network finds most probable.
        ranks: how many classes it finds more probable than the label; 0: it is right. Of classes with equal logits the
            first one counts as more probable, and one that is not a number as more probable than any.
        losses: the softmax cross-entropy of each picture, in nats.
        num_classes: classes of the network.
        broken: pictures that could not be read; they are in none of the numbers.
    """

    labels: Int32[np.ndarray, " n"]
    predictions: Int32[np.ndarray, " n"]
    ranks: Int32[np.ndarray, " n"]
    losses: Float32[np.ndarray, " n"]
    num_classes: int
    broken: int = 0

    @property
    def top1(self) -> float:
        """Pictures whose label is the most probable class, in percent."""
        return float(self._values("top1").mean())

    @property
    def top5(self) -> float:
        """Pictures whose label is among the five most probable classes, in percent."""
        return float(self._values("top5").mean())

    @property
    def loss(self) -> float:
        """The mean softmax cross-entropy, in nats, whatever loss the network was trained with."""
        return float(self._values("loss").mean())

    @property
    def confusion(self) -> Int64[np.ndarray, "classes classes"]:
        """How many pictures of each class (row) were taken for each class (column)."""
        pairs = self.labels.astype(np.int64) * self.num_classes + self.predictions
        counts = np.bincount(pairs, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    @property
    def per_class_top1(self) -> Float[np.ndarray, " classes"]:
        """Top-1 of the pictures of each class, in percent; NaN for a class without pictures."""
        pictures = np.bincount(self.labels, minlength=self.num_classes)
        hits = np.bincount(self.labels[self.ranks == 0], minlength=self.num_classes)
        return np.where(pictures > 0, 100 * hits / np.maximum(pictures, 1), np.nan)

    def interval(
        self, which: Measure, *, level: float = 0.95, samples: int = 2000, seed: int = 0
    ) -> tuple[float, float]:
        """The bootstrap interval of a measure: how far it would move on other pictures of the same kind.

        Args:
            which: the measure.
            level: the share of the resampled sets whose measure lies inside.
            samples: how many sets are drawn, each of as many pictures as there are, with replacement.
            seed: of the draws; the same numbers give the same interval.

        Raises:
            InputError: `level` is no share, or `samples` is not positive.

        References:
            Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3: the percentile interval.
        """
        if not 0 < level < 1 or samples < 1:
            raise InputError(f"level (={level}) must lie between 0 and 1, samples (={samples}) must be at least 1")
        values, random, means = self._values(which), np.random.default_rng(seed), []
        block = max(1, _DRAWS // len(values))
        for start in range(0, samples, block):
            draws = random.integers(0, len(values), (min(block, samples - start), len(values)), dtype=np.int32)
            means.append(values[draws].mean(axis=1))
        low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _values(self, which: Measure) -> Float[np.ndarray, " n"]:
        """The numbers, one a picture, whose mean the measure is."""
        if which == "loss":
            return self.losses.astype(np.float64)
        return np.where(self.ranks < (1 if which == "top1" else 5), 100.0, 0.0)


def evaluate(
    model: Network,
    batches: Iterable[EvalBatch],
    *,
    mesh: Mesh | None = None,
    precision: Precision = "float32",
    num_pictures: int | None = None,
) -> Evaluation:
    """Runs a network over a stream of pictures, each batch split over the devices of a mesh.

    In several processes, each calls this with its own part of the batches and gets the whole result. A batch that the
    devices do not divide is filled up. Compiled once for each shape of a batch and each mesh.

    Args:
        model: the network; its parameters may be anywhere.
        batches: normalised pictures and labels; label -1 (filling, a broken picture) does not count.
        mesh: of one axis, `"data"`; by default of all devices.
        precision: of the network; logits and losses are float32.
        num_pictures: how many pictures the source has; those of them that do not come are `Evaluation.broken`. `None`:
            none are broken.

    Raises:
        InputError: the network has no classifier, a label is none of its classes, or there is no picture.
    """
    classes = model.config.num_classes
    if classes == 0:
        raise InputError("the network has no classifier (num_classes=0); load it with num_classes= for a new one")
    mesh = make_mesh() if mesh is None else mesh
    model = _on_mesh(model, mesh)
    running: list[_Answers] = []
    answers: list[_Answers] = []
    for batch in batches:
        batch = put_batch(_filled(batch, len(mesh.local_devices)), mesh)
        running.append(_answer(model, batch.image, batch.label, mesh, precision))
        if len(running) > 1:  # one batch runs while the next is read; more would only wait in line with their pictures
            answers.append(_checked(running.pop(0), classes))
    answers += [_checked(last, classes) for last in running]
    if not sum(len(part.labels) for part in answers):
        raise InputError("there is no picture to evaluate on: the data is empty, or none of it can be read")
    labels, predictions, ranks, losses = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    return Evaluation(
        labels=labels,
        predictions=predictions,
        ranks=ranks,
        losses=losses,
        num_classes=classes,
        broken=0 if num_pictures is None else num_pictures - len(labels),
    )


class _Answers(NamedTuple):
    """What the network says to the pictures of a batch."""

    labels: Int32[Array | np.ndarray, " b"]
    predictions: Int32[Array | np.ndarray, " b"]
    ranks: Int32[Array | np.ndarray, " b"]
    losses: Float32[Array | np.ndarray, " b"]


@eqx.filter_jit
def _answer(
    model: Network,
    images: Float32[Array, "b c h w"],
    labels: Int32[Array, " b"],
    mesh: Mesh,
    precision: Precision,
) -> _Answers:
    """The answers to a global batch, on every host.

    The forward pass runs inside `shard_map`: left to itself, XLA would run a grouped convolution on all of the batch on
    every device.
    """
    params, static = eqx.partition(model, eqx.is_array)

    def local(params: PyTree, images: Float32[Array, "b c h w"], labels: Int32[Array, " b"]) -> _Answers:
        network = eqx.combine(params, static)
        logits = jax.vmap(lambda image: network(image, inference=True))(images.astype(precision))
        return jax.vmap(_score)(logits.astype(jnp.float32), labels)

    split = jax.shard_map(local, mesh=mesh, in_specs=(REPLICATED, BATCH, BATCH), out_specs=BATCH)
    return jax.lax.with_sharding_constraint(split(params, images, labels), NamedSharding(mesh, REPLICATED))


def _score(logits: Float32[Array, " classes"], label: Int32[Array, ""]) -> _Answers:
    """The answer to one picture; for label -1 something that nobody looks at."""
    index = jnp.arange(len(logits), dtype=jnp.int32)
    own = logits[label]
    behind = (logits < own) | ((logits == own) & (index > label))
    return _Answers(
        labels=label,
        predictions=jnp.argmax(logits).astype(jnp.int32),
        # By what is not behind, so that a logit that is no number never makes a picture right.
        ranks=jnp.sum(~behind & (index != label), dtype=jnp.int32),
        losses=jax.nn.logsumexp(logits) - own,
    )


def _on_mesh(model: Network, mesh: Mesh) -> Network:
    """The network with its parameters on the mesh: where they are, if they are on it already, else copied to all."""
    params, static = eqx.partition(model, eqx.is_array)
    devices = set(mesh.devices.flat)
    if any(leaf.sharding.device_set != devices for leaf in jax.tree.leaves(params)):
        params = put(params, jax.tree.map(lambda _: REPLICATED, params), mesh)
    return eqx.combine(params, static)


def _filled(batch: EvalBatch, devices: int) -> EvalBatch:
    """This host's part of a batch, filled up to a multiple of its devices."""
    missing = -len(batch.label) % devices
    return batch._replace(
        image=np.pad(batch.image, ((0, missing), (0, 0), (0, 0), (0, 0))),
        label=np.pad(batch.label, (0, missing), constant_values=-1),
    )


def _checked(answers: _Answers, classes: int) -> _Answers:
    """The answers that count, on the host."""
    answers = jax.device_get(answers)
    if answers.labels.max(initial=0) >= classes:
        raise InputError(
            f"the data has a picture of class {answers.labels.max()}, the network has {classes} classes (0 to "
            f"{classes - 1}); evaluate it on data of its own classes"
        )
    return _Answers(*(values[answers.labels >= 0] for values in answers))
