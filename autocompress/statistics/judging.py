"""Judging: compares measurements with budgets at a stated error probability.

Missing evidence never passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autocompress.core.budget import ACCURACY_METRICS, TIME_METRICS, Budget, Direction
from autocompress.core.measurement import Measurement, Reading, is_binary
from autocompress.core.profile import Profile
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.statistics.bootstrap import mean_bounds, replicate_bounds
from autocompress.statistics.bounds import drop_bounds, items_needed, least_values, median_bounds, rate_bounds, spend
from autocompress.statistics.sequential import readings

FLOATS = NDArray[np.float64]
# what a single reading tells exactly
EXACT = ("size_mb", "download_mb")


def judge(
    budgets: Sequence[Budget],
    measurement: Measurement,
    alpha: float,
    *,
    accuracy_alpha: float | None = None,
    statistic: str = "p50",
) -> Verdict:
    """Judge a measurement: one finding per budget.

    Each bound is one-sided at `alpha`; `accuracy_alpha` replaces it for accuracy, where several looks at the same
    items share one error probability. Bounds on time are taken over the loads of the file, those on memory over
    processes. A budget is met only when the far bound keeps it, exceeded when the near bound breaks it.
    """
    findings = []
    for budget in budgets:
        if budget.metric in EXACT:
            findings.append(_exact(budget, measurement))
        elif budget.metric == "memory_mb" or budget.metric in TIME_METRICS:
            findings.append(_repeated(budget, measurement, alpha, statistic))
        elif budget.metric in ACCURACY_METRICS:
            findings.append(_accuracy(budget, measurement, accuracy_alpha or alpha))
    return Verdict(tuple(findings))


def judge_by(profile: Profile, measurement: Measurement, accuracy_alpha: float | None = None) -> Verdict:
    """Judge a measurement at the profile's confidence and statistic; see `judge`."""
    return judge(
        profile.budgets,
        measurement,
        profile.alpha,
        accuracy_alpha=accuracy_alpha,
        statistic=profile.protocol.statistic,
    )


def forecast(profile: Profile, measurement: Measurement, items: int, look: int) -> bool:
    """True when accuracy budgets would be met with `items` holdout items that behave like those measured.

    Where the forecast only just succeeds, the chance of confirmation is about one half. `look` counts looks at the
    holdout.
    """
    taken, baseline = measurement.readings, measurement.baseline
    if "score" not in taken:
        return True
    after, before = (_as_many(r["score"], items) for r in (taken, baseline))
    more = replace(measurement, readings={**taken, "score": after}, baseline={**baseline, "score": before})
    findings = judge_by(profile, more, last_level(profile, items, spend(profile.alpha, look))).findings
    return all(f.standing is Standing.MET for f in findings if f.budget.metric in ACCURACY_METRICS)


def _as_many(score: Reading, items: int) -> Reading:
    """The reading extended to so many items at the same rates."""
    if score.items is None:
        return replace(score, samples=score.samples[np.arange(items) % len(score.samples)])
    narrowed = score.value + (score.samples - score.value) * math.sqrt(score.items / items)
    return replace(score, samples=narrowed, items=items)


def look_until_clear(
    profile: Profile, items: int, alpha: float, take: Callable[[int], Measurement]
) -> tuple[Measurement, float]:
    """Score items until the accuracy budgets are decided; gives the scores and the error probability.

    At most `items` items are scored, and the scores are to be judged at that probability. `take(count)` measures the
    first `count` in a random order. Each reading is judged at its own level, so that all of them together err with
    `alpha` (see `sequential`); it ends when every accuracy budget is met or exceeded. Where nothing could be decided
    early everything is read at once, at `alpha`.
    """
    asked = [budget for budget in profile.budgets if budget.metric in ACCURACY_METRICS]
    for count, level in _looks(profile, items, alpha) if asked else [(items, alpha)]:
        measurement = take(count)
        findings = judge(asked, measurement, profile.alpha, accuracy_alpha=level).findings
        if all(finding.standing in (Standing.MET, Standing.EXCEEDED) for finding in findings):
            break
    return measurement, level


def last_level(profile: Profile, items: int, alpha: float) -> float:
    """The error probability left for judging all `items` when they are read in chunks."""
    return _looks(profile, items, alpha)[-1][1]


def _looks(profile: Profile, items: int, alpha: float) -> Sequence[tuple[int, float]]:
    """Items read and error probability at each reading; a single one where the profile reads all at once."""
    return [(items, alpha)] if profile.protocol.items == "all" or items == 0 else readings(items, alpha)


