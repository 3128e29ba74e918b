"""Arrays that are made when they are needed: so a large checkpoint passes through a small memory."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class LazyArray:
    """An array that `numpy.asarray` makes anew each time; what it will be is known.

    Attributes:
        shape: of the array.
        dtype: of the array.
        make: reads or computes it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.make(), dtype or self.dtype, copy=copy or None)
