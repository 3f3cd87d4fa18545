"""Deciding: where a budget stands, given the bounds of what it limits."""

from __future__ import annotations

import math

from autocompress.core.budget import Budget, Direction
from autocompress.core.verdict import Finding, Standing


def decide(
    budget: Budget, value: float, low: float, high: float, *, samples: int, note: str = "", needed: int | None = None
) -> Finding:
    """The finding on a budget: met when the far bound keeps it, exceeded when the near bound breaks it."""
    at_most = budget.direction is Direction.AT_MOST
    met = high <= budget.limit if at_most else low >= budget.limit
    broken = low > budget.limit if at_most else high < budget.limit
    standing = Standing.MET if met else Standing.EXCEEDED if broken else Standing.UNDECIDED
    bounds = "" if low == high else f" ({_number(low)} to {_number(high)})"
    unit = "x" if budget.relative else f" {budget.unit}"
    sign = "at most" if at_most else "at least"
    sentence = f"{_number(value)}{unit}{bounds}, {sign} {budget.text}{'; ' + note if note else ''}"
    return Finding(
        budget,
        standing,
        value,
        low if math.isfinite(low) else None,
        high if math.isfinite(high) else None,
        needed,
        samples,
        sentence,
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "unbounded"


def decide_with_need(
    budget: Budget, value: float, low: float, high: float, n: int, note: str, needed: int | None
) -> Finding:
    """A finding that, where it is undecided, includes how many more items would decide."""
    finding = decide(budget, value, low, high, samples=n, note=note)
    if finding.standing is not Standing.UNDECIDED:
        return finding
    more = f"about {needed} more items are needed" if needed else "it lies at the limit"
    more = f"{note}; {more}" if note else more
    return decide(budget, value, low, high, samples=n, note=more, needed=needed)


def unmeasured(budget: Budget, why: str) -> Finding:
    """The finding on a budget for which there is no measurement."""
    return Finding(budget, Standing.UNMEASURED, sentence=why)
