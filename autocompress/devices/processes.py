"""The parent's side of a measuring process: starts it and exchanges commands with it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from autocompress.devices.alternation import Block
from autocompress.errors import DeviceError, RuntimeFailureError

OPEN_TIMEOUT_S = 300.0
BLOCK_TIMEOUT_S = 60.0


class MeterProcess:
    """A running measuring process; it ends when the `with` block does.

    `backend` is the file with which it loads artifacts. `artifacts` are all that are measured together, each with a
    file of inputs; `place` is the one that it begins with, and whose memory it measures.
    """

    def __init__(self, program: Path, backend: Path, artifacts: Sequence[tuple[Path, Path]], place: int) -> None:
        self._artifacts = artifacts
        self._place = place
        self._program = program
        self._backend = backend
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._pending = b""
        self._call_seconds = 0.0
        self.load_seconds = 0.0
        self.version = ""
        self.memory_mb = 0.0

    def __enter__(self) -> MeterProcess:
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(self._program), str(os.getpid()), str(self._backend)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
            )
        except OSError as error:
            raise DeviceError(f"the measuring process cannot be started ({error}).", where="this machine") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    # a command that a dead process never read cannot be flushed; its death has been reported
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._errors.close()

    @property
    def _artifact(self) -> Path:
        """The path of the artifact that is loaded now."""
        return self._artifacts[self._place][0]

    def open(self, threads: int, options: Mapping[str, str]) -> None:
        """Load the first artifact and call it once.

        Raises:
            RuntimeFailureError: when the runtime refuses it or its outputs are not finite.
        """
        reply = self._ask(
            {
                "do": "open",
                "artifact": str(self._artifact),
                "inputs": str(self._artifacts[self._place][1]),
                "threads": threads,
                "options": dict(options),
            },
            OPEN_TIMEOUT_S,
        )
        if not reply["finite"]:
            raise RuntimeFailureError("gives outputs that are not finite (NaN or infinity).", where=str(self._artifact))
        self.version = reply["version"]
        self.load_seconds = float(reply["seconds"])

    def load(self, place: int, padding: int) -> None:
        """Load the artifact of that place after allocating `padding` bytes that are not used."""
        self._place = place
        artifact, inputs = map(str, self._artifacts[place])
        command = {"do": "load", "artifact": artifact, "inputs": inputs, "padding": padding}
        # no call takes longer than loading and the first calls together
        self._call_seconds = float(self._ask(command, OPEN_TIMEOUT_S)["seconds"])

    def block(self, calls: int, discard: int) -> Block:
        """Time `calls` calls, after `discard` calls that do not count."""
        allowed = BLOCK_TIMEOUT_S + 20 * (calls + discard) * self._call_seconds
        reply = self._ask({"do": "block", "calls": calls, "discard": discard}, allowed)
        block = Block(reply["ms"], reply["control_ms"], reply["energy_mj"])
        self._call_seconds = max(block.times) / 1000
        # later blocks are of different numbers, and memory that one artifact left behind would count as the next one's
        self.memory_mb = self.memory_mb or float(reply["memory_mb"])
        return block

    def under_load(self, streams: int, seconds: float) -> tuple[float, float]:
        """Calls per second of so many concurrent callers, and the control kernel's time in ms."""
        allowed = BLOCK_TIMEOUT_S + seconds + 60 * streams * self._call_seconds
        reply = self._ask({"do": "under_load", "streams": streams, "seconds": seconds}, allowed)
        return float(reply["calls_per_s"]), float(reply["control_ms"])

    def _ask(self, command: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise DeviceError("the measuring process is not running.", where="this machine")
        try:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        line = self._read_line(process, timeout)
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise RuntimeFailureError(
                f"the measuring process answered {line[:100]!r}, which is no JSON.", where=str(self._artifact)
            ) from None
        if "error" in reply:
            raise RuntimeFailureError(f"fails in the runtime: {reply['error']}", where=str(self._artifact))
        return reply

    def _read_line(self, process: subprocess.Popen[bytes], timeout: float) -> bytes:
        assert process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeFailureError(
                    f"did not answer within {timeout:.0f} s in the measuring process.", where=str(self._artifact)
                )
            chunk = process.stdout.read1(1 << 20)  # type: ignore[attr-defined]  # a BufferedReader
            if not chunk:
                raise self._death()
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _death(self) -> RuntimeFailureError:
        code = self._process.wait() if self._process else None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        sentences = f" Its last words: {lines[-1][:300]}" if lines else ""
        return RuntimeFailureError(f"the measuring process died ({how}).{sentences}", where=str(self._artifact))