def decide_again(budget: Budget, earlier: Finding, note: str) -> Finding:
    """Judge a budget by the bounds of an earlier finding on the same metric.

    This is possible because bounds do not depend on the limit.
    """
    if earlier.value is None:
        return _unmeasured(budget, note)
    low = -math.inf if earlier.low is None else earlier.low
    high = math.inf if earlier.high is None else earlier.high
    return _decide(budget, earlier.value, low, high, samples=earlier.samples, note=note)


def _unmeasured(budget: Budget, why: str) -> Finding:
    return Finding(budget, Standing.UNMEASURED, sentence=why)


def _exact(budget: Budget, measurement: Measurement) -> Finding:
    reading = measurement.readings.get(budget.metric)
    if reading is None:
        return _unmeasured(budget, "was not measured")
    value = reading.value
    if budget.relative:
        baseline = measurement.baseline.get(budget.metric)
        if baseline is None or baseline.value <= 0:
            return _unmeasured(budget, "the baseline was not measured")
        value /= baseline.value
    return _decide(budget, value, value, value, samples=1)


def _repeated(budget: Budget, measurement: Measurement, alpha: float, statistic: str) -> Finding:
    metric = budget.metric
    if metric != "latency_ms":
        # energy and throughput are totals of a block, and a process has one peak of memory
        statistic = "mean"
    reading, baseline = measurement.readings.get(metric), measurement.baseline.get(metric)
    if reading is None:
        no_counter = metric == "energy_mj" and "latency_ms" in measurement.readings
        what = metric.split("_")[0]
        return _unmeasured(budget, f"no {what} counter can be read here" if no_counter else f"{what} was not measured")
    if budget.relative and baseline is None:
        return _unmeasured(budget, "the baseline was not measured")
    if budget.relative and measurement.unchanged:
        return _decide(budget, 1.0, 1.0, 1.0, samples=1, note="the baseline itself")
    if budget.relative and baseline is not None and (baseline.samples <= 0).any():
        return _unmeasured(budget, "the baseline's is 0")
    loads = measurement.load_ratios(metric, statistic) if budget.relative else reading.load_statistic(statistic)
    low, high = median_bounds(loads, alpha)
    value = float(np.median(loads))
    few = _too_few_processes if metric == "memory_mb" else too_few
    return _decide(budget, value, low, high, samples=len(loads), note=few(len(loads), measurement, alpha))


def _too_few_processes(processes: int, measurement: Measurement, alpha: float) -> str:
    least = least_values(alpha)
    counted = "1 process is" if processes == 1 else f"{processes} processes are"
    return "" if processes >= least else f"{counted} too few for an interval, which takes {least}"


def too_few(loads: int, measurement: Measurement, alpha: float) -> str:
    """Says that so many loads of a file are too few for an interval; empty where they are enough."""
    least = least_values(alpha)
    if loads >= least:
        return ""
    seconds = measurement.conditions.max_seconds if measurement.conditions else None
    within = "" if seconds is None else f" in {seconds:g} s"
    counted = f"1 load{within} is" if loads == 1 else f"{loads} loads{within} are"
    return f"{counted} too few for an interval, which takes {least}: raise protocol.max_seconds"


def _accuracy(budget: Budget, measurement: Measurement, alpha: float) -> Finding:
    reading = measurement.readings.get("score")
    if reading is None:
        return _unmeasured(budget, "accuracy was not measured")
    score = reading.samples
    if len(score) == 0 or reading.items == 0:
        return Finding(budget, Standing.UNDECIDED, sentence="there are no items to judge it by")
    if reading.items is not None:
        return _aggregate(budget, reading, measurement, alpha)
    if budget.metric != "max_score_drop" and not _is_rate(score, measurement.baseline.get("score")):
        return _unmeasured(budget, "the score is no rate between 0 and 1; limit max_score_drop instead")
    if budget.metric == "min_accuracy":
        return _floor(budget, score, alpha)
    if measurement.unchanged:
        return _decide(budget, 0.0, 0.0, 0.0, samples=len(score), note="the baseline itself")
    baseline = measurement.baseline.get("score")
    if baseline is None or baseline.samples.shape != score.shape:
        return _unmeasured(budget, "the baseline's scores of the same items are missing")
    return _drop(budget, baseline.samples, score, alpha)


def _is_rate(score: FLOATS, baseline: Reading | None) -> bool:
    values = np.concatenate([score.ravel(), baseline.samples.ravel() if baseline is not None else ()])
    return bool(values.min() >= 0 and values.max() <= 1)


