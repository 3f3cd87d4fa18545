"""Locks between processes: measurements run undisturbed, and no artifact is made twice at a time.

They are `flock`s: the kernel releases them when a process ends, however it ends. Without POSIX there are none,
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

# longest wait for a lock: a process that was stopped (Ctrl-Z) while it held one must not block all others for good
PATIENCE_S = 600.0
POLL_S = 0.005
FOLDER_POLL_S = 0.1


class _Locks(threading.local):
    """The two lock files as one thread has opened them, and what it holds.

    Each thread opens them for itself, since a flock belongs to the opening. They lie in the temporary folder and not in
    a run's: runs in different folders share the machine. There is one pair for each user, since nobody can lock files
    of others. `gate` is held by a process that waits to measure, so that workers stop before it; `machine` by one that
    measures or by all that work.
    """

    def __init__(self) -> None:
        self.holds = FREE
        self._opened: dict[str, _File | None] = {}

    @property
    def gate(self) -> _File | None:
        """The lock held by a process that waits to measure."""
        return self._file("gate")

    @property
    def machine(self) -> _File | None:
        """The lock held by a process that measures, or shared by all that work."""
        return self._file("machine")

    def _file(self, name: str) -> _File | None:
        # opened when needed: importing writes nothing
        if name not in self._opened:
            self._opened[name] = _lock_file(name)
        return self._opened[name]


class _File:
    """An open file or folder, closed when it is garbage-collected."""

    def __init__(self, path: Path, flags: int) -> None:
        self._handle = os.open(path, flags, 0o600)

    def fileno(self) -> int:
        """The file descriptor."""
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
        return None  # the temporary folder cannot be written: no lock, as without POSIX


_locks = _Locks()


@contextmanager
def measuring() -> Iterator[None]:
    """Lock the machine for a measurement: no other one and no `working` block of this user runs meanwhile.

    Workers stop before their next step. It may be nested in itself and in `working`.
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
    """Lock the machine for one step of heavy work, which must not run beside a measurement.

    Measurements that wait go first. It takes microseconds when there is nothing to wait for.
    """
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
    """Lock a folder exclusively among threads and processes.

    `waits` is called once if another one holds the lock. The lock is on the folder itself, so that no file is left in
    it. It must not be nested in itself.
    """
    try:
        opened: _File | None = _File(folder, os.O_RDONLY)
    except OSError:
        opened = None  # the system cannot open folders
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
        return True  # the file system has no locks: as without POSIX
    return True
