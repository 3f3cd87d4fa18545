from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from autocompress.core.budget import Budget
from autocompress.core.profile import Profile, Protocol
from autocompress.devices import alternation
from autocompress.devices.alternation import MIN_LOADS, Block, alternate
from autocompress.statistics.bounds import median_bounds

Clock = Callable[[int], float]


@dataclass
class Scripted:
    """A meter whose blocks come from a script: the time of a call, and the control kernel's, by the block's number.

    `by_place` are the times of what is loaded, where they differ.
    """

    call_ms: Clock = lambda number: 1.0
    control_ms: Clock = lambda number: 1.0
    energy_mj: Callable[[int], float | None] = lambda number: None
    load_seconds: float = 0.0
    by_place: Sequence[float] = (1.0, 1.0)
    place: int = 0
    rate: float = 100.0
    asked: list[int] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    # the number of blocks before each load, and what was loaded
    reloaded: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    paddings: list[int] = field(default_factory=list)

    def block(self, calls: int, discard: int) -> Block:
        number = len(self.asked)
        self.asked.append(calls)
        time = self.call_ms(number) * self.by_place[self.place]
        return Block([time] * calls, self.control_ms(number), self.energy_mj(number))

    def under_load(self, streams: int, seconds: float) -> tuple[float, float]:
        self.streams.append(streams)
        return streams * self.rate, self.control_ms(len(self.asked))

    def load(self, place: int, padding: int) -> None:
        self.place = place
        self.reloaded.append(len(self.asked))
        self.places.append(place)
        self.paddings.append(padding)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alternation, "WARM_UP_SECONDS", 0.0)


def profile(statistic: str = "p50", **budgets: float | str) -> Profile:
    limits = tuple(Budget.parse(metric, limit) for metric, limit in budgets.items())
    return Profile("scripted", protocol=Protocol(statistic=statistic, precision=0.01), budgets=limits)


def test_what_does_not_vary_takes_the_least_number_of_rounds() -> None:
    meters = [Scripted(by_place=(2.0, 1.0), place=place) for place in (0, 1)]
    rounds = alternate(meters, 60.0, profile())
    assert rounds.dropped == 0
    assert rounds.latency(0).samples.shape == rounds.latency(1).samples.shape
    assert len(rounds.latency(0).samples) == MIN_LOADS
    assert (rounds.latency(0).samples == 2.0).all()
    assert (rounds.latency(1).samples == 1.0).all()


def test_the_warm_up_goes_on_while_blocks_get_faster() -> None:
    warming = Scripted(lambda number: max(1.0, 5.0 - 0.25 * number))
    rounds = alternate([warming], 60.0, profile())
    assert (rounds.latency(0).samples == 1.0).all()
    assert len(warming.asked) - MIN_LOADS >= 16


def test_rounds_beside_a_slow_control_kernel_are_dropped_and_replaced() -> None:
    def disturbed(number: int) -> bool:
        return number > 4 and number % 4 == 0

    other = Scripted(lambda number: 3.0 if disturbed(number) else 1.0, lambda number: 2.0 if disturbed(number) else 1.0)
    rounds = alternate([Scripted(lambda number: 1.0), other], 60.0, profile())
    assert rounds.dropped > 0
    assert len(rounds.latency(1).samples) >= MIN_LOADS
    assert (rounds.latency(1).samples == 1.0).all()
    # a round is dropped for all: what is compared was taken side by side
    assert rounds.latency(0).samples.shape == rounds.latency(1).samples.shape


def test_on_a_machine_that_is_never_quiet_every_round_counts() -> None:
    random = np.random.default_rng(0)
    wild = [float(value) for value in random.choice([1.0, 2.0, 4.0], 10_000)]
    rounds = alternate([Scripted(lambda number: 1.0, lambda number: wild[number])], 60.0, profile())
    assert len(rounds.latency(0).samples) >= MIN_LOADS


