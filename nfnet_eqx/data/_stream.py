"""The streams of batches: training pictures as a pure function of (seed, step), evaluation pictures in order.

Positions number the pictures of training from its start to its end, over all steps and hosts: `position // batch_size`
is the step, and a host's batches are contiguous parts of the global ones. What stands at a position depends on it and
the seed alone. So nothing of the pipeline needs to be saved, and hosts, threads and workers can be any number.
"""

import atexit
import contextlib
import dataclasses
import functools
import logging
import sys
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Literal, NamedTuple, TypeVar, cast

import absl.flags
import grain
import numpy as np
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from nfnet_eqx._errors import InputError
from nfnet_eqx.data._augment import Augment, vary
from nfnet_eqx.data._sources import Example, Source
from nfnet_eqx.images import decode_image

OnBroken = Literal["skip", "stop"]

_log = logging.getLogger(__name__)

# Pictures that a thread makes in one go: enough to hide the cost of handing them over, few enough to share a batch.
_PIECE = 16

# So many broken pictures in a row are no accident: the disk is gone, or it is no data set.
_MOST_BROKEN = 200


class Batch(NamedTuple):
    """This host's part of a training batch.

    Attributes:
        image: pictures in RGB.
        label: their classes.
        broken: how many pictures were skipped on the way to each.
    """

    image: UInt8[np.ndarray, "b s s 3"]
    label: Int32[np.ndarray, " b"]
    broken: Int32[np.ndarray, " b"]


class EvalBatch(NamedTuple):
    """This host's part of an evaluation batch.

    Attributes:
        image: transformed pictures; zeros where there is none.
        label: their classes; -1: padding, or a picture that is broken.
    """

    image: Float32[np.ndarray, "b c h w"]
    label: Int32[np.ndarray, " b"]


_B = TypeVar("_B", Batch, EvalBatch)


