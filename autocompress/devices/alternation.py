"""Latency measurement: blocks of calls that alternate between artifacts, in repeated rounds.

Where a file's memory happens to lie makes it up to some percent faster or slower for as long as it stays loaded, so
that repeated calls alone tell two identical files apart: Mytkowicz et al., "Producing wrong data without doing anything
obviously wrong!", ASPLOS 2009; Curtsinger and Berger, "Stabilizer: statistically sound performance evaluation", ASPLOS
2013; Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013. So a round begins with loading all
files, each time somewhere else and by another process, and loads are what is repeated: intervals are taken over them.
Rounds that other work on the machine disturbed are left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autocompress.core.budget import TIME_METRICS
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.profile import Profile
from autocompress.core.verdict import Standing
from autocompress.statistics.bounds import least_values, median_bounds
from autocompress.statistics.judging import judge

FLOATS = NDArray[np.float64]
MIN_LOADS = 9
MOST_ROUNDS = MOST_LOADS = 10_000
# calls of the warm-up's first block
FIRST_BLOCK = 2
WARM_UP_SECONDS = 0.3
MOST_WARM_UP_SECONDS = 3.0
# a block counts as disturbed when the control kernel, a fixed piece of work right before and after it, took longer than
# DRIFT times what it took around the calmest tenth of the blocks
DRIFT, CALMEST = 1.1, 10
# factor by which a measurement may exceed its time where budgets are judged by it: on a disturbed machine, or for as
# many loads as an interval takes
PATIENCE = 2.0
# a 95 % interval of the median, to know when the profile's precision is reached
PRECISION_ALPHA = 0.025
# share of the time that blocks get at least, where loading the files takes most of it
CALLING_SHARE = 0.5
# most bytes of unused padding allocated before a file is loaded; their number is drawn anew each time
MOST_PADDING = 1 << 16
LOADING_SEED = 20_251_122
# for how long concurrent callers call after a block at most
STREAM_SECONDS = 0.25
# least calls in a block, so that a high percentile is not just its slowest call
LEAST_CALLS = {"p90": 50, "p95": 100, "p99": 300}


@dataclass(frozen=True)
class Block:
    """A block of consecutive calls: their times, and the control kernel's time around them, in ms.

    `control_ms` is the longer of the control kernel's times before and after the block. `energy_mj` is the energy of
    one call, None where no counter can be read. `calls_per_s` is what concurrent callers reached right after it, None
    where that was not asked.
    """

    times: Sequence[float]
    control_ms: float
    energy_mj: float | None = None
    calls_per_s: float | None = None


class Meter(Protocol):
    """A process that times one artifact at a time; it begins with the one of its own place."""

    def block(self, calls: int, discard: int) -> Block:
        """Time `calls` calls, after `discard` calls that do not count."""
        ...

    def under_load(self, streams: int, seconds: float) -> tuple[float, float]:
        """Calls per second of so many concurrent callers, and the control kernel's time in ms."""
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
    """The blocks of each artifact, one per round, with the number of each round's load.

    `calm_ms` is the control kernel's time on this machine when nothing disturbed it, as far as that is known. `least`
    is the number of loads that an interval takes.
    """

    blocks: list[list[Block]]
    load_of: list[int] = field(default_factory=list)
    calm_ms: float = math.inf
    least: int = 5

    @property
    def loads(self) -> int:
        """How many times the artifacts were loaded."""
        return len(set(self.load_of))

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
    def calm_loads(self) -> int:
        """The number of loads with a round that nothing disturbed."""
        return len({self.load_of[number] for number in self.calm})

    @property
    def enough(self) -> bool:
        """True when the calm loads alone will do: nine, or half of all, but as many as an interval takes."""
        return self.calm_loads >= max(self.least, min(MIN_LOADS, self.loads // 2))

    @property
    def kept(self) -> list[int]:
        """The numbers of the rounds that count: the calm ones, or all where a noisy machine left too few."""
        return self.calm if self.enough else list(range(len(self.blocks[0])))

    def latency(self, place: int) -> Reading:
        """Times of an artifact's kept blocks, shape `(blocks, calls)`."""
        return self._reading("ms", [self.blocks[place][number].times for number in self.kept])

    def energy(self, place: int) -> Reading | None:
        """Energy of a call, block by block, shape `(blocks, 1)`; None where no counter can be read."""
        found = [self.blocks[place][number].energy_mj for number in self.kept]
        return None if None in found else self._reading("mJ", [[energy] for energy in found])

    def throughput(self, place: int, batch: int) -> Reading | None:
        """Items per second under load, block by block, shape `(blocks, 1)`; None where it was not asked."""
        found = [self.blocks[place][number].calls_per_s for number in self.kept]
        return None if None in found else self._reading("items/s", [[calls] for calls in found], batch)

    def readings(self, place: int, batch: int) -> dict[str, Reading]:
        """All readings of an artifact by metric."""
        found = {
            "latency_ms": self.latency(place),
            "energy_mj": self.energy(place),
            "throughput_per_s": self.throughput(place, batch),
        }
        return {metric: reading for metric, reading in found.items() if reading is not None}

    def _reading(self, unit: str, rows: Sequence[Sequence[float | None]], scale: float = 1.0) -> Reading:
        loads = np.array([self.load_of[number] for number in self.kept], dtype=np.int64)
        return Reading(unit, scale * np.array(rows, dtype=np.float64), loads=loads)


def alternate(
    meters: Sequence[Meter],
    max_seconds: float,
    profile: Profile,
    calm_ms: float = math.inf,
    *,
    under_load: bool = False,
) -> Rounds:
    """Measure blocks of calls that alternate between the artifacts, in alternating order.

    Files are loaded anew for every round, as long as the time allows. Each is loaded by the next process in turn, so
    that a process that happens to be fast favours no artifact.

    Ends when the intervals are as narrow as the profile's precision and clear of its budgets on time. Where they
    are narrow but a budget lies inside, it goes on to `max_seconds` without looking again: looking after every
    block and stopping at the first favourable interval would favour whatever chance brings. Where budgets are judged
    by the measurement, a machine that is disturbed for longer is given as much time again to calm down, and files
    that take long to load as much again to be loaded as often as an interval takes. `calm_ms` is the control kernel's
    time on the undisturbed machine. `under_load` says to measure throughput after each block, as a budget on it does.
    """
    to_the_end = False
    wanted = max(least_values(profile.alpha), least_values(PRECISION_ALPHA))
    loading = sum(meter.load_seconds for meter in meters)
    # more time than that would not lead to an interval either
    patient = profile.limits(*TIME_METRICS) and loading * (wanted - 1) <= PATIENCE * max_seconds
    most_seconds = max_seconds * (PATIENCE if patient else 1)
    streams = profile.protocol.streams if under_load or profile.limits("throughput_per_s") else 0
    calling = max(max_seconds - loading * MIN_LOADS, CALLING_SHARE * max_seconds)
    # of one block, and as much again for the streams
    seconds = calling / (MIN_LOADS * len(meters) * (2 if streams else 1))
    calls = [_calls(meter, seconds, profile) for meter in meters]
    rounds = Rounds([[] for _ in meters], calm_ms=calm_ms, least=wanted)
    paddings = np.random.default_rng(LOADING_SEED)
    holders = list(meters)
    start = time.monotonic()
    load, spent = 0, 0.0
    for number in range(MOST_ROUNDS):
        again = number and load + 1 < MOST_LOADS
        if again and spent + loading <= (max_seconds if rounds.enough else most_seconds):
            load += 1
            holders = [*holders[1:], holders[0]]
            for place, meter in enumerate(holders):
                meter.load(place, int(paddings.integers(MOST_PADDING)))
        rounds.load_of.append(load)
        # alternately in forward and reverse order, so that a steady drift favours no artifact
        order = range(len(meters)) if number % 2 == 0 else reversed(range(len(meters)))
        for i in order:
            rounds.blocks[i].append(_block(holders[i], calls[i], streams, min(STREAM_SECONDS, seconds)))
        spent = time.monotonic() - start
        waits = not rounds.enough and spent + loading <= most_seconds
        if spent > most_seconds or (spent > max_seconds and not waits):
            break
        if to_the_end or rounds.calm_loads < max(MIN_LOADS, wanted):
            continue
        if _precise(rounds, profile):
            if _clear(rounds, profile):
                break
            to_the_end = True
    return rounds


def _calls(meter: Meter, seconds: float, profile: Profile) -> int:
    """The number of calls in a block that may take so long; runs the warm-up."""
    least = LEAST_CALLS.get(profile.protocol.statistic, 2)
    return max(least, _block_size(_warm_up(meter, profile.protocol.precision), seconds))


def _block(meter: Meter, calls: int, streams: int, seconds: float) -> Block:
    """A block of one caller, and where there are `streams` what they reach together in so long."""
    block = meter.block(calls, discard=max(1, calls // 10))
    if not streams:
        return block
    rate, control_ms = meter.under_load(streams, seconds)
    return replace(block, calls_per_s=rate, control_ms=max(block.control_ms, control_ms))


def _precise(rounds: Rounds, profile: Profile) -> bool:
    """True when the intervals of latency, throughput and their ratios to the first one's are narrow."""
    protocol = profile.protocol
    first, *others = (rounds.readings(place, protocol.batch) for place in range(len(rounds.blocks)))
    series = []
    for metric, statistic in (("latency_ms", protocol.statistic), ("throughput_per_s", "mean")):
        if metric in first:
            series += [readings[metric].load_statistic(statistic) for readings in (first, *others)]
            series += [Measurement(other, first).load_ratios(metric, statistic) for other in others]
    for numbers in series:
        low, high = median_bounds(numbers, PRECISION_ALPHA)
        if not (high - low) / 2 <= protocol.precision * float(np.median(numbers)):
            return False
    return True


def _clear(rounds: Rounds, profile: Profile) -> bool:
    """True when no budget on time is undecided for the last artifact, beside the first one."""
    asked = [budget for budget in profile.budgets if budget.metric in TIME_METRICS]
    protocol, last = profile.protocol, len(rounds.blocks) - 1
    baseline = rounds.readings(0, protocol.batch) if last else {}
    measurement = Measurement(rounds.readings(last, protocol.batch), baseline)
    verdict = judge(asked, measurement, profile.alpha, statistic=protocol.statistic)
    return all(finding.standing is not Standing.UNDECIDED for finding in verdict.findings)


def _warm_up(meter: Meter, precision: float) -> float:
    """Run blocks until they do not get faster any more, and return the time of one call in seconds.

    Steady means that of the last four blocks the later two are not faster than the earlier two by more than the
    precision. It gives up after three seconds: what still drifts then does so for other reasons.
    """
    start = time.monotonic()
    medians: list[float] = []
    while True:
        size = max(2, min(50, int(50 / medians[-1]))) if medians else FIRST_BLOCK
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
