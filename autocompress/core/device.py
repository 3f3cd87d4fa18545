"""Contract Device: a machine on which artifacts are timed and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.machine import Machine
from autocompress.core.measurement import Measurement
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, Runtime, Session
from autocompress.core.source import Array
from autocompress.errors import DeviceError


class Device(ABC):
    """A machine that runs artifacts in a runtime: it times them, scores them and profiles their operators.

    `scheme` is how profiles begin the `connection` of such devices: `local`, or what stands before `://`.
    """

    scheme: ClassVar[str]

    @classmethod
    @abstractmethod
    def connect(cls, connection: str, runtime: Runtime) -> Device:
        """The device that a profile's `connection` names; it runs artifacts in `runtime`.

        Raises:
            DeviceError: when the connection names none.
        """

    @abstractmethod
    def machine(self) -> Machine:
        """The facts of the machine, as it reports them itself.

        Raises:
            DeviceError: when it cannot be reached.
        """

    @abstractmethod
    def measure(
        self,
        artifacts: Sequence[Artifact],
        profile: Profile,
        example: Example | None = None,
        max_seconds: float | None = None,
        also: Collection[str] = (),
    ) -> list[Measurement]:
        """Measure latency (shape `(blocks, calls)`, ms) and memory (`(processes,)`, MB) of each artifact.

        Blocks of calls alternate between the artifacts, so that drift of the machine affects all of them alike;
        each of them has a process of its own. Readings that come in blocks number the loads that these were taken
        under, and artifacts that are measured together share these numbers. Calls get the example's inputs (made up
        from the artifact's input spec without one) at the profile's batch, for at most `max_seconds` (the profile's
        protocol by default).

        Throughput (shape `(blocks, 1)`, items/s) is measured where it has a budget or is named in `also`: the profile's
        streams call the loaded artifact at the same time, each with a batch of its own.

        Memory is a process's peak until its first calls are done, less what it was before loading. Where it has a
        budget or is named in `also` it is taken in as many fresh processes as an interval takes at the profile's
        confidence, else in one; process i of one artifact stands beside process i of another.

        Raises:
            DeviceError: when the measuring process cannot be started.
            FreeDimensionError: when there is no example, and an input has a free dimension beside the batch.
            RuntimeFailureError: when it dies, or the artifact fails in it.
        """

    @abstractmethod
    def load(self, artifact: Artifact, profile: Profile) -> Session:
        """Load the artifact on this device with all of its cores; scores are computed with this session.

        Raises:
            RuntimeFailureError: when the runtime refuses the artifact or an option of the profile.
        """

    @abstractmethod
    def slowest_operators(
        self, artifact: Artifact, profile: Profile, inputs: Mapping[str, Array]
    ) -> Sequence[tuple[str, str, float]]:
        """Name, type and share of the total time of each operator on these inputs, the slowest first.

        Raises:
            RuntimeFailureError: when the runtime fails on it.
        """


def require_described(device: Device, profile: Profile) -> Machine:
    """The device's machine; it must be the one that the profile describes.

    Raises:
        DeviceError: when it is another; a profile never silently measures somewhere else.
    """
    machine = device.machine()
    fingerprint = profile.device.fingerprint
    mismatches = fingerprint.mismatches(machine) if fingerprint else []
    if mismatches:
        raise DeviceError(
            f"describes another machine: {'; '.join(mismatches)}.",
            where=f"profile {profile.name}",
            hint="Run there, or use `local` or a profile from `autocompress profile detect` for this machine.",
        )
    return machine
