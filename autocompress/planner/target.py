"""What the budgets ask of latency and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from autocompress.core.verdict import Verdict

# what is predicted errs by a few hundredths, and what just fits is not trained
EXPECTED_ROOM = 0.95
# a latency that was measured briefly misses its limit when it is so many times as large
CLEARLY = 1.03


@dataclass(frozen=True)
class Target:
    """What is asked, as shares of the baseline; None where nothing is. `shrinks` is what counts beyond that."""

    latency: float | None
    size: float | None
    shrinks: Literal["latency", "size"] = "latency"

    def tighter(self, factor: float) -> Target:
        """The same with limits that are so many times as large."""
        latency, size = (None if limit is None else factor * limit for limit in (self.latency, self.size))
        return replace(self, latency=latency, size=size)

    def reached(self, latency: float, size: float, factor: float = 1.0) -> bool:
        """True when both lie below `factor` times what is asked; False where nothing is asked."""
        asked = [(self.latency, latency), (self.size, size)]
        return any(limit is not None for limit, _ in asked) and all(
            limit is None or value <= factor * limit for limit, value in asked
        )

    def missed(self, latency: float, size: float) -> list[str]:
        """What these values miss of what is asked, in words; latency has to miss it clearly, since it is noisy."""
        asked = [("latency", self.latency, latency, CLEARLY), ("size", self.size, size, 1.0)]
        return [
            f"{name} {value:.3g}x where {limit:.3g}x is asked"
            for name, limit, value, margin in asked
            if limit is not None and value > margin * limit
        ]

    def expected(self, predicted: Sequence[tuple[float, float]]) -> tuple[int, bool]:
        """The place of the first latency and size that are expected to keep what is asked, and True; else the last."""
        reached = [self.reached(latency, size, EXPECTED_ROOM) for latency, size in predicted]
        return (reached.index(True), True) if True in reached else (len(reached) - 1, False)

    def progress(self, before: tuple[float, float], after: tuple[float, float], start: tuple[float, float]) -> float:
        """How much of the way to the target a move covers; once there, the share of latency or size that it saves."""
        covered = 0.0
        for limit, old, new, first in zip((self.latency, self.size), before, after, start, strict=True):
            if limit is not None and old > limit and first > limit:
                covered += (old - max(new, limit)) / (first - limit)
        axis = 0 if self.shrinks == "latency" else 1
        return covered if covered > 0 else (before[axis] - after[axis]) / start[axis] * 1e-3


def target_of(baseline: Verdict, shrinks: Literal["latency", "size"] | None = None) -> Target:
    """What the budgets ask of latency and size, as shares of the baseline that `baseline` judges."""

    def share(*metrics: str) -> float | None:
        found = [f for f in baseline.findings if f.budget.metric in metrics and f.value]
        shares = [1 / f.overshoot for f in found if 0 < f.overshoot < float("inf")]
        return min(shares, default=None)

    latency, size = share("latency_ms", "throughput_per_s"), share("size_mb", "download_mb")
    return Target(latency, size, shrinks or "latency")
