"""The local device: the present machine, with artifacts measured in separate processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.machine import Machine
from autocompress.core.measurement import Conditions, Measurement, Reading
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, Runtime, Session
from autocompress.core.source import Array
from autocompress.data.example_inputs import feed_of
from autocompress.devices import meter
from autocompress.devices.alternation import FIRST_BLOCK, LOADING_SEED, alternate
from autocompress.devices.processes import MeterProcess
from autocompress.errors import DeviceError
from autocompress.statistics.bounds import least_values
from autocompress.system.locks import measuring
from autocompress.system.scratch import scratch

METER = Path(meter.__file__).parent


class LocalDevice(Device):
    """The present machine, running artifacts in `runtime`."""

    scheme: ClassVar[str] = "local"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._calm_ms = math.inf

    @classmethod
    def connect(cls, connection: str, runtime: Runtime) -> LocalDevice:
        """See `Device.connect`."""
        return cls(runtime)

    def machine(self) -> Machine:
        """See `Device.machine`; read once."""
        return self._machine

    @cached_property
    def _machine(self) -> Machine:
        command = [sys.executable, str(METER / "describe.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise DeviceError(f"cannot be described: {done.stderr.strip()[-300:]}", where="this machine")
        return Machine.from_json(json.loads(done.stdout))

    def measure(
        self,
        artifacts: Sequence[Artifact],
        profile: Profile,
        example: Example | None = None,
        max_seconds: float | None = None,
        also: Collection[str] = (),
    ) -> list[Measurement]:
        """See `Device.measure`."""
        limit = max_seconds or profile.protocol.max_seconds
        # every measurement on this machine takes the lock here; measurements on other machines need none
        with measuring(), ExitStack() as stack:
            folder = stack.enter_context(scratch("meter"))
            files = []
            for place, artifact in enumerate(artifacts):
                files.append((artifact.path, folder / f"{place}.npz"))
                inputs = feed_of(artifact, example, profile.protocol.batch)
                # the prefix keeps names apart from np.savez's own parameters, such as `file`
                named: dict[str, Any] = {f"input {name}": array for name, array in inputs.items()}
                np.savez(files[-1][1], **named)
            # all processes start at once, which takes longest, and load one after the other, which is timed
            meters = [
                stack.enter_context(MeterProcess(METER / "program.py", self._runtime.meter_backend, files, place))
                for place in range(len(files))
            ]
            for meter in meters:
                meter.open(profile.runtime.threads, profile.runtime.options)
            under_load = "throughput_per_s" in also
            rounds = alternate(meters, limit, profile, self._calm_ms, under_load=under_load)
            self._calm_ms = min(self._calm_ms, rounds.calmest_ms)
            repeated = profile.limits("memory_mb") or "memory_mb" in also
            memory = [[meter.memory_mb for meter in meters]]
            memory += [
                [self._memory_mb(files, place, profile) for place in range(len(files))]
                for _ in range(1, least_values(profile.alpha) if repeated else 1)
            ]
            return [
                Measurement(
                    {
                        **rounds.readings(place, profile.protocol.batch),
                        "memory_mb": Reading("MB", np.array([row[place] for row in memory], dtype=np.float64)),
                    },
                    conditions=Conditions(
                        artifact.hash,
                        profile.runtime.name,
                        {self._runtime.name: process.version, "python": sys.version.split()[0]},
                        profile.runtime.threads,
                        profile.protocol.batch,
                        str(self.machine()),
                        rounds.dropped,
                        rounds.loads,
                        LOADING_SEED,
                        limit,
                    ),
                )
                for place, (artifact, process) in enumerate(zip(artifacts, meters, strict=True))
            ]

    def _memory_mb(self, files: Sequence[tuple[Path, Path]], place: int, profile: Profile) -> float:
        """The peak memory of one artifact in a fresh process."""
        with MeterProcess(METER / "program.py", self._runtime.meter_backend, files, place) as meter:
            meter.open(profile.runtime.threads, profile.runtime.options)
            meter.block(FIRST_BLOCK, discard=1)
            return meter.memory_mb

    def load(self, artifact: Artifact, profile: Profile) -> Session:
        """See `Device.load`."""
        return self._runtime.load(artifact, self.machine().cores, profile.runtime.options)

    def slowest_operators(
        self, artifact: Artifact, profile: Profile, inputs: Mapping[str, Array]
    ) -> Sequence[tuple[str, str, float]]:
        """See `Device.slowest_operators`."""
        with measuring():
            return self._runtime.slowest_operators(artifact, inputs, profile.runtime.threads, profile.runtime.options)
