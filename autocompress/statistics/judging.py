"""Judging: compares measurements with budgets at a stated error probability.

Missing evidence never passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autocompress.core.budget import ACCURACY_METRICS, TIME_METRICS, Budget
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.profile import Profile
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.statistics.accuracy import ASYMPTOTIC, ScoreKind, accuracy_finding, score_kind
from autocompress.statistics.bounds import least_values, median_bounds, spend
from autocompress.statistics.deciding import decide, unmeasured
from autocompress.statistics.sequential import readings

# what a single reading tells exactly
EXACT = ("size_mb", "download_mb")


def judge(
    budgets: Sequence[Budget],
    measurement: Measurement,
    alpha: float,
    *,
    accuracy_alpha: float | None = None,
    statistic: str = "p50",
    shapes: Sequence[str] = ("",),
) -> Verdict:
    """Judge a measurement: one finding per budget, and per set of input shapes for what is timed.

    `shapes` names these sets, the largest last. All findings have to be met, so each may be judged at the full error
    probability: an intersection-union test (Berger 1982) has no larger one.

    Each bound is one-sided at `alpha`; `accuracy_alpha` replaces it for accuracy, where several looks at the same
    items share one error probability. Bounds on time are taken over the loads of the file, those on memory over
    processes. A budget is met only when the far bound keeps it, exceeded when the near bound breaks it.
    """
    findings = []
    for budget in budgets:
        if budget.metric in EXACT:
            findings.append(_exact(budget, measurement))
        elif budget.metric == "memory_mb" or budget.metric in TIME_METRICS:
            findings += [
                replace(_repeated(budget, _at(measurement, name, shapes[-1]), alpha, statistic), shapes=name)
                for name in shapes
            ]
        elif budget.metric in ACCURACY_METRICS:
            findings.append(accuracy_finding(budget, measurement, accuracy_alpha or alpha))
    return Verdict(tuple(findings))


def judge_by(profile: Profile, measurement: Measurement, accuracy_alpha: float | None = None) -> Verdict:
    """Judge a measurement at the profile's confidence and statistic; see `judge`."""
    return judge(
        profile.budgets,
        measurement,
        profile.alpha,
        accuracy_alpha=accuracy_alpha,
        statistic=profile.protocol.statistic,
        shapes=tuple(profile.input_sets),
    )


def _at(measurement: Measurement, shapes: str, largest: str) -> Measurement:
    """The measurement at the input shapes of that name; empty where none was taken."""
    return measurement if shapes == largest else measurement.smaller.get(shapes, Measurement())


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
    alpha = spend(profile.alpha, look)
    level = last_level(profile, items, alpha) if ScoreKind.BINARY in _kinds(profile, more) else alpha
    findings = judge_by(profile, more, level).findings
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
    first `count` in a random order; all readings together err with `alpha`. It ends when every accuracy budget is met
    or exceeded. Right or wrong answers are judged at a level of their own at each reading (see `sequential`), scores in
    a known range at `alpha` each time (see `betting`). Everything is read where the range is not known or the figure is
    one of all items together: their bounds do not hold at a moment that was chosen by the scores.
    """
    asked = [budget for budget in profile.budgets if budget.metric in ACCURACY_METRICS]
    if not asked or items == 0:
        return take(items), alpha
    left = alpha
    for count, own_level in _looks(profile, items, alpha):
        measurement = take(count)
        kinds = _kinds(profile, measurement)
        level = own_level if ScoreKind.BINARY in kinds else left
        if ScoreKind.OPEN in kinds:
            return measurement if count == items else take(items), level
        findings = judge(asked, measurement, profile.alpha, accuracy_alpha=level).findings
        if all(finding.standing in (Standing.MET, Standing.EXCEEDED) for finding in findings):
            break
        if ScoreKind.BINARY in kinds:
            # what later readings may still err with, should one of them show scores that are neither right nor wrong
            left = alpha * (1 - count / items)
    return measurement, level


def _kinds(profile: Profile, measurement: Measurement) -> set[ScoreKind]:
    return {score_kind(budget, measurement) for budget in profile.budgets if budget.metric in ACCURACY_METRICS}


def last_level(profile: Profile, items: int, alpha: float) -> float:
    """The error probability of the last reading, of all `items`, where scores are right or wrong."""
    return _looks(profile, items, alpha)[-1][1]


def _looks(profile: Profile, items: int, alpha: float) -> Sequence[tuple[int, float]]:
    """Items read and error probability at each reading; a single one where the profile reads all at once."""
    return [(items, alpha)] if profile.protocol.items == "all" or items == 0 else readings(items, alpha)


def decide_again(budget: Budget, earlier: Finding, note: str) -> Finding:
    """Judge a budget by the bounds of an earlier finding on the same metric.

    This is possible because bounds do not depend on the limit.
    """
    if earlier.value is None:
        return unmeasured(budget, note)
    low = -math.inf if earlier.low is None else earlier.low
    high = math.inf if earlier.high is None else earlier.high
    note = f"{note}; {ASYMPTOTIC}" if ASYMPTOTIC in earlier.sentence else note
    return decide(budget, earlier.value, low, high, samples=earlier.samples, note=note)


def _exact(budget: Budget, measurement: Measurement) -> Finding:
    reading = measurement.readings.get(budget.metric)
    if reading is None:
        return unmeasured(budget, "was not measured")
    value = reading.value
    if budget.relative:
        baseline = measurement.baseline.get(budget.metric)
        if baseline is None or baseline.value <= 0:
            return unmeasured(budget, "the baseline was not measured")
        value /= baseline.value
    return decide(budget, value, value, value, samples=1)


def _repeated(budget: Budget, measurement: Measurement, alpha: float, statistic: str) -> Finding:
    metric = budget.metric
    if metric != "latency_ms":
        # energy and throughput are totals of a block, and a process has one peak of memory
        statistic = "mean"
    reading, baseline = measurement.readings.get(metric), measurement.baseline.get(metric)
    if reading is None:
        no_counter = metric == "energy_mj" and "latency_ms" in measurement.readings
        what = metric.split("_")[0]
        return unmeasured(budget, f"no {what} counter can be read here" if no_counter else f"{what} was not measured")
    if budget.relative and baseline is None:
        return unmeasured(budget, "the baseline was not measured")
    if budget.relative and measurement.unchanged:
        return decide(budget, 1.0, 1.0, 1.0, samples=1, note="the baseline itself")
    if budget.relative and baseline is not None and (baseline.samples <= 0).any():
        return unmeasured(budget, "the baseline's is 0")
    loads = measurement.load_ratios(metric, statistic) if budget.relative else reading.load_statistic(statistic)
    low, high = median_bounds(loads, alpha)
    value = float(np.median(loads))
    few = _too_few_processes if metric == "memory_mb" else too_few
    return decide(budget, value, low, high, samples=len(loads), note=few(len(loads), measurement, alpha))


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