def _floor(budget: Budget, score: FLOATS, alpha: float) -> Finding:
    low, high = rate_bounds(int(score.sum()), len(score), alpha) if is_binary(score) else mean_bounds(score, alpha)
    value, n = 100 * float(score.mean()), len(score)
    needed = _further_items(value - budget.limit, 100 * float(score.std()) / math.sqrt(n), n, alpha)
    return _decide_with_need(budget, value, 100 * low, 100 * high, n, "", needed)


def _further_items(gap: float, error: float, n: int, alpha: float) -> int | None:
    """How many more items are needed until a normal bound clears a limit that lies `gap` away.

    `n` items are at hand, and `error` is the standard error with them; it falls with the root of their number. None
    when the value lies at the limit.
    """
    if gap == 0 or not math.isfinite(error):
        return None
    total = n * (float(stats.norm.isf(alpha)) * error / gap) ** 2
    return max(1, math.ceil(total) - n) if math.isfinite(total) else None


def _decide_with_need(
    budget: Budget, value: float, low: float, high: float, n: int, note: str, needed: int | None
) -> Finding:
    """A finding that, where it is undecided, includes how many more items would decide."""
    finding = _decide(budget, value, low, high, samples=n, note=note)
    if finding.standing is not Standing.UNDECIDED:
        return finding
    more = f"about {needed} more items are needed" if needed else "it lies at the limit"
    more = f"{note}; {more}" if note else more
    return _decide(budget, value, low, high, samples=n, note=more, needed=needed)


def _drop(budget: Budget, baseline: FLOATS, score: FLOATS, alpha: float) -> Finding:
    scale = 100.0 if budget.metric == "max_accuracy_drop_pp" else 1.0
    n = len(score)
    needed = None
    if is_binary(baseline, score):
        lost, gained = int(((baseline == 1) & (score == 0)).sum()), int(((baseline == 0) & (score == 1)).sum())
        low, high = drop_bounds(lost, gained, n, alpha)
        total = items_needed(lost, gained, n, budget.limit / scale, alpha)
        needed = None if total is None else total - n
        changes = f"{lost} of {n} items lost, {gained} won"
    else:
        low, high = _mean_drop_bounds(baseline, score, alpha)
        drops = scale * (baseline - score)
        needed = _further_items(float(drops.mean()) - budget.limit, float(drops.std()) / math.sqrt(n), n, alpha)
        changes = f"mean over {n} items"
    value = scale * float((baseline - score).mean())
    return _decide_with_need(budget, value, scale * low, scale * high, n, changes, needed)


def _mean_drop_bounds(baseline: FLOATS, score: FLOATS, alpha: float) -> tuple[float, float]:
    if np.any(baseline != score):
        return mean_bounds(baseline - score, alpha)
    # no item changed: with confidence 1 - alpha at most 1 - alpha^(1/n) of all items do, by at most the scores' range
    share = 1.0 - alpha ** (1.0 / len(score))
    reach = share * float(score.max() - score.min())
    return -reach, reach


def _aggregate(budget: Budget, reading: Reading, measurement: Measurement, alpha: float) -> Finding:
    """A finding on a score of all items together, by paired bootstrap over the items."""
    items = reading.items or 0
    rate = budget.metric != "max_score_drop"
    baseline = measurement.baseline.get("score")
    if rate and not _is_rate(reading.samples, baseline):
        return _unmeasured(budget, "the score is no rate between 0 and 1; limit max_score_drop instead")
    if budget.metric == "min_accuracy":
        drawn = 100 * reading.samples
    elif measurement.unchanged:
        return _decide(budget, 0.0, 0.0, 0.0, samples=items, note="the baseline itself")
    elif baseline is None or baseline.items != items or baseline.samples.shape != reading.samples.shape:
        return _unmeasured(budget, "the baseline's score of the same items is missing")
    else:
        drawn = (100 if rate else 1) * (baseline.samples - reading.samples)
    low, high = replicate_bounds(drawn, alpha)
    value = float(drawn[0])
    error = float(drawn[1:].std()) if np.isfinite(drawn).all() else math.inf
    needed = _further_items(value - budget.limit, error, items, alpha)
    return _decide_with_need(budget, value, low, high, items, f"{reading.unit} over {items} items", needed)


def _decide(
    budget: Budget, value: float, low: float, high: float, *, samples: int, note: str = "", needed: int | None = None
) -> Finding:
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
