"""Interruption by Ctrl-C or SIGTERM, as an exception that no `except Exception` catches."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption(BaseException):
    """Raised when a signal asks this process to end; no `Exception`, so that no handler swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code for a process ended by this signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interruption` on Ctrl-C and SIGTERM inside the block; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        # only the main thread may install signal handlers
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # processes that a shell starts in the background ignore Ctrl-C; they shall go on ignoring it
    before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def stop(number: int, _frame: FrameType | None) -> None:
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        raise Interruption(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
