"""Facts of a machine, and the check that it is the one a profile describes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Machine:
    """Facts of one machine, as the describing program read them on it.

    `features` are normalised names: `int8_dot_product`, `bf16`, `fp16`, and instruction sets such as `avx2`.
    """

    arch: str
    cpu_model: str
    cores: int
    memory_mb: int
    features: tuple[str, ...]
    board: str = ""
    system: str = ""

    @property
    def fingerprint(self) -> str:
        """A hash of 16 hex digits over all facts but the memory, which kernels report differently per boot."""
        facts = {**asdict(self), "memory_mb": 0}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        name = self.board or self.cpu_model or self.arch
        return f"{name}, {self.arch}, {self.cores} cores, {self.memory_mb / 1000:.1f} GB"

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Machine:
        """The machine from what the describing program printed."""
        return Machine(**{**data, "features": tuple(data["features"])})


@dataclass(frozen=True)
class Fingerprint:
    """Facts that identify the machine a profile describes; None leaves a fact open.

    `cpu_model` and `board` are parts of the names that the machine reports, without regard to case.
    """

    arch: str | None = None
    cpu_model: str | None = None
    board: str | None = None
    cores: int | None = None
    min_memory_mb: int | None = None
    features: tuple[str, ...] = ()

    def mismatches(self, machine: Machine) -> list[str]:
        """One clause per fact that differs; empty when the machine fits."""
        found = []
        if self.arch and self.arch != machine.arch:
            found.append(f"architecture {self.arch}, here {machine.arch}")
        if self.cpu_model and self.cpu_model.lower() not in machine.cpu_model.lower():
            found.append(f"CPU {self.cpu_model!r}, here {machine.cpu_model!r}")
        if self.board and self.board.lower() not in machine.board.lower():
            found.append(f"board {self.board!r}, here {machine.board or 'none reported'!r}")
        if self.cores and self.cores != machine.cores:
            found.append(f"{self.cores} cores, here {machine.cores}")
        if self.min_memory_mb and machine.memory_mb < self.min_memory_mb:
            found.append(f"at least {self.min_memory_mb} MB of memory, here {machine.memory_mb}")
        missing = [name for name in self.features if name not in machine.features]
        if missing:
            found.append(f"features {', '.join(missing)}, absent here")
        return found