def test_a_budget_inside_the_interval_is_measured_for_all_of_the_time() -> None:
    def wavering(number: int) -> float:
        return 1.0 + 0.004 * (-1) ** number

    short = alternate([Scripted(wavering)], 0.3, profile(latency_ms=2.0))
    long = alternate([Scripted(wavering)], 0.3, profile(latency_ms=1.0))
    assert len(long.latency(0).samples) > 5 * len(short.latency(0).samples)


@pytest.mark.parametrize(("statistic", "least"), [("p50", 2), ("p95", 100), ("p99", 300)])
def test_a_high_percentile_gets_blocks_that_have_one(statistic: str, least: int) -> None:
    meter = Scripted(lambda number: 200.0)
    alternate([meter], 0.01, profile(statistic))
    assert meter.asked[-1] >= least


def test_every_round_finds_the_files_loaded_anew_and_elsewhere() -> None:
    meters = [Scripted(place=place) for place in (0, 1)]
    rounds = alternate(meters, 60.0, profile())
    assert rounds.loads == len(rounds.latency(0).samples) == MIN_LOADS
    for meter in meters:
        # once before each round but the first, which the warm-up loaded for
        assert len(meter.reloaded) == MIN_LOADS - 1
        assert (np.diff(meter.reloaded) == 1).all()
        assert len(set(meter.paddings)) == MIN_LOADS - 1
    assert meters[0].paddings != meters[1].paddings
    # each by the other process than before
    assert meters[0].places == [1, 0] * 4
    assert meters[1].places == [0, 1] * 4


def test_a_process_that_is_slower_than_the_other_favours_no_artifact() -> None:
    slow = Scripted(lambda number: 1.05, place=0)
    # half of the ratios lie 5 % above, half 5 % below: the interval stays wide until the time is up
    rounds = alternate([slow, Scripted(place=1)], 0.3, profile())
    ratios = rounds.latency(1).load_statistic("p50") / rounds.latency(0).load_statistic("p50")
    low, high = median_bounds(ratios, 0.025)
    assert low < 1 < high


@dataclass
class Slow(Scripted):
    """A meter whose loads and blocks take time on a scripted clock and none in truth: 2 s and 0.5 s."""

    clock: list[float] = field(default_factory=lambda: [0.0])
    load_seconds: float = 2.0

    def load(self, place: int, padding: int) -> None:
        super().load(place, padding)
        self.clock[0] += self.load_seconds

    def block(self, calls: int, discard: int) -> Block:
        self.clock[0] += 0.5
        return super().block(calls, discard)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    meter = Slow()
    monkeypatch.setattr(alternation, "time", SimpleNamespace(monotonic=lambda: meter.clock[0]))
    return meter


@pytest.mark.parametrize(("max_seconds", "loads"), [(60.0, MIN_LOADS), (15.0, 7), (9.0, 6), (7.0, 6)])
def test_what_takes_long_to_load_is_loaded_as_often_as_an_interval_takes(
    slow: Slow, max_seconds: float, loads: int
) -> None:
    rounds = alternate([slow], max_seconds, profile(latency_ms=1.0))
    # each load with a block of its own: other blocks of the same load would tell little
    assert rounds.loads == len(rounds.blocks[0]) == loads


def test_a_narrower_level_takes_more_loads(slow: Slow) -> None:
    strict = replace(profile(latency_ms=1.0), confidence=0.999)
    assert alternate([slow], 14.0, strict).loads == 10


@pytest.mark.parametrize(("max_seconds", "budgets"), [(15.0, {}), (15.0, {"size_mb": 1.0}), (4.0, {"latency_ms": 1.0})])
def test_where_no_interval_is_in_reach_or_judged_the_time_is_not_exceeded_by_a_load(
    slow: Slow, max_seconds: float, budgets: dict[str, float]
) -> None:
    rounds = alternate([slow], max_seconds, profile(**budgets))
    assert rounds.loads == (7 if max_seconds == 15.0 else 2)
    assert slow.clock[0] < max_seconds + 3


def test_blocks_know_their_load() -> None:
    never = Scripted(load_seconds=1000.0, call_ms=lambda number: 1.0 + number % 2)
    rounds = alternate([never], 0.1, profile())
    reading = rounds.latency(0)
    assert rounds.loads == 1
    assert len(reading.samples) > 5
    assert reading.loads is not None
    assert (reading.loads == 0).all()
    assert len(reading.load_statistic("p50")) == 1


