"""Verdicts: whether measurements meet each budget, at a stated confidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from autocompress.core.budget import Budget, Direction


class Standing(StrEnum):
    """Whether a measurement meets a budget, at the stated confidence."""

    MET = "met"
    EXCEEDED = "exceeded"
    UNDECIDED = "undecided"
    UNMEASURED = "unmeasured"


class Status(StrEnum):
    """The overall answer for all budgets."""

    MET = "met"
    NOT_MET = "not met"
    UNDECIDED = "undecided"

    @property
    def exit_code(self) -> int:
        """The command line's exit code for this answer."""
        return {Status.MET: 0, Status.NOT_MET: 1, Status.UNDECIDED: 3}[self]


@dataclass(frozen=True)
class Finding:
    """The judgement of one budget.

    `value`, `limit`, `low`, `high` are in the metric's unit (or shares of the baseline for a relative budget);
    `low` and `high` bound the true value, each one-sided at the stated confidence. `needed` is the number of
    further items that would decide at the observed rates. `shapes` names the input shapes that calls were timed at,
    where the profile gives several sets of them.
    """

    budget: Budget
    standing: Standing
    value: float | None = None
    low: float | None = None
    high: float | None = None
    needed: int | None = None
    samples: int = 0
    sentence: str = ""
    shapes: str = ""

    @property
    def name(self) -> str:
        """The metric, and the input shapes where there are several: `latency_ms at 1x128`."""
        return f"{self.budget.metric} at {self.shapes}" if self.shapes else self.budget.metric

    @property
    def asked(self) -> str:
        """The budget as a person writes it, with the input shapes where there are several."""
        return f"{self.budget} at {self.shapes}" if self.shapes else str(self.budget)

    @property
    def limit(self) -> float:
        """The limit in the unit of `value`."""
        return self.budget.limit

    @property
    def bound(self) -> float | None:
        """The bound of the true value that has to be on the right side of the limit; None where there is none."""
        return self.high if self.budget.direction is Direction.AT_MOST else self.low

    @property
    def overshoot(self) -> float:
        """The ratio of the value to its limit: 1.0 is exactly at it, above 1 is past it.

        Accuracy drops may be zero or negative, so theirs is 1 + (value - limit) / max(limit, 1).
        """
        if self.value is None:
            return float("inf")
        if not self.budget.structural:
            gap = self.value - self.limit if self.budget.metric != "min_accuracy" else self.limit - self.value
            return max(0.0, 1.0 + gap / max(self.limit if self.budget.metric != "min_accuracy" else 1.0, 1.0))
        ratio = self.value / self.limit
        if self.budget.metric == "throughput_per_s":
            return 1.0 / ratio if ratio > 0 else float("inf")
        return ratio

    def to_json(self) -> dict[str, Any]:
        """The finding as a JSON object."""
        return {
            "metric": self.budget.metric,
            "budget": self.budget.text,
            "limit": self.limit,
            "relative": self.budget.relative,
            "standing": str(self.standing),
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "needed": self.needed,
            "samples": self.samples,
            "sentence": self.sentence,
            "shapes": self.shapes,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Finding:
        """The finding that `to_json` wrote."""
        return Finding(
            Budget(data["metric"], data["limit"], data["relative"]),
            Standing(data["standing"]),
            **{key: data[key] for key in ("value", "low", "high", "needed", "samples", "sentence")},
            shapes=data.get("shapes", ""),
        )


@dataclass(frozen=True)
class Verdict:
    """The findings on all budgets.

    Missing evidence never passes: without findings, or with one unmeasured, the verdict is not met.
    """

    findings: tuple[Finding, ...] = ()

    @property
    def status(self) -> Status:
        """Met only if there is at least one finding and all are met; any exceeded makes it not met."""
        standings = {finding.standing for finding in self.findings}
        if Standing.EXCEEDED in standings:
            return Status.NOT_MET
        return Status.MET if standings == {Standing.MET} else Status.UNDECIDED

    @property
    def structural(self) -> Verdict:
        """The findings on budgets that structure alone decides: size, time, memory, energy."""
        return Verdict(tuple(finding for finding in self.findings if finding.budget.structural))

    @property
    def binding(self) -> Finding | None:
        """The finding that is farthest from being met, None when all are met."""
        return _worst(finding for finding in self.findings if finding.standing is not Standing.MET)

    @property
    def overshoot(self) -> float:
        """The worst ratio of a value to its limit over the budgets that were measured; above 1 is a miss."""
        known = (finding.overshoot for finding in self.findings if finding.value is not None)
        return max(known, default=float("inf"))

    def of(self, metric: str) -> Finding | None:
        """The finding on a metric, None when it has no budget; of several the one farthest from met."""
        return _worst(finding for finding in self.findings if finding.budget.metric == metric)

    def to_json(self) -> dict[str, Any]:
        """The verdict as a JSON object."""
        return {"status": str(self.status), "findings": [finding.to_json() for finding in self.findings]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Verdict:
        """The verdict that `to_json` wrote; the status is derived again."""
        return Verdict(tuple(Finding.from_json(finding) for finding in data["findings"]))


def _worst(findings: Iterable[Finding]) -> Finding | None:
    """The finding that is farthest from being met; None where there is none."""
    ranks = {Standing.EXCEEDED: 3, Standing.UNDECIDED: 2, Standing.UNMEASURED: 1, Standing.MET: 0}
    return max(findings, key=lambda f: (ranks[f.standing], f.overshoot if f.value is not None else 0.0), default=None)
