"""Trials: plans that were built and measured, and how that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.verdict import Verdict


class Outcome(StrEnum):
    """How a trial ended; CLAIMED means that it is still running."""

    CLAIMED = "claimed"
    MEASURED = "measured"
    STOPPED = "stopped"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, eq=False)
class Trial:
    """One plan that was tried, with its measurement, verdict and outcome.

    `stopped_by` names the budget whose measurement ended the trial; `fidelity` is the share of the recovery
    that was spent; `seconds` maps activities (build, size, latency, accuracy) to the seconds they took.
    """

    number: int
    plan: Plan
    outcome: Outcome
    measurement: Measurement = field(default_factory=Measurement)
    verdict: Verdict = field(default_factory=Verdict)
    reason: str = ""
    stopped_by: str = ""
    fidelity: float = 1.0
    artifact_hash: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def promising(self) -> bool:
        """True when it was measured, exceeds no budget, and every value is on the right side of its limit."""
        if self.outcome is not Outcome.MEASURED or not self.verdict.findings:
            return False
        return all(f.value is None or f.overshoot <= 1.0 for f in self.verdict.findings) and (
            self.verdict.status != "not met"
        )

    def to_json(self) -> dict[str, Any]:
        """The trial as a JSON object."""
        return {
            "plan": self.plan.to_json(),
            "outcome": str(self.outcome),
            "measurement": self.measurement.to_json(),
            "verdict": self.verdict.to_json(),
            "reason": self.reason,
            "stopped_by": self.stopped_by,
            "fidelity": self.fidelity,
            "artifact_hash": self.artifact_hash,
            "seconds": dict(self.seconds),
        }

    @staticmethod
    def from_json(number: int, data: Mapping[str, Any]) -> Trial:
        """The trial that `to_json` wrote."""
        return Trial(
            number,
            Plan.from_json(data["plan"], where=f"trial {number}"),
            Outcome(data["outcome"]),
            Measurement.from_json(data["measurement"]),
            Verdict.from_json(data["verdict"]),
            data["reason"],
            data["stopped_by"],
            data["fidelity"],
            data["artifact_hash"],
            data["seconds"],
        )
