"""Rows of one size in an unnamed temporary file, which ends with this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowFile:
    """A file of rows of a structured dtype, appended and read by number.

    It has no name from the start, so that the kernel frees its space when the process ends, however that ends. It is
    read with plain reads: pages of a mapped file would count as memory of the process.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        # not closed by hand: it ends with the object
        self._file = tempfile.TemporaryFile(prefix="autocompress-items-", dir=folder_on_disk(), buffering=0)  # noqa: SIM115
        self._rows = 0

    def append(self, rows: NDArray[Any]) -> range:
        """Write rows at the end; gives their numbers.

        Raises:
            OSError: when they cannot be written whole; none of them counts then.
        """
        data, place = memoryview(rows.tobytes()), self._rows * self.dtype.itemsize
        while data:
            written = os.pwrite(self._file.fileno(), data, place)
            data, place = data[written:], place + written
        first, self._rows = self._rows, self._rows + len(rows)
        return range(first, self._rows)

    def read(self, numbers: Sequence[int]) -> NDArray[Any]:
        """The rows with these numbers."""
        found, size = bytearray(len(numbers) * self.dtype.itemsize), self.dtype.itemsize
        for place, number in enumerate(numbers):
            row = os.pread(self._file.fileno(), size, number * size)
            if len(row) != size:
                raise OSError(f"row {number} of a temporary file is cut off")
            found[place * size : (place + 1) * size] = row
        return np.frombuffer(found, dtype=self.dtype)


def folder_on_disk() -> Path:
    """Where large temporary files go: `$TMPDIR`, else /var/tmp, since /tmp is in memory on many systems."""
    fallback = Path("/var/tmp")
    if not os.environ.get("TMPDIR") and fallback.is_dir() and os.access(fallback, os.W_OK):
        return fallback
    return Path(tempfile.gettempdir())


def free_bytes() -> int:
    """The bytes that are free where such files go."""
    return shutil.disk_usage(folder_on_disk()).free
