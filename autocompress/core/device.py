"""Contract Device: where latency and memory are taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from autocompress.core.artifact import Artifact
from autocompress.core.machine import Machine
from autocompress.core.measurement import Measurement
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.errors import DeviceError


class Device(ABC):
    """A machine that runs artifacts and measures them."""

    @abstractmethod
    def machine(self) -> Machine:
        """What the machine is, as it reports itself.

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
    ) -> list[Measurement]:
        """Latency (shape `(blocks, calls)`, ms) and memory (MB) of each artifact.

        Blocks of calls alternate between the artifacts, so that drift of the machine meets all of them alike;
        each of them has a process of its own. Calls get the example's inputs (made up from the artifact's
        input spec without one) at the profile's batch, for at most `max_seconds` (the profile's protocol by
        default).

        Raises:
            DeviceError: when the measuring process cannot be started.
            RuntimeFailureError: when it dies, or the artifact fails in it.
        """


def require_described(device: Device, profile: Profile) -> Machine:
    """The device's machine, if it is the one that the profile describes.

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
