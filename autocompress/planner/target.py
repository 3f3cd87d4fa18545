"""The target: latency and size that the budgets ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autocompress.core.verdict import Verdict

# predictions err by a few hundredths, and a structure that only just fits is not trained
EXPECTED_ROOM = 0.95
# a briefly measured latency counts as a miss only when it exceeds its limit by this factor
CLEARLY = 1.03


@dataclass(frozen=True)
class Target:
    """Latency and size to reach, as shares of the baseline; None where no budget asks for any.

    `shrinks` names the one of the two that counts once the target is reached.
    """

    latency: float | None
    size: float | None
    shrinks: Literal["latency", "size"] = "latency"

    def tighter(self, factor: float) -> Target:
        """The target with its limits multiplied by a factor."""
        latency, size = (None if limit is None else factor * limit for limit in (self.latency, self.size))
        return replace(self, latency=latency, size=size)

    def reached(self, latency: float, size: float, factor: float = 1.0) -> bool:
        """True when both lie below `factor` times the target; False where the target asks for nothing."""
        asked = [(self.latency, latency), (self.size, size)]
        return any(limit is not None for limit, _ in asked) and all(
            limit is None or value <= factor * limit for limit, value in asked
        )

    def missed(self, latency: float, size: float) -> list[str]:
        """Sentences on the limits that these values miss.

        Latency has to miss its limit clearly, since it is noisy.
        """
        asked = [("latency", self.latency, latency, CLEARLY), ("size", self.size, size, 1.0)]
        return [
            f"{name} {value:.3g}x where {limit:.3g}x is asked"
            for name, limit, value, margin in asked
            if limit is not None and value > margin * limit
        ]

    def expected(self, predicted: Sequence[tuple[float, float]]) -> tuple[int, bool]:
        """The index of the first prediction expected to reach the target, and True; else the last, and False."""
        reached = [self.reached(latency, size, EXPECTED_ROOM) for latency, size in predicted]
        return (reached.index(True), True) if True in reached else (len(reached) - 1, False)

    def progress(self, before: tuple[float, float], after: tuple[float, float], start: tuple[float, float]) -> float:
        """The part of the distance from `start` to the target that a move covers.

        Once the target is reached, it is the share of latency or size that the move saves.
        """
        covered = 0.0
        for limit, old, new, first in zip((self.latency, self.size), before, after, start, strict=True):
            if limit is not None and old > limit and first > limit:
                covered += (old - max(new, limit)) / (first - limit)
        axis = 0 if self.shrinks == "latency" else 1
        return covered if covered > 0 else (before[axis] - after[axis]) / start[axis] * 1e-3


def target_of(baseline: Verdict, shrinks: Literal["latency", "size"] | None = None) -> Target:
    """The target that the budgets set, as shares of the baseline that the verdict `baseline` judges."""

    def share(*metrics: str) -> float | None:
        found = [f for f in baseline.findings if f.budget.metric in metrics and f.value]
        shares = [1 / f.overshoot for f in found if 0 < f.overshoot < float("inf")]
        return min(shares, default=None)

    latency, size = share("latency_ms", "throughput_per_s"), share("size_mb", "download_mb")
    return Target(latency, size, shrinks or "latency")
