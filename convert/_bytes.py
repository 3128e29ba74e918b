"""The bytes of a file by their position, read when they are asked for."""

import os
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from nfnet_eqx._errors import InputError

_WINDOW = 2**16


class FileBytes:
    """A file that is not mapped into memory: one that shrinks meanwhile is an error, where a mapped one kills.

    Attributes:
        file: open for reading, by whomever.
        name: of the file, for messages.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        """The bytes that `file` has now."""
        self.file = file
        self.name = name
        self._size = os.fstat(file.fileno()).st_size
        self._window, self._start = b"", 0

    def __len__(self) -> int:
        return self._size

    def read(self, start: int, count: int) -> bytes:
        """A few bytes; most often, those behind the last ones."""
        at = start - self._start
        if at < 0 or at + count > len(self._window):
            wanted = min(max(count, _WINDOW), self._size - start)
            self._window, self._start, at = self.array(start, wanted).tobytes(), start, 0
        return self._window[at : at + count]

    def array(self, start: int, count: int) -> UInt8[np.ndarray, " count"]:
        """Many bytes, in memory of their own.

        Raises:
            InputError: the file has become shorter.
        """
        found = np.empty(count, np.uint8)
        rest = found.data
        while rest.nbytes:
            read = os.preadv(self.file.fileno(), [rest], start)
            if not read:
                raise InputError(f"{self.name}: the file became shorter while it was read; fetch or write it again")
            rest, start = rest[read:], start + read
        return found
