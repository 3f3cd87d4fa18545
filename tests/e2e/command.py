"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from autocompress.cli.commands import main

WIDE = 240
# how an advice begins, and what says by itself what would be right
ADVICE = re.compile(
    r"(?<=[.?] )(A step has|Add|Allowed:|Check|Choose|Convert|Correct|Did you mean|Give|Its|Known:|Leave|Make|Name|"
    r"Normalise|Number|On the shelf:|One|Options:|Pass|Put|Relative paths|Remove|Replace|Return|Run|Save|Set|State|"
    r"Use|Write) "
    r"|, or |, line \d|line \d+, column|must be|should be|at most 100|expected|give it in|that torch.onnx can export"
)


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, output, errors and seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def error_lines(self) -> list[str]:
        """Lines of the error stream that are not blank."""
        return [line for line in self.err.splitlines() if line.strip()]


def command(*arguments: str | Path, folder: Path, columns: int = WIDE) -> Done:
    """`autocompress ARGUMENTS` as if started in `folder`, in this process."""
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", ["autocompress", *map(str, arguments)]),
        mock.patch.dict(os.environ, {"COLUMNS": str(columns)}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as stop:
            code = stop.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue(), time.monotonic() - start)


def start(*arguments: str | Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """`autocompress ARGUMENTS` in a process of its own that writes to `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "autocompress.cli.commands", *map(str, arguments)],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": str(WIDE)},
        )


def process(*arguments: str | Path, folder: Path, timeout: float = 120) -> Done:
    """`autocompress ARGUMENTS` in a process of its own, waited for."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "autocompress.cli.commands", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": str(WIDE)},
    )
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - begun)


def wait_for(text: str, log: Path, running: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until `text` stands in `log`; fails when the process ends or the time is up before."""
    deadline = time.monotonic() + seconds
    while text not in (said := log.read_text(encoding="utf-8")):
        assert running.poll() is None, f"ended before it said {text!r}:\n{said}"
        assert time.monotonic() < deadline, f"did not say {text!r} in {seconds} s:\n{said}"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Process ids of the living children of a process (Linux)."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name in brackets may hold anything, so fields count from its end
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def command_line(pid: int) -> bytes:
    """The command line of a process, its parts ended by zeros; empty when it is gone (Linux)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """True when the process is there and no zombie (Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
