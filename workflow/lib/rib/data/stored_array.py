"""Read prepared arrays without blocking other threads.

Reading mapped memory waits for the disk while it holds Python's global lock (GIL); `pread` releases
the lock.
"""

import mmap
import os
import weakref
from typing import TypeGuard

import numpy as np


def is_whole_file(array: object) -> TypeGuard[np.memmap]:
    """Whether an array is an entire mapped file in C order, as `ArrayReader` needs.

    A view doesn't know where its first row is in the file.
    """
    if not isinstance(array, np.memmap):
        return False
    return isinstance(array.base, mmap.mmap) and array.flags.c_contiguous


class ArrayReader:
    """Reads rows of a NumPy array in a file.

    Args:
        array: an entire mapped file in C order.
    """

    def __init__(self, array: np.memmap):
        """Open the array's file until the reader is garbage-collected."""
        assert array.filename is not None  # mapped arrays have one
        self._file = os.open(array.filename, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._path = array.filename
        self._start = array.offset  # position of the first row in the file
        self._bytes_of_row = array.dtype.itemsize * int(np.prod(array.shape[1:]))

    def read(self, rows: np.ndarray, target: np.ndarray) -> None:
        """Read rows of the array into memory.

        Args:
            rows: (N,) in the order in which they are read.
            target: (N, ...) in C order, with the type of the array; it is filled.

        Raises:
            OSError: the file can't be read, or has become shorter.
        """
        for row, row_in_memory in zip(rows.tolist(), target, strict=True):
            position = self._start + row * self._bytes_of_row
            self._read(row_in_memory.data.cast("B"), position)

    def bytes(self, start: int, length: int) -> np.ndarray:
        """Bytes of the array from position `start`: (length,) uint8.

        Raises:
            OSError: the file can't be read, or has become shorter.
        """
        read_bytes = np.empty(length, np.uint8)
        self._read(read_bytes.data, self._start + start)
        return read_bytes

    def _read(self, buffer: memoryview, position: int) -> None:
        """Fill a buffer from a position in the file; one call may read only some bytes."""
        filled = 0
        while filled < len(buffer):
            number = os.preadv(self._file, [buffer[filled:]], position + filled)
            if number == 0:
                raise OSError(f"{self._path} ends too early; it was cut while it was read")
            filled += number
