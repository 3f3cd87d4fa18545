"""Locks: nothing heavy runs beside a measurement, and nobody makes what another is making already.

Locks are `flock`s: the kernel gives them back when a process ends, however it ends. Without POSIX there are none,
and measurements of two runs at once on one machine disturb each other.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

    FREE, SHARED, ALL = fcntl.LOCK_UN, fcntl.LOCK_SH, fcntl.LOCK_EX
else:
    FREE, SHARED, ALL = 0, 1, 2

# a process that was stopped (Ctrl-Z) in the middle of a measurement must not hold up all others for good
PATIENCE_S = 600.0
POLL_S = 0.005
FOLDER_POLL_S = 0.1


class _Locks(threading.local):
    """The two files of a thread, and what it holds. Each thread opens them for itself: a flock belongs to the opening.

    They lie in the temporary folder and not in a run's: runs in different folders share the machine. One pair for
    each user, since nobody can lock files of others. `gate` is held by whoever waits to measure, so that those who
    work stop before it; `machine` by one who measures or all who work.
    """

    def __init__(self) -> None:
        self.holds = FREE
        self._opened: dict[str, _File | None] = {}

    @property
    def gate(self) -> _File | None:
        """The lock of who waits to measure."""
        return self._file("gate")

    @property
    def machine(self) -> _File | None:
        """The lock of who measures or works."""
        return self._file("machine")

    def _file(self, name: str) -> _File | None:
        # opened when needed: importing writes nothing
        if name not in self._opened:
            self._opened[name] = _lock_file(name)
        return self._opened[name]


class _File:
    """An open file or folder, closed when nobody needs it any more."""

    def __init__(self, path: Path, flags: int) -> None:
        self._handle = os.open(path, flags, 0o600)

    def fileno(self) -> int:
        """What the kernel calls it."""
        return self._handle

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is not None:
            os.close(handle)


def _lock_file(name: str) -> _File | None:
    user = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"autocompress-{user}-{name}.lock"
    try:
        return _File(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None  # a temporary folder that cannot be written: as without POSIX


_locks = _Locks()


@contextmanager
def measuring() -> Iterator[None]:
    """Alone on the machine: no other measurement, and nobody inside `working`, of any run of this user.

    Whoever works is asked to stop at its next step. May stand inside itself and inside `working`.
    """
    before = _locks.holds
    if before == ALL:
        yield
        return
    try:
        _wait(_locks.gate, ALL)
        _wait(_locks.machine, ALL)
        _locks.holds = ALL
        yield
    finally:
        _locks.holds = before
        _lock(_locks.machine, FREE)
        _lock(_locks.gate, FREE)
        if before == SHARED:
            _wait(_locks.machine, SHARED)


@contextmanager
def working() -> Iterator[None]:
    """One step of heavy work, which no measurement runs beside; one that waits goes first. Takes microseconds."""
    if _locks.holds != FREE:
        yield
        return
    try:
        _wait(_locks.gate, SHARED)
        _lock(_locks.gate, FREE)
        _wait(_locks.machine, SHARED)
        _locks.holds = SHARED
        yield
    finally:
        _locks.holds = FREE
        _lock(_locks.gate, FREE)
        _lock(_locks.machine, FREE)


@contextmanager
def folder_lock(folder: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The only one in a folder among threads and processes; `waits` is called once if somebody else has to end first.

    The lock is on the folder itself, so that no file is left in it. It must not stand inside itself.
    """
    try:
        opened: _File | None = _File(folder, os.O_RDONLY)
    except OSError:
        opened = None  # a system that opens no folders
    if not _lock(opened, ALL):
        waits()
        while not _lock(opened, ALL):
            time.sleep(FOLDER_POLL_S)
    try:
        yield
    finally:
        _lock(opened, FREE)


def _wait(file: _File | None, kind: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _lock(file, kind) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _lock(file: _File | None, kind: int) -> bool:
    if sys.platform == "win32" or file is None:
        return True
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that knows no locks: as without POSIX
    return True
