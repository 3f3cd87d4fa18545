"""Findings on accuracy budgets: bounds of the score or of its drop, by what is known about the score."""

from __future__ import annotations

import math
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autocompress.core.budget import Budget
from autocompress.core.measurement import Measurement, Reading, is_binary
from autocompress.core.score_bounds import RATE, Bounds, is_within
from autocompress.core.verdict import Finding, Standing
from autocompress.statistics.betting import bounded_mean_bounds, items_for_bounded_mean
from autocompress.statistics.bootstrap import mean_bounds, replicate_bounds
from autocompress.statistics.bounds import drop_bounds, items_needed, rate_bounds
from autocompress.statistics.deciding import decide, decide_with_need, unmeasured

FLOATS = NDArray[np.float64]

ASYMPTOTIC = "the bound is asymptotic"
NO_RANGE = f"{ASYMPTOTIC}: the score's range is not known (score_bounds)"


class ScoreKind(Enum):
    """What is known about a score, which says how it may be judged.

    `BINARY` answers are right or wrong. `BOUNDED` scores lie in a known range: their bounds hold whenever reading
    stops. `OPEN` are scores without a known range and figures of all items together: their bounds hold for many items,
    read to the end.
    """

    BINARY = "right or wrong"
    BOUNDED = "in a known range"
    OPEN = "without a known range"


def score_kind(budget: Budget, measurement: Measurement) -> ScoreKind:
    """The kind of the measured score, as far as the scores at hand show it; `OPEN` where there are none."""
    reading, baseline = measurement.readings.get("score"), measurement.baseline.get("score")
    known = None if reading is None else _range(budget, reading, baseline)
    if reading is None or known is None:
        return ScoreKind.OPEN
    compared = [reading.samples] if baseline is None else [reading.samples, baseline.samples]
    return ScoreKind.BINARY if is_within(known, RATE) and is_binary(*compared) else ScoreKind.BOUNDED


def _range(budget: Budget, reading: Reading, baseline: Reading | None) -> Bounds | None:
    """The known range of each item's score, None when there is none.

    A budget in points says itself that the score is a rate.
    """
    if reading.items is not None:
        return None
    known = reading.bounds if baseline is None or baseline.bounds == reading.bounds else None
    if known is None and budget.metric != "max_score_drop" and _is_rate(reading, baseline):
        return RATE
    return known


def _is_rate(reading: Reading, baseline: Reading | None) -> bool:
    return all(_holds_rates(one) for one in (reading, baseline) if one is not None)


def _holds_rates(reading: Reading) -> bool:
    values = reading.samples
    if reading.bounds is not None:
        return is_within(reading.bounds, RATE)
    return bool(values.min() >= 0 and values.max() <= 1) if values.size else True


def accuracy_finding(budget: Budget, measurement: Measurement, alpha: float) -> Finding:
    """The finding on a budget of score or drop; each bound is one-sided at `alpha`."""
    reading, baseline = measurement.readings.get("score"), measurement.baseline.get("score")
    if reading is None:
        return unmeasured(budget, "accuracy was not measured")
    score = reading.samples
    if len(score) == 0 or reading.items == 0:
        return Finding(budget, Standing.UNDECIDED, sentence="there are no items to judge it by")
    if budget.metric != "max_score_drop" and not _is_rate(reading, baseline):
        return unmeasured(budget, "the score is no rate between 0 and 1; limit max_score_drop instead")
    if reading.items is not None:
        return _aggregate(budget, reading, measurement, alpha)
    if budget.metric == "min_accuracy":
        return _floor(budget, score, alpha)
    if measurement.unchanged:
        return decide(budget, 0.0, 0.0, 0.0, samples=len(score), note="the baseline itself")
    if baseline is None or baseline.samples.shape != score.shape:
        return unmeasured(budget, "the baseline's scores of the same items are missing")
    return _drop(budget, baseline.samples, score, _range(budget, reading, baseline), alpha)


