"""Reads of prepared arrays that let other threads run meanwhile.

A read of mapped memory waits for the disk or the network while it holds the interpreter's lock, so
that threads read one after the other; `pread` releases it.
"""

import mmap
import os
import weakref
from typing import TypeGuard

import numpy as np


def is_whole_file(array: object) -> TypeGuard[np.memmap]:
    """Whether an array is all of what is mapped from a file, row by row, and not a view of it.

    A view doesn't know where its first row is in the file.
    """
    if not isinstance(array, np.memmap):
        return False
    return isinstance(array.base, mmap.mmap) and array.flags.c_contiguous


class ArrayReader:
    """Reads rows of an array of NumPy's in a file.

    Args:
        array: in C order and mapped from a file, see `is_whole_file`.
    """

    def __init__(self, array: np.memmap):
        """Open the file of the array, until the reader is no longer used."""
        assert array.filename is not None  # of an array that is mapped from a file
        self._file = os.open(array.filename, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._path = array.filename
        self._start = array.offset  # of the first row in the file
        self._bytes_of_row = array.dtype.itemsize * int(np.prod(array.shape[1:]))

    def read(self, rows: np.ndarray, target: np.ndarray) -> None:
        """Read rows of the array into memory.

        Args:
            rows: (N,) in the order in which they are read.
            target: (N, ...) in C order, with the type of the array; it is filled.

        Raises:
            OSError: The file can't be read, or is shorter than it was.
        """
        for row, row_in_memory in zip(rows.tolist(), target, strict=True):
            position = self._start + row * self._bytes_of_row
            self._read(row_in_memory.data.cast("B"), position)

    def bytes(self, start: int, length: int) -> np.ndarray:
        """So many bytes (length,) uint8 of the array, from a position that is counted in bytes.

        Raises:
            OSError: as `read`.
        """
        read_bytes = np.empty(length, np.uint8)
        self._read(read_bytes.data, self._start + start)
        return read_bytes

    def _read(self, buffer: memoryview, position: int) -> None:
        """Fill a buffer from a position of the file; the errors are those of `read`."""
        filled = 0
        while filled < len(buffer):
            number = os.preadv(self._file, [buffer[filled:]], position + filled)
            if number == 0:
                raise OSError(f"{self._path} ends too early; it was cut while it was read")
            filled += number
