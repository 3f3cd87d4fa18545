"""A time limit for work in pieces, which tells whether one more piece fits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from autocompress.system.progress import Deadline


class TimeLimit:
    """A time limit that starts when it is created and ends after `seconds`, never where they are None.

    A piece of work is expected to take `expected` seconds, or as long as the longest one did.
    """

    def __init__(self, seconds: float | None, expected: float = 0.0) -> None:
        self._deadline = Deadline.start(seconds)
        self._longest = expected

    def is_over(self) -> bool:
        """True when no time is left."""
        return self._deadline.over

    def is_too_short(self) -> bool:
        """True when what is left is not enough for one more piece of work."""
        left = self._deadline.left
        return left is not None and left <= self._longest

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Time one piece of work, the body of the `with` block."""
        began = time.monotonic()
        yield
        self._longest = max(self._longest, time.monotonic() - began)