def _floor(budget: Budget, score: FLOATS, alpha: float) -> Finding:
    value, limit, n = 100 * float(score.mean()), budget.limit / 100, len(score)
    if is_binary(score):
        low, high = rate_bounds(int(score.sum()), n, alpha)
        needed = _further_items(value - budget.limit, 100 * float(score.std()) / math.sqrt(n), n, alpha)
    else:
        low, high = bounded_mean_bounds(score, *RATE, alpha)
        needed = _beyond(n, items_for_bounded_mean(score, *RATE, limit, alpha))
    return decide_with_need(budget, value, 100 * low, 100 * high, n, "", needed)


def _drop(budget: Budget, baseline: FLOATS, score: FLOATS, known: Bounds | None, alpha: float) -> Finding:
    scale = 100.0 if budget.metric == "max_accuracy_drop_pp" else 1.0
    n, limit = len(score), budget.limit / scale
    drops = baseline - score
    value = scale * float(drops.mean())
    if is_binary(baseline, score) and (known is None or is_within(known, RATE)):
        lost, gained = int((drops > 0).sum()), int((drops < 0).sum())
        low, high = drop_bounds(lost, gained, n, alpha)
        needed = _beyond(n, items_needed(lost, gained, n, limit, alpha))
        note = f"{lost} of {n} items lost, {gained} won"
    elif known is not None:
        reach = known[1] - known[0]
        low, high = bounded_mean_bounds(drops, -reach, reach, alpha)
        needed = _beyond(n, items_for_bounded_mean(drops, -reach, reach, limit, alpha))
        note = f"mean over {n:,} items"
    else:
        low, high = mean_bounds(drops, alpha) if drops.any() else _unchanged_bounds(score, alpha)
        needed = _further_items(value - budget.limit, scale * float(drops.std()) / math.sqrt(n), n, alpha)
        note = f"mean over {n:,} items"
    note = note if known is not None else f"{note}; {NO_RANGE}"
    return decide_with_need(budget, value, scale * low, scale * high, n, note, needed)


def _unchanged_bounds(score: FLOATS, alpha: float) -> tuple[float, float]:
    """Bounds of the drop when no item changed.

    With confidence 1 - alpha at most 1 - alpha^(1/n) of all items do, taken to change by at most the observed range.
    """
    share = 1.0 - alpha ** (1.0 / len(score))
    reach = share * float(score.max() - score.min())
    return -reach, reach


def _beyond(n: int, total: int | None) -> int | None:
    """How many more than the `n` items at hand a total number is, at least one."""
    return None if total is None else max(1, total - n)


def _further_items(gap: float, error: float, n: int, alpha: float) -> int | None:
    """How many more items are needed until a normal bound clears a limit that lies `gap` away.

    `n` items are at hand, and `error` is the standard error with them; it falls with the root of their number. None
    when the value lies at the limit.
    """
    if gap == 0 or not math.isfinite(error):
        return None
    total = n * (float(stats.norm.isf(alpha)) * error / gap) ** 2
    return max(1, math.ceil(total) - n) if math.isfinite(total) else None


def _aggregate(budget: Budget, reading: Reading, measurement: Measurement, alpha: float) -> Finding:
    """A finding on a score of all items together, by paired bootstrap over the items."""
    items = reading.items or 0
    baseline = measurement.baseline.get("score")
    if budget.metric == "min_accuracy":
        drawn = 100 * reading.samples
    elif measurement.unchanged:
        return decide(budget, 0.0, 0.0, 0.0, samples=items, note="the baseline itself")
    elif baseline is None or baseline.items != items or baseline.samples.shape != reading.samples.shape:
        return unmeasured(budget, "the baseline's score of the same items is missing")
    else:
        drawn = (1 if budget.metric == "max_score_drop" else 100) * (baseline.samples - reading.samples)
    low, high = replicate_bounds(drawn, alpha)
    value = float(drawn[0])
    error = float(drawn[1:].std()) if np.isfinite(drawn).all() else math.inf
    needed = _further_items(value - budget.limit, error, items, alpha)
    note = f"{reading.unit} over {items:,} items; {ASYMPTOTIC}"
    return decide_with_need(budget, value, low, high, items, note, needed)
