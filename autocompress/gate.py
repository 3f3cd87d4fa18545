"""The CI gate: measures the artifact that is about to ship and judges it. Nothing passes because something failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autocompress.artifact import Artifact
from autocompress.device import Device, require_described
from autocompress.examples import example_for
from autocompress.judge import judge_by
from autocompress.measurement import Measurement, Reading
from autocompress.profile import Profile
from autocompress.runtime import Runtime
from autocompress.task import Task
from autocompress.verdict import Verdict
from autocompress.workbench import score, sizes


@dataclass(frozen=True, eq=False)
class Check:
    """An artifact judged against a profile's budgets."""

    artifact: Artifact
    measurement: Measurement
    verdict: Verdict
    machine: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "schema": 1,
            "artifact": str(self.artifact.path),
            "artifact_sha256": self.artifact.hash,
            "machine": self.machine,
            **self.verdict.to_json(),
        }


def measure(
    artifact: Artifact, baseline: Artifact | None, profile: Profile, device: Device, task: Task | None
) -> tuple[Measurement, str]:
    """Size, latency and memory of an artifact, beside the baseline's where there is one, and the machine.

    Raises:
        DeviceError: when the machine is not the profile's.
        RuntimeFailureError: when the artifact fails in the runtime.
    """
    machine = require_described(device, profile)
    example = example_for(None, task, None, ()) if task is not None else None
    together = [artifact] if baseline is None else [baseline, artifact]
    measured = device.measure(together, profile, example)
    after = measured[-1]
    before: dict[str, Reading] = {}
    if baseline is not None:
        before = {**measured[0].readings, **sizes(baseline, profile)}
    return Measurement({**after.readings, **sizes(artifact, profile)}, before, after.conditions), str(machine)


def check(
    artifact: Artifact,
    baseline: Artifact | None,
    profile: Profile,
    runtime: Runtime,
    device: Device,
    task: Task | None,
) -> Check:
    """Judge an artifact. Accuracy uses all test items: nothing was chosen with them here.

    Raises:
        DataError: when the data do not fit the artifact.
        DeviceError, RuntimeFailureError: when it cannot be measured.
    """
    measurement, machine = measure(artifact, baseline, profile, device, task)
    if task is not None and task.test is not None:
        part = task.everything
        threads = device.machine().cores
        scores = score(runtime, artifact, part, task, threads, profile.runtime.options)
        before = {}
        if baseline is not None:
            before["score"] = score(runtime, baseline, part, task, threads, profile.runtime.options)
        measurement = measurement.with_(Measurement({"score": scores}, before))
    return Check(artifact, measurement, judge_by(profile, measurement), machine)
