"""Latency measurement: blocks of calls that alternate between artifacts, in repeated rounds.

Where a file's memory happens to lie makes it up to some percent faster or slower for as long as it stays loaded, so
that repeated calls alone tell two identical files apart: Mytkowicz et al., "Producing wrong data without doing anything
obviously wrong!", ASPLOS 2009; Curtsinger and Berger, "Stabilizer: statistically sound performance evaluation", ASPLOS
2013; Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013. So a round begins with loading all
files, each time somewhere else and by another process, and rounds are what is repeated. Rounds that other work on the
machine disturbed are left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autocompress.core.measurement import Reading
from autocompress.core.profile import Profile
from autocompress.statistics.bounds import median_bounds

FLOATS = NDArray[np.float64]
MIN_ROUNDS = 9
WARM_UP_SECONDS = 0.3
MOST_WARM_UP_SECONDS = 3.0
# a block counts as disturbed when the control kernel, a fixed piece of work right before and after it, took longer than
# DRIFT times what it took around the calmest tenth of the blocks
DRIFT, CALMEST = 1.1, 10
# factor by which a measurement on a disturbed machine may exceed its time, where budgets are judged by it
PATIENCE = 2.0
# a 95 % interval of the median, to know when the profile's precision is reached
PRECISION_ALPHA = 0.025
# share of the time that may go into reloading files; files that take longer to load are loaded less often
LOADING_SHARE = 0.5
# most bytes of unused padding allocated before a file is loaded; their number is drawn anew each time
MOST_PADDING = 1 << 16
LOADING_SEED = 20_251_122
# least calls in a block, so that a high percentile is not just its slowest call
LEAST_CALLS = {"p90": 50, "p95": 100, "p99": 300}


@dataclass(frozen=True)
class Block:
    """A block of consecutive calls: their times, and the control kernel's time around them, in ms.

    `control_ms` is the longer of the control kernel's times before and after the block. `energy_mj` is the energy of
    one call, None where no counter can be read.
    """

    times: Sequence[float]
    control_ms: float
    energy_mj: float | None = None


class Meter(Protocol):
    """A process that times one artifact at a time; it begins with the one of its own place."""

    def block(self, calls: int, discard: int) -> Block:
        """Time `calls` calls, after `discard` calls that do not count."""
        ...

    @property
    def load_seconds(self) -> float:
        """Seconds that loading its first artifact took."""
        ...

    def load(self, place: int, padding: int) -> None:
        """Load the artifact of that place after allocating `padding` bytes that are not used."""
        ...


@dataclass(eq=False)
class Rounds:
    """The blocks of each artifact, one per round, and how many times the artifacts were loaded for them.

    `calm_ms` is the control kernel's time on this machine when nothing disturbed it, as far as that is known.
    """

    blocks: list[list[Block]]
    loads: int = 1
    calm_ms: float = math.inf

    @property
    def dropped(self) -> int:
        """The number of rounds left out because a block was disturbed."""
        return len(self.blocks[0]) - len(self.kept)

    @property
    def calmest_ms(self) -> float:
        """The control kernel's time around the calmest tenth of the blocks."""
        return float(np.percentile([block.control_ms for blocks in self.blocks for block in blocks], CALMEST))

    @property
    def calm(self) -> list[int]:
        """The numbers of the rounds that nothing disturbed."""
        controls = np.array([[block.control_ms for block in blocks] for blocks in self.blocks])
        limit = DRIFT * min(self.calmest_ms, self.calm_ms)
        return list(np.flatnonzero((controls <= limit).all(axis=0)))

    @property
    def kept(self) -> list[int]:
        """The numbers of the rounds that count: the calm ones, or all where a noisy machine left too few."""
        calm, every = self.calm, len(self.blocks[0])
        return calm if len(calm) >= min(MIN_ROUNDS, max(5, every // 2)) else list(range(every))

    def of(self, place: int) -> FLOATS:
        """Times of an artifact's kept blocks in ms, shape `(blocks, calls)`."""
        return np.array([self.blocks[place][number].times for number in self.kept])

    def energy(self, place: int) -> FLOATS | None:
        """Energy of a call in mJ, block by block, shape `(blocks, 1)`; None where no counter can be read."""
        found = [self.blocks[place][number].energy_mj for number in self.kept]
        return None if None in found else np.array(found, dtype=np.float64)[:, None]


def alternate(meters: Sequence[Meter], max_seconds: float, profile: Profile, calm_ms: float = math.inf) -> Rounds:
    """Measure blocks of calls that alternate between the artifacts, in alternating order.

    Files are loaded anew for every round, or as often as half of the time allows. Each is loaded by the next process in
    turn, so that a process that happens to be fast favours no artifact.

    Ends when the intervals are as narrow as the profile's precision and clear of its latency budgets. Where they
    are narrow but a budget lies inside, it goes on to `max_seconds` without looking again: looking after every
    block and stopping at the first favourable interval would favour whatever chance brings. A machine that is
    disturbed for longer is given as much time again to calm down, where budgets are judged by the measurement;
    `calm_ms` is the control kernel's time on the undisturbed machine.
    """
    to_the_end = False
    most_seconds = max_seconds * (PATIENCE if profile.budgets else 1)
    least = LEAST_CALLS.get(profile.protocol.statistic, 2)
    loading = sum(meter.load_seconds for meter in meters)
    every = max(1, math.ceil(loading * MIN_ROUNDS / (LOADING_SHARE * max_seconds)))
    share = (max_seconds - loading * (MIN_ROUNDS // every)) / (MIN_ROUNDS * len(meters))
    calls = [max(least, _block_size(_warm_up(meter, profile.protocol.precision), share)) for meter in meters]
    rounds = Rounds([[] for _ in meters], calm_ms=calm_ms)
    paddings = np.random.default_rng(LOADING_SEED)
    holders = list(meters)
    start = time.monotonic()
    for number in range(10_000):
        if number and number % every == 0:
            rounds.loads += 1
            holders = [*holders[1:], holders[0]]
            for place, meter in enumerate(holders):
                meter.load(place, int(paddings.integers(MOST_PADDING)))
        # alternately in forward and reverse order, so that a steady drift favours no artifact
        order = range(len(meters)) if number % 2 == 0 else reversed(range(len(meters)))
        for i in order:
            rounds.blocks[i].append(holders[i].block(calls[i], discard=max(1, calls[i] // 10)))
        spent = time.monotonic() - start
        calm = len(rounds.calm)
        if spent > most_seconds or (spent > max_seconds and calm >= min(MIN_ROUNDS, number // 2)):
            break
        if to_the_end or calm < MIN_ROUNDS:
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
    """Run blocks until they do not get faster any more, and return the time of one call in seconds.

    Steady means that of the last four blocks the later two are not faster than the earlier two by more than the
    precision. It gives up after three seconds: what still drifts then does so for other reasons.
    """
    start = time.monotonic()
    medians: list[float] = []
    while True:
        size = max(2, min(50, int(50 / medians[-1]))) if medians else 2
        medians.append(float(np.median(meter.block(size, discard=1).times)))
        spent = time.monotonic() - start
        steady = len(medians) >= 4 and min(medians[-2:]) >= (1 - precision) * min(medians[-4:-2])
        if (steady and spent > WARM_UP_SECONDS) or spent > MOST_WARM_UP_SECONDS:
            return medians[-1] / 1000


def _block_size(call_seconds: float, block_seconds: float) -> int:
    """The number of calls in a block.

    At least 25 calls or 20 ms, whichever is more, but no more than 0.25 s or the block's share of the time; of slow
    calls three.
    """
    wanted = max(25.0, 0.02 / call_seconds)
    affordable = max(3.0, min(0.25, block_seconds) / call_seconds)
    return max(2, int(min(wanted, affordable)))
