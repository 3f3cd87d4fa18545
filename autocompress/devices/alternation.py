"""Blocks of calls in turn: warm until steady, as many as it takes, without those that the machine disturbed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autocompress.measurement import Reading
from autocompress.profile import Profile
from autocompress.statistics import median_bounds

FLOATS = NDArray[np.float64]
MIN_ROUNDS = 9
WARM_UP_SECONDS = 0.3
MOST_WARM_UP_SECONDS = 3.0
# a block counts as disturbed when a fixed piece of work right before or after it took so much longer than it mostly
# does
DRIFT = 1.15
# a 95 % interval of the median, to know when the profile's precision is reached
PRECISION_ALPHA = 0.025
# calls of a block, so that a high percentile of it is more than its slowest call
LEAST_CALLS = {"p90": 50, "p95": 100, "p99": 300}


class Meter(Protocol):
    """What times one artifact."""

    def block(self, calls: int, discard: int) -> tuple[list[float], float]:
        """Times of `calls` calls in ms, and the longer of the control kernel's times around them."""
        ...


@dataclass(eq=False)
class Rounds:
    """What was timed: per artifact and round, the calls and the control kernel's time, in ms."""

    times: list[list[list[float]]]
    controls: list[list[float]]
    kept: list[int] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Rounds in which a block was disturbed."""
        return len(self.controls[0]) - len(self.kept)

    def sift(self) -> None:
        """Keep the rounds that nothing disturbed; all of them where hardly any is left: the machine is that noisy."""
        usual = np.array([np.median(controls) for controls in self.controls])[:, None]
        calm = (np.array(self.controls) <= DRIFT * usual).all(axis=0)
        self.kept = list(np.flatnonzero(calm)) if calm.sum() >= max(5, calm.size // 2) else list(range(calm.size))

    def of(self, place: int) -> FLOATS:
        """The kept blocks of an artifact, shape `(blocks, calls)`."""
        return np.array([self.times[place][number] for number in self.kept])


def alternate(meters: Sequence[Meter], max_seconds: float, profile: Profile) -> Rounds:
    """Blocks of calls, in turn and in alternating order.

    Ends when the intervals are as narrow as the profile's precision and clear of its latency budgets. Where they
    are narrow but a budget lies inside, it goes on to `max_seconds` without looking again: looking after every
    block and stopping at the first favourable interval would favour whatever chance brings.
    """
    to_the_end = False
    least = LEAST_CALLS.get(profile.protocol.statistic, 2)
    share = max_seconds / (MIN_ROUNDS * len(meters))
    calls = [max(least, _block_size(_warm_up(meter, profile.protocol.precision), share)) for meter in meters]
    rounds = Rounds([[] for _ in meters], [[] for _ in meters])
    start = time.monotonic()
    for number in range(10_000):
        # forwards and backwards in turn, so that a steady drift does not favour one of them
        order = range(len(meters)) if number % 2 == 0 else reversed(range(len(meters)))
        for i in order:
            times, control = meters[i].block(calls[i], discard=max(1, calls[i] // 10))
            rounds.times[i].append(times)
            rounds.controls[i].append(control)
        rounds.sift()
        if time.monotonic() - start > max_seconds:
            break
        if to_the_end or len(rounds.kept) < MIN_ROUNDS:
            continue
        values = [Reading("ms", rounds.of(i)).block_statistic(profile.protocol.statistic) for i in range(len(meters))]
        if _precise(values, profile.protocol.precision):
            if _clear(values, profile):
                break
            to_the_end = True
    return rounds


def _precise(values: Sequence[FLOATS], precision: float) -> bool:
    series = [*values, *(other / values[0] for other in values[1:])]
    for numbers in series:
        low, high = median_bounds(numbers, PRECISION_ALPHA)
        if not (high - low) / 2 <= precision * float(np.median(numbers)):
            return False
    return True


def _clear(values: Sequence[FLOATS], profile: Profile) -> bool:
    """True when no latency budget lies inside the interval of the last artifact."""
    for budget in profile.budgets:
        if budget.metric != "latency_ms" or (budget.relative and len(values) == 1):
            continue
        low, high = median_bounds(values[-1] / values[0] if budget.relative else values[-1], profile.alpha)
        if low <= budget.limit <= high:
            return False
    return True


def _warm_up(meter: Meter, precision: float) -> float:
    """Blocks until they do not get faster any more; the time of one call in seconds.

    Steady: of the last four blocks the later two are not faster than the earlier two by more than the precision.
    Gives up after three seconds: what still drifts then does so for other reasons.
    """
    start = time.monotonic()
    medians: list[float] = []
    while True:
        size = max(2, min(50, int(50 / medians[-1]))) if medians else 2
        times, _ = meter.block(size, discard=1)
        medians.append(float(np.median(times)))
        spent = time.monotonic() - start
        steady = len(medians) >= 4 and min(medians[-2:]) >= (1 - precision) * min(medians[-4:-2])
        if (steady and spent > WARM_UP_SECONDS) or spent > MOST_WARM_UP_SECONDS:
            return medians[-1] / 1000


def _block_size(call_seconds: float, block_seconds: float) -> int:
    """At least 50 calls or 30 ms, whichever is more, but no more than 0.25 s or the block's share of the time."""
    wanted = max(50.0, 0.03 / call_seconds)
    affordable = max(5.0, min(0.25, block_seconds) / call_seconds)
    return max(2, int(min(wanted, affordable)))
