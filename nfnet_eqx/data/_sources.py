"""What a data source is, and the simplest one: arrays in memory."""

import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from nfnet_eqx._class_names import check_class_names
from nfnet_eqx._errors import InputError

# Data sets with more classes are damaged: a classifier for so many would not fit into memory.
MAX_CLASSES = 2**20

# An encoded image is smaller; with this bound a file of another kind does not fill the memory.
_MAX_BYTES = 2**29


class Example(NamedTuple):
    """One labelled picture, as a source holds it.

    Attributes:
        image: an encoded picture, or its pixels (height, width) or (height, width, 1 or 3).
        label: index of its class.
        name: what an error calls it: the file, `"tar:member"`, `"file[17]"`.
    """

    image: bytes | UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w c"]
    label: int
    name: str


@runtime_checkable
class Source(Protocol):
    """Labelled pictures by index. Random access, from several threads; picklable, for worker processes.

    Attributes:
        name: where the pictures came from.
        classes: the names of the classes by label, where the source knows them.
        num_classes: number of classes; each label is below it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...] | None: ...  # noqa: D102
    @property
    def num_classes(self) -> int: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example:
        """The picture at `index`; an `InputError` that names it where it cannot be read."""
        ...


def count_classes(labels: Integer[np.ndarray, " n"], classes: Sequence[str] | None, name: str) -> int:
    """The number of classes: that of the names, or one more than the largest label.

    Raises:
        InputError: a label is negative or has no name, or there are no pictures at all.
    """
    if not len(labels):
        raise InputError(f"{name}: holds no pictures; name a file or folder that does")
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        where = int(labels.argmin())
        raise InputError(f"{name}: label {low} (of picture {where}) is negative; leave unlabelled pictures out")
    if high >= MAX_CLASSES:
        where = int(labels.argmax())
        raise InputError(f"{name}: label {high} (of picture {where}) is no class: {MAX_CLASSES:,} are the most")
    if classes is not None and high >= len(classes):
        where = int(labels.argmax())
        raise InputError(
            f"{name}: label {high} (of picture {where}) is beyond the {len(classes)} classes; labels count from 0"
        )
    return high + 1 if classes is None else len(classes)


def read_image(path: str, name: str, offset: int = 0, size: int | None = None) -> bytes:
    """The bytes of an image: a file, or a part of one that begins at `offset`.

    Raises:
        InputError: it cannot be read, or is too large for an image; the message calls it `name`.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size if size is None else size
            if size > _MAX_BYTES:
                raise InputError(f"{name}: is too large for an image ({size:,} bytes); take it out")
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the file") from None


def one_line(error: BaseException) -> str:
    """What an error of another library says, short and in one line; its kind where it says nothing."""
    words = " ".join(str(error).split())
    return (words if len(words) <= 300 else f"{words[:300]}...") or type(error).__name__


def first_few(faults: Sequence[str], most: int = 5) -> str:
    """Faults in one line; of very many the first and their number."""
    more = [f"and {len(faults) - most} more"] if len(faults) > most else []
    return "; ".join([*faults[:most], *more])


class Arrays:
    """Pictures in memory.

    Args:
        images: bytes (number, height, width, 1 or 3) or (number, height, width).
        labels: the class of each picture, an integer.
        classes: the names of the classes, where known.
        name: what errors call it.

    Raises:
        InputError: naming everything that is wrong with them: dtypes, shapes, counts, impossible labels or names.
    """

    def __init__(
        self,
        images: Shaped[np.ndarray, "..."],
        labels: Shaped[np.ndarray, "..."],
        classes: Sequence[str] | None = None,
        name: str = "arrays",
    ):
        faults = []
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] not in ((), (1,), (3,)):
            faults.append(
                f"images are {images.dtype} of shape {images.shape}; they must be uint8 of shape"
                " (number, height, width) or (number, height, width, 1 or 3)"
            )
        elif 0 in images.shape[1:]:
            faults.append(f"images of shape {images.shape} have no pixels")
        if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
            faults.append(f"labels are {labels.dtype} of shape {labels.shape}; they must be integers, one a picture")
        if images.shape[:1] != labels.shape[:1]:
            faults.append(f"images have shape {images.shape}, labels {labels.shape}: there must be as many")
        if faults:
            raise InputError(f"{name}: {'; '.join(faults)}")
        self.name = name
        self.classes = None if classes is None else check_class_names(classes, name)
        self.num_classes = count_classes(labels, self.classes, name)
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: SupportsIndex) -> Example:
        return Example(self._images[index], int(self._labels[index]), f"{self.name}[{index}]")