def decode(example: Example, *, orient: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an example in RGB, as `nfnet_eqx.images.open_image` gives them.

    Args:
        example: an encoded image or its pixels.
        orient: turn an encoded image upright as its EXIF data says.

    Raises:
        InputError: it is no image, damaged, truncated or too large; the message names it.
    """
    if isinstance(example.image, bytes):
        return decode_image(example.image, example.name, orient=orient)
    pixels = example.image[:, :, None] if example.image.ndim == 2 else example.image
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def train_stream(
    source: Source,
    augment: Augment,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    on_broken: OnBroken = "skip",
    num_threads: int = 16,
    num_workers: int = 0,
) -> Generator[Batch, None, None]:
    """Training batches without end, each epoch in another order.

    Args:
        source: the pictures.
        augment: how they are varied.
        image_size: height and width of what comes out.
        batch_size: pictures in a global batch, that of all hosts together.
        seed: what all randomness comes from, with the position.
        start: the first step: what comes first is what an unbroken run would see then.
        process_index: this host.
        process_count: number of hosts.
        on_broken: `"skip"`: the next good picture of the order takes the place of one that cannot be read; each is
            logged once, and counted. `"stop"`: it is an error.
        num_threads: decode and vary pictures, shared out among the workers where there are any.
        num_workers: processes to do so, beyond some sixteen threads. They start by `spawn`: a script needs its
            `if __name__ == "__main__":`.

    Returns:
        An iterator; `close()` it to stop its threads and workers.

    Raises:
        InputError: the hosts or the repeats do not divide the batch; or later: no picture can be read, or one cannot
            and `on_broken` is `"stop"`.
    """
    _check_batch(batch_size, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed (={seed}) must be from 0 to {2**32 - 1}")
    if augment.repeats > 1 and batch_size % (2 * augment.repeats):
        raise InputError(
            f"batch_size (={batch_size}) must be divisible by {2 * augment.repeats}: two pictures alternate,"
            f" {augment.repeats} times each"
        )
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    take = functools.partial(
        _take_training, source=source, order=order, augment=augment, size=image_size, seed=seed, on_broken=on_broken
    )
    per_host = batch_size // process_count
    pieces = _Pieces(take, start * batch_size + process_index * per_host, batch_size, per_host)
    if num_workers and not absl.flags.FLAGS.is_parsed():
        absl.flags.FLAGS.mark_as_parsed()  # Grain hands its flags to the workers
    return _run(pieces, lambda piece: Batch(piece.image, piece.label, piece.broken), None, num_threads, num_workers)


def eval_stream(
    source: Source,
    transform: Callable[[Image.Image], Float32[np.ndarray, "c h w"]],
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    on_broken: OnBroken = "skip",
    orient: bool = True,
    num_threads: int = 16,
) -> Generator[EvalBatch, None, None]:
    """Every picture once, in order. All batches have one shape, and all hosts as many of them.

    Args:
        source: the pictures.
        transform: what the network gets of a picture, for example a `Preprocess`.
        batch_size: pictures in a global batch, that of all hosts together.
        process_index: this host.
        process_count: number of hosts.
        on_broken: `"skip"`: a picture that cannot be read has the label -1, and is logged. `"stop"`: it is an error.
        orient: turn images upright as their EXIF data says. Published accuracies were measured without.
        num_threads: decode and transform pictures.

    Returns:
        An iterator; `close()` it to stop its threads before it ends.

    Raises:
        InputError: the hosts do not divide the batch; or later: a picture cannot be read and `on_broken` is `"stop"`.
    """
    _check_batch(batch_size, process_index, process_count)
    # Padding has the shape of a picture, and the first picture may be broken.
    blank = np.zeros_like(transform(Image.new("RGB", (256, 256))))
    take = functools.partial(
        _take_evaluation, source=source, transform=transform, blank=blank, on_broken=on_broken, orient=orient
    )
    per_host = batch_size // process_count
    pieces = _Pieces(take, process_index * per_host, batch_size, per_host)
    batches = -(-len(source) // batch_size)
    return _run(pieces, lambda piece: EvalBatch(piece.image, piece.label), batches, num_threads, 0)


def check_readable(source: Source, most: int = 64) -> None:
    """Find out before the work that its images can be read: looks at some of them until one can.

    Args:
        source: the images.
        most: how many are tried, spread over all of them; each costs a decoding, and usually the first one will do.

    Raises:
        InputError: none of those can be read.
    """
    faults = []
    for index in np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(int).tolist():
        try:
            decode(source[index])
            return
        except InputError as error:
            faults.append(str(error))
    raise InputError(
        f"{source.name}: none of {len(faults)} images of {len(source):,} can be read; the first: {faults[0]}"
    )


class _Piece(NamedTuple):
    """A part of a batch, or all of it. What went wrong travels as data: a worker process has a log of its own."""

    image: np.ndarray
    label: np.ndarray
    broken: np.ndarray
    faults: tuple[str, ...]


def _take_training(
    positions: range,
    *,
    source: Source,
    order: grain.MapDataset[int],
    augment: Augment,
    size: int,
    seed: int,
    on_broken: OnBroken,
) -> _Piece:
    @functools.lru_cache(maxsize=2)  # the two pictures that alternate
    def good(place: int) -> tuple[np.ndarray, int, list[str]]:
        faults = []
        for index in range(place, place + min(2 * len(source), _MOST_BROKEN)):  # twice: a whole epoch is among them
            try:
                example = source[cast(int, order[index])]
                return decode(example), example.label, faults
            except InputError as error:
                if on_broken == "stop":
                    raise
                faults.append(str(error))
        raise InputError(f"{source.name}: {len(faults)} pictures in a row cannot be read; the first: {faults[0]}")

    piece = _Piece(
        np.empty((len(positions), size, size, 3), np.uint8),
        np.empty(len(positions), np.int32),
        np.empty(len(positions), np.int32),
        (),
    )
    faults = []
    for row, position in enumerate(positions):
        # Repeats alternate with those of another picture, so that neighbours, which are mixed, are two pictures.
        pair, within = divmod(position, 2 * augment.repeats)
        pixels, piece.label[row], skipped = good(2 * pair + within % 2)
        piece.image[row] = vary(pixels, augment, size, np.random.Generator(np.random.Philox(key=[seed, position])))
        piece.broken[row] = len(skipped)
        faults += skipped
    return piece._replace(faults=tuple(faults))


def _take_evaluation(
    positions: range,
    *,
    source: Source,
    transform: Callable[[Image.Image], np.ndarray],
    blank: np.ndarray,
    on_broken: OnBroken,
    orient: bool,
) -> _Piece:
    image, label = np.repeat(blank[None], len(positions), 0), np.full(len(positions), -1, np.int32)
    faults = []
    for row, position in enumerate(positions[: max(len(source) - positions.start, 0)]):
        try:
            example = source[position]
            picture = Image.fromarray(decode(example, orient=orient))
            try:
                image[row] = transform(picture)
            except InputError as error:
                raise InputError(f"{example.name}: {error}") from None
            label[row] = example.label
        except InputError as error:
            if on_broken == "stop":
                raise
            faults.append(str(error))
    return _Piece(image, label, np.zeros_like(label), tuple(faults))


@dataclasses.dataclass(frozen=True)
class _Pieces:
    """One host's positions, cut into what a thread makes in one go.

    Attributes:
        take: makes the pictures at some positions.
        first: the host's first position.
        stride: positions from one batch to the next.
        per_host: the host's positions in a batch.
    """

    take: Callable[[range], _Piece]
    first: int
    stride: int
    per_host: int

    @property
    def size(self) -> int:
        """Positions in a piece: as many as divide the batch."""
        return max(size for size in range(1, _PIECE + 1) if self.per_host % size == 0)

    def __call__(self, index: int) -> _Piece:
        batch, piece = divmod(index, self.per_host // self.size)
        first = self.first + batch * self.stride + piece * self.size
        return self.take(range(first, first + self.size))


def _run(
    pieces: _Pieces, finish: Callable[[_Piece], _B], batches: int | None, num_threads: int, num_workers: int
) -> Generator[_B, None, None]:
    """Makes pieces in threads or workers, joins them in a thread of its own, and logs each fault once."""
    count = pieces.per_host // pieces.size
    threads = max(num_threads // max(num_workers, 1), 1)
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, count))
    # Pieces, not batches, are what is parallel: a first batch is soon there, and only two or three are in memory.
    dataset = grain.MapDataset.range(sys.maxsize if batches is None else batches * count).map(pieces)
    dataset = dataset.to_iter_dataset(read)
    if num_workers:
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=max(2, count // num_workers))
        )
    dataset = dataset.batch(count, batch_fn=_join)
    stream = _log_faults(grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=1), finish)
    _running.add(stream)
    return stream


def _log_faults(dataset: grain.IterDataset[_Piece], finish: Callable[[_Piece], _B]) -> Generator[_B, None, None]:
    iterator = iter(dataset)
    logged = set()
    try:
        for batch in iterator:
            for fault in batch.faults:
                if fault not in logged:
                    logged.add(fault)
                    _log.warning("skipped: %s", fault)
            yield finish(batch)
    finally:
        iterator.close()


# A program may end without closing its streams. Grain's own clean-up comes too late then: tracebacks from half of an
# interpreter, and shared memory that outlives it.
_running: weakref.WeakSet[Generator] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for stream in list(_running):
        with contextlib.suppress(ValueError):  # it runs in another thread
            stream.close()


def _join(pieces: Sequence[_Piece]) -> _Piece:
    return _Piece(
        np.concatenate([piece.image for piece in pieces]),
        np.concatenate([piece.label for piece in pieces]),
        np.concatenate([piece.broken for piece in pieces]),
        tuple(fault for piece in pieces for fault in piece.faults),
    )


def _check_batch(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise InputError(f"batch_size (={batch_size}) must be positive and divisible by the {process_count} hosts")
    if not 0 <= process_index < process_count:
        raise InputError(f"process_index (={process_index}) must be from 0 to {process_count - 1}")
