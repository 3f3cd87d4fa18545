"""Workers: processes, identified so that a reused process number is not mistaken for an earlier one."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# tag in the names of temporary files and folders: host, number and start of the process that made them
TAG = re.compile(r"-w([0-9a-f]{8})-(\d+)-(\d*)-")


@dataclass(frozen=True)
class Worker:
    """A process. `started` is its start in the kernel's clock ticks, empty where unknown."""

    host: str
    pid: int
    started: str

    @staticmethod
    def me() -> Worker:
        """The present process."""
        pid = os.getpid()
        return Worker(socket.gethostname(), pid, _state(pid)[1])

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Worker:
        """The worker that `to_json` wrote; from an empty object one that never lived."""
        return Worker(str(data.get("host", "")), int(data.get("pid", 0)), str(data.get("started", "")))

    def to_json(self) -> dict[str, Any]:
        """The worker as a JSON object."""
        return asdict(self)

    @property
    def key(self) -> str:
        """A key that no other worker has."""
        return f"{self.host}:{self.pid}:{self.started}"

    @property
    def tag(self) -> str:
        """A tag for the names of its temporary files, so that `left_by_the_dead` finds them if it is killed."""
        return f"-w{_short(self.host)}-{self.pid}-{self.started}-"

    @property
    def here(self) -> bool:
        """True when it is on this host, so that `alive` can tell."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """True when the process is on this host and runs; another process with a reused number does not count."""
        return self.here and _runs(self.pid, self.started)


def left_by_the_dead(name: str) -> bool:
    """True when a name carries the tag of an ended process of this host.

    Names with the tag of another host, or with none, never count.
    """
    found = TAG.search(name)
    if found is None or found[1] != _short(socket.gethostname()):
        return False
    return not _runs(int(found[2]), found[3])


def _short(host: str) -> str:
    return hashlib.sha256(host.encode()).hexdigest()[:8]


def _runs(pid: int, started: str) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is alive and belongs to another user
    state, since = _state(pid)
    # a zombie, whose parent has not collected its exit status, keeps its number but works no more
    return since == started and state not in ("Z", "X")


def _state(pid: int) -> tuple[str, str]:
    """A process's state letter and its start in clock ticks; empty where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    # the name, in brackets, may hold spaces; the state is the 3rd field and the start the 22nd
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
