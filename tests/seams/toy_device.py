"""A device in one file: this machine, reached by a word of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.machine import Machine
from autocompress.core.measurement import Measurement
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, Runtime, Session
from autocompress.core.source import Array
from autocompress.devices import LocalDevice
from autocompress.errors import DeviceError


class ToyDevice(Device):
    scheme: ClassVar[str] = "toy"

    def __init__(self, board: str, runtime: Runtime) -> None:
        self._board, self._here = board, LocalDevice(runtime)

    @classmethod
    def connect(cls, connection: str, runtime: Runtime) -> ToyDevice:
        board = connection.partition("://")[2]
        if not board:
            raise DeviceError("names no board.", where=connection)
        return cls(board, runtime)

    def machine(self) -> Machine:
        return replace(self._here.machine(), board=self._board)

    def measure(
        self,
        artifacts: Sequence[Artifact],
        profile: Profile,
        example: Example | None = None,
        max_seconds: float | None = None,
        also: Collection[str] = (),
    ) -> list[Measurement]:
        return self._here.measure(artifacts, profile, example, max_seconds, also)

    def load(self, artifact: Artifact, profile: Profile) -> Session:
        return self._here.load(artifact, profile)

    def slowest_operators(
        self, artifact: Artifact, profile: Profile, inputs: Mapping[str, Array]
    ) -> Sequence[tuple[str, str, float]]:
        return self._here.slowest_operators(artifact, profile, inputs)