def test_a_file_that_is_fast_or_slow_by_where_it_lies_is_not_told_apart_from_itself() -> None:
    class Placed(Scripted):
        """Up to 3 % slower for as long as it stays loaded."""

        def block(self, calls: int, discard: int) -> Block:
            place = self.paddings[-1] if self.paddings else 0
            slower = 1 + 0.03 * np.random.default_rng(place).random()
            return Block([slower] * calls, 1.0)

    strict = replace(profile(), protocol=Protocol(precision=1e-9))
    first, second = Placed(lambda number: 1.0), Placed(lambda number: 1.0)
    rounds = alternate([first, second], 0.3, strict)
    ratios = rounds.latency(1).load_statistic("p50") / rounds.latency(0).load_statistic("p50")
    low, high = median_bounds(ratios, 0.025)
    assert low <= 1 <= high


def test_energy_comes_with_the_rounds_that_count() -> None:
    rounds = alternate([Scripted(lambda number: 1.0, energy_mj=lambda number: 5.0)], 60.0, profile())
    energy = rounds.energy(0)
    assert energy is not None
    assert energy.samples.shape == (MIN_LOADS, 1)
    assert (energy.samples == 5.0).all()
    assert energy.loads is not None
    assert energy.loads.tolist() == list(range(MIN_LOADS))
    assert alternate([Scripted(lambda number: 1.0)], 60.0, profile()).energy(0) is None


def test_throughput_is_measured_only_where_it_is_limited_or_asked_for() -> None:
    meter = Scripted()
    limited = replace(profile(throughput_per_s=1000.0), protocol=Protocol(precision=0.01, streams=3, batch=4))
    reading = alternate([meter], 60.0, limited).throughput(0, batch=4)
    assert reading is not None
    assert (reading.unit, reading.samples.shape) == ("items/s", (MIN_LOADS, 1))
    assert (reading.samples == 1200.0).all()
    assert reading.loads is not None
    assert meter.streams == [3] * MIN_LOADS
    assert alternate([Scripted()], 60.0, profile(), under_load=True).throughput(0, batch=1) is not None
    unasked = Scripted()
    assert alternate([unasked], 60.0, profile(latency_ms=2.0)).throughput(0, batch=1) is None
    assert unasked.streams == []


def test_a_machine_that_was_calmer_before_is_given_time_to_calm_down() -> None:
    # the first blocks are all disturbed: among themselves they look as if nothing was
    calm_from = time.monotonic() + 0.3

    def disturbed() -> bool:
        return time.monotonic() < calm_from

    meter = Scripted(lambda number: 1.5 if disturbed() else 1.0, lambda number: 2.0 if disturbed() else 1.0)
    patient = replace(profile(latency_ms=1.0), protocol=Protocol(precision=1e-9))
    assert (alternate([meter], 0.25, patient, calm_ms=1.0).latency(0).samples[-1] == 1.0).all()
    hurried = Scripted(lambda number: 1.5, lambda number: 2.0)
    rounds = alternate([hurried], 0.2, patient, calm_ms=1.0)
    # it never did: then all rounds count
    assert rounds.dropped == 0
    assert (rounds.latency(0).samples == 1.5).all()


def test_without_budgets_nothing_waits_for_a_disturbed_machine() -> None:
    # 5 ms a block: what is never calm ends with its time where it is an estimate, and goes on where it judges
    def slow(number: int) -> float:
        time.sleep(0.005)
        return 1.0

    estimate = replace(profile(), protocol=Protocol(precision=1e-9), budgets=())
    judged = replace(estimate, budgets=(Budget("latency_ms", 2.0),))
    disturbed = [Scripted(slow, lambda number: 2.0) for _ in range(2)]
    once, twice = (alternate([m], 0.2, p, calm_ms=1.0) for m, p in zip(disturbed, (estimate, judged), strict=True))
    assert len(once.blocks[0]) < len(twice.blocks[0])
