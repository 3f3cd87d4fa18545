"""Who works on something: a process, told apart from all that had or will have its number."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# in the names of temporary files and folders: host, process and start of whoever made them
TAG = re.compile(r"-w([0-9a-f]{8})-(\d+)-(\d*)-")


@dataclass(frozen=True)
class Worker:
    """A process. `started` is its beginning in the kernel's clock ticks, empty where unknown."""

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
        """The worker that `to_json` wrote; one that never lived where it wrote nothing."""
        return Worker(str(data.get("host", "")), int(data.get("pid", 0)), str(data.get("started", "")))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @property
    def key(self) -> str:
        """What no other worker has."""
        return f"{self.host}:{self.pid}:{self.started}"

    @property
    def tag(self) -> str:
        """For the names of what it leaves lying when it is killed; read back by `left_by_the_dead`."""
        return f"-w{_short(self.host)}-{self.pid}-{self.started}-"

    @property
    def here(self) -> bool:
        """True when it is of this host, so that `alive` can tell."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """True when the process is on this host and runs; a number that is in use again is another process."""
        return self.here and _runs(self.pid, self.started)


def left_by_the_dead(name: str) -> bool:
    """True when a name carries the tag of a process of this host that is gone; what others made is never theirs."""
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
        pass  # it lives, and belongs to somebody else
    state, since = _state(pid)
    # a killed process whose parent has not asked for its end yet keeps its number, but works no more
    return since == started and state not in ("Z", "X")


def _state(pid: int) -> tuple[str, str]:
    """Letter of the state and the start in clock ticks; empty where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    # the name, in brackets, may hold spaces; the state is the 3rd field and the start the 22nd
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]
