import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autocompress.core.budget import METRICS, Budget
from autocompress.core.measurement import Conditions, Measurement, Reading
from autocompress.core.profile import Profile, Protocol
from autocompress.core.source import Array
from autocompress.core.verdict import Finding, Standing, Status, Verdict
from autocompress.statistics.betting import bounded_mean_bounds
from autocompress.statistics.bootstrap import mean_bounds
from autocompress.statistics.bounds import drop_bounds, items_needed, rate_bounds
from autocompress.statistics.judging import decide_again, forecast, judge, last_level, look_until_clear

ALPHA = 0.05
SIZES = ("size_mb", "download_mb")
TIMES = ("latency_ms", "energy_mj", "throughput_per_s")
RANK = {Standing.EXCEEDED: 0, Standing.UNDECIDED: 1, Standing.MET: 2}


def reading(metric: str, values: object) -> Reading:
    return Reading(METRICS[metric].unit if metric in METRICS else metric, np.asarray(values, dtype=np.float64))


def measured(
    readings: Mapping[str, object], baseline: Mapping[str, object] | None = None, *, unchanged: bool = False
) -> Measurement:
    before = {name: reading(name, values) for name, values in (baseline or {}).items()}
    return Measurement({name: reading(name, v) for name, v in readings.items()}, before, unchanged=unchanged)


def finding_of(budget: Budget, measurement: Measurement, *, alpha: float = ALPHA, statistic: str = "p50") -> Finding:
    (finding,) = judge([budget], measurement, alpha, statistic=statistic).findings
    assert finding.budget == budget
    return finding


def blocks(values: Sequence[float]) -> Array:
    """One block per value, of three calls that take as long."""
    return np.repeat(np.array(values, dtype=np.float64)[:, None], 3, axis=1)


def answers(*counts: tuple[int, int, int]) -> tuple[Array, Array]:
    """Scores before and after, from (how many items, score before, score after)."""
    before = np.concatenate([np.full(count, float(first)) for count, first, _ in counts])
    after = np.concatenate([np.full(count, float(second)) for count, _, second in counts])
    return before, after


def paired(lost: int, gained: int, right: int, wrong: int = 0) -> Measurement:
    before, after = answers((lost, 1, 0), (gained, 0, 1), (right, 1, 1), (wrong, 0, 0))
    return measured({"score": after}, {"score": before})


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


# nothing fails open


def test_without_budgets_nothing_is_met() -> None:
    verdict = judge([], measured({"size_mb": [1.0]}), ALPHA)
    assert verdict.findings == ()
    assert verdict.status is Status.UNDECIDED


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_finding_and_is_unmeasured_without_readings(metric: str) -> None:
    finding = finding_of(Budget(metric, 1.0), Measurement())
    assert finding.standing is Standing.UNMEASURED
    assert finding.value is None
    assert finding.sentence


@pytest.mark.parametrize("metric", [name for name, metric in METRICS.items() if metric.may_be_relative])
def test_a_share_of_a_baseline_that_was_not_measured_is_unmeasured(metric: str) -> None:
    times = {name: blocks([1.0] * 9) for name in TIMES}
    everything = measured({**{name: [1.0] for name in SIZES}, "memory_mb": [1.0] * 9, **times})
    assert finding_of(Budget(metric, 1e6), everything).standing is not Standing.UNMEASURED
    assert finding_of(Budget(metric, 2.0, relative=True), everything).standing is Standing.UNMEASURED


@pytest.mark.parametrize("metric", SIZES)
def test_a_share_of_a_baseline_of_nothing_is_unmeasured(metric: str) -> None:
    finding = finding_of(Budget(metric, 2.0, relative=True), measured({metric: [1.0]}, {metric: [0.0]}))
    assert finding.standing is Standing.UNMEASURED


@pytest.mark.parametrize("metric", ["max_accuracy_drop_pp", "max_score_drop"])
def test_a_drop_against_scores_of_other_items_is_unmeasured(metric: str) -> None:
    same = measured({"score": np.ones(500)}, {"score": np.ones(500)})
    assert finding_of(Budget(metric, 5.0), same).standing is Standing.MET
    for other in ({}, {"score": np.ones(501)}, {"score": np.ones((500, 1))}):
        finding = finding_of(Budget(metric, 5.0), measured({"score": np.ones(500)}, other))
        assert finding.standing is Standing.UNMEASURED


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_no_number_is_never_met(metric: str) -> None:
    times = {name: blocks([math.nan] * 9) for name in TIMES}
    nan = {**{name: [math.nan] for name in SIZES}, **times, "score": [math.nan] * 50}
    finding = finding_of(Budget(metric, 1.0), measured(nan, nan))
    assert finding.standing is not Standing.MET


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "budget", [Budget("max_accuracy_drop_pp", 50.0), Budget("min_accuracy", 50.0), Budget("max_score_drop", 0.5)]
)
def test_no_items_decide_nothing(budget: Budget) -> None:
    empty = measured({"score": np.zeros(0)}, {"score": np.zeros(0)})
    assert finding_of(budget, empty).standing is Standing.UNDECIDED


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_items_bound_no_score_that_has_no_bounds_of_its_own() -> None:
    empty = measured({"score": np.zeros(0)}, {"score": np.zeros(0)})
    assert finding_of(Budget("max_score_drop", 50.0), empty).standing is Standing.UNDECIDED


@pytest.mark.parametrize(("count", "standing"), [(1, Standing.UNDECIDED), (4, Standing.UNDECIDED), (5, Standing.MET)])
def test_too_few_blocks_decide_nothing(count: int, standing: Standing) -> None:
    # the largest of n blocks lies below the median with probability 2^-n: 5 are needed at 5 %
    finding = finding_of(Budget("latency_ms", 100.0), measured({"latency_ms": blocks([1.0] * count)}))
    assert finding.standing is standing
    assert finding.samples == count
    if standing is Standing.UNDECIDED:
        assert (finding.low, finding.high) == (None, None)
        assert "unbounded" in finding.sentence


def test_too_few_blocks_show_no_throughput_and_no_lack_of_it() -> None:
    few = measured({"throughput_per_s": blocks([1.0] * 4)})
    for limit in (1.0, 1e9):
        assert finding_of(Budget("throughput_per_s", limit), few).standing is Standing.UNDECIDED


def test_a_budget_on_one_metric_is_not_met_by_another() -> None:
    findings = judge([Budget("size_mb", 1.0), Budget("memory_mb", 1.0)], measured({"size_mb": [0.5]}), ALPHA)
    assert [f.standing for f in findings.findings] == [Standing.MET, Standing.UNMEASURED]
    assert findings.status is Status.UNDECIDED


# sizes


@pytest.mark.parametrize("metric", SIZES)
@pytest.mark.parametrize(
    ("value", "standing"),
    [(2.0, Standing.MET), (below(2.0), Standing.MET), (above(2.0), Standing.EXCEEDED), (0.0, Standing.MET)],
)
def test_a_size_is_met_up_to_its_limit(metric: str, value: float, standing: Standing) -> None:
    finding = finding_of(Budget(metric, 2.0), measured({metric: [value]}))
    assert finding.standing is standing
    assert finding.value == finding.low == finding.high == value


@pytest.mark.parametrize("metric", SIZES)
@pytest.mark.parametrize(("value", "standing"), [(2.0, Standing.MET), (above(2.0), Standing.EXCEEDED)])
def test_a_size_relative_to_the_baseline_is_met_up_to_that_share(metric: str, value: float, standing: Standing) -> None:
    finding = finding_of(Budget(metric, 0.5, relative=True), measured({metric: [value]}, {metric: [4.0]}))
    assert finding.standing is standing
    assert finding.value == value / 4.0


def test_the_sentence_holds_value_unit_and_limit() -> None:
    finding = finding_of(Budget("size_mb", 2.0), measured({"size_mb": [1.5]}))
    assert finding.sentence == "1.5 MB, at most 2 MB"
    share = finding_of(Budget("size_mb", 0.5, relative=True), measured({"size_mb": [1.5]}, {"size_mb": [2.0]}))
    assert share.sentence == "0.75x, at most 0.5x"


# memory


def test_memory_is_judged_by_the_interval_over_processes() -> None:
    peaks = measured({"memory_mb": [10.0, 12.0, 11.0, 13.0, 10.5]})
    found = {limit: finding_of(Budget("memory_mb", limit), peaks) for limit in (13.0, 12.0, 10.0, 9.9)}
    assert [f.standing for f in found.values()] == [
        Standing.MET,
        Standing.UNDECIDED,
        Standing.UNDECIDED,
        Standing.EXCEEDED,
    ]
    assert {(f.value, f.low, f.high, f.samples) for f in found.values()} == {(11.0, 10.0, 13.0, 5)}


def test_one_process_shows_nothing_about_memory() -> None:
    finding = finding_of(Budget("memory_mb", 1000.0), measured({"memory_mb": [10.0]}))
    assert finding.standing is Standing.UNDECIDED
    assert finding.sentence.endswith("1 process is too few for an interval, which takes 5")


def test_memory_relative_to_the_baseline_is_paired() -> None:
    before = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    finding = finding_of(
        Budget("memory_mb", 0.5, relative=True), measured({"memory_mb": before / 2}, {"memory_mb": before})
    )
    assert (finding.standing, finding.low, finding.high) == (Standing.MET, 0.5, 0.5)
    nothing = measured({"memory_mb": before}, {"memory_mb": [0.0] * 5})
    assert finding_of(Budget("memory_mb", 0.5, relative=True), nothing).standing is Standing.UNMEASURED


# latency


def test_latency_is_met_at_its_limit_and_broken_past_it() -> None:
    steady = measured({"latency_ms": blocks([4.0] * 9)})
    assert finding_of(Budget("latency_ms", 4.0), steady).standing is Standing.MET
    assert finding_of(Budget("latency_ms", below(4.0)), steady).standing is Standing.EXCEEDED


def test_latency_is_decided_by_the_bounds_of_the_median_and_not_by_the_median() -> None:
    # of 9 blocks the second and the eighth bound the median at 5 %
    spread = measured({"latency_ms": blocks(range(1, 10))})
    found = {limit: finding_of(Budget("latency_ms", limit), spread) for limit in (8.0, below(8.0), 2.0, below(2.0))}
    assert [f.standing for f in found.values()] == [
        Standing.MET,
        Standing.UNDECIDED,
        Standing.UNDECIDED,
        Standing.EXCEEDED,
    ]
    assert {(f.value, f.low, f.high, f.samples) for f in found.values()} == {(5.0, 2.0, 8.0, 9)}


def test_the_order_of_the_blocks_does_not_matter() -> None:
    shuffled = measured({"latency_ms": blocks([5, 9, 1, 7, 3, 8, 2, 6, 4])})
    finding = finding_of(Budget("latency_ms", 8.0), shuffled)
    assert (finding.low, finding.value, finding.high) == (2.0, 5.0, 8.0)


def test_drift_that_meets_both_files_cancels_in_the_ratio() -> None:
    drift = np.array([1.0, 3.0, 9.0, 2.0, 50.0, 1.0, 4.0, 8.0, 2.0])
    both = measured({"latency_ms": blocks(drift * 0.5)}, {"latency_ms": blocks(drift)})
    finding = finding_of(Budget("latency_ms", 0.5, relative=True), both)
    assert finding.standing is Standing.MET
    assert (finding.low, finding.value, finding.high) == (0.5, 0.5, 0.5)
    assert finding_of(Budget("latency_ms", below(0.5), relative=True), both).standing is Standing.EXCEEDED


def test_the_statistic_of_the_profile_decides() -> None:
    slow_once = np.tile([1.0] * 9 + [11.0], (9, 1))
    latency = measured({"latency_ms": slow_once})
    found = {name: finding_of(Budget("latency_ms", 1.5), latency, statistic=name) for name in ("p50", "mean", "p99")}
    assert found["p50"].standing is Standing.MET
    assert found["mean"].standing is Standing.EXCEEDED
    assert found["mean"].value == pytest.approx(2.0)
    assert found["p99"].value == pytest.approx(1.0 + 10.0 * 0.91)


# loads


def test_three_loads_give_no_interval_however_many_blocks_they_have() -> None:
    reading_ = Reading("ms", blocks([1.0] * 12), loads=np.repeat([0, 1, 2], 4))
    conditions = Conditions("", "", {}, 1, 1, "", max_seconds=15.0)
    finding = finding_of(Budget("latency_ms", 2.0), Measurement({"latency_ms": reading_}, conditions=conditions))
    assert (finding.standing, finding.value, finding.low, finding.high) == (Standing.UNDECIDED, 1.0, None, None)
    assert finding.samples == 3
    assert finding.sentence.endswith(
        "3 loads in 15 s are too few for an interval, which takes 5: raise protocol.max_seconds"
    )


def test_the_ratio_of_a_load_is_the_median_of_its_blocks_ratios() -> None:
    loads = np.repeat(np.arange(5), 3)
    drift = np.linspace(1.0, 3.0, 15)
    before = Reading("ms", blocks(drift), loads=loads)
    after = Reading("ms", blocks(drift * np.tile([0.5, 0.6, 9.0], 5)), loads=loads)
    measurement = Measurement({"latency_ms": after}, {"latency_ms": before})
    finding = finding_of(Budget("latency_ms", 0.6, relative=True), measurement)
    assert (finding.standing, finding.samples) == (Standing.MET, 5)
    assert finding.value == finding.low == finding.high == pytest.approx(0.6)


def test_intervals_over_loads_cover_where_those_over_blocks_do_not() -> None:
    random = np.random.default_rng(3)
    loads = np.repeat(np.arange(9), 3)
    tries, missed = 400, {"loads": 0, "blocks": 0}
    for _ in range(tries):
        # a load makes the file up to 3 % faster or slower, its three blocks hardly differ
        effects = np.repeat(random.uniform(-0.03, 0.03, 9), 3) + random.normal(0, 0.003, 27)
        samples = blocks(100.0 * (1 + effects))
        for unit, numbers in (("loads", loads), ("blocks", None)):
            measurement = Measurement({"latency_ms": Reading("ms", samples, loads=numbers)})
            finding = finding_of(Budget("latency_ms", 1.0), measurement)
            assert finding.low is not None
            assert finding.high is not None
            missed[unit] += not finding.low <= 100.0 <= finding.high
    # two bounds of one in twenty each
    assert missed["loads"] / tries < 0.10
    assert missed["blocks"] / tries > 0.20


# energy


def test_energy_is_judged_by_its_blocks() -> None:
    energy = measured({"energy_mj": np.array([[2.0]] * 8 + [[90.0]])}, {"energy_mj": np.array([[4.0]] * 9)})
    finding = finding_of(Budget("energy_mj", 2.5), energy)
    assert (finding.standing, finding.value, finding.samples) == (Standing.MET, 2.0, 9)
    share = finding_of(Budget("energy_mj", 0.4, relative=True), energy, statistic="p99")
    assert (share.standing, share.value) == (Standing.EXCEEDED, 0.5)


def test_a_machine_without_a_counter_leaves_energy_unmeasured() -> None:
    timed = measured({"latency_ms": blocks([1.0] * 9)})
    finding = finding_of(Budget("energy_mj", 1e9), timed)
    assert finding.standing is Standing.UNMEASURED
    assert "no energy counter" in finding.sentence


# throughput


def test_throughput_is_judged_by_what_was_measured_under_load_and_not_by_latency() -> None:
    latency = {"latency_ms": blocks([1.0] * 9)}
    assert finding_of(Budget("throughput_per_s", 1.0), measured(latency)).standing is Standing.UNMEASURED
    rates = measured({**latency, "throughput_per_s": np.arange(1.0, 10.0)[:, None]})
    finding = finding_of(Budget("throughput_per_s", 1.0), rates, statistic="p99")
    assert (finding.low, finding.value, finding.high, finding.samples) == (2.0, 5.0, 8.0, 9)


@pytest.mark.parametrize(
    ("limit", "standing"),
    [
        (2.0, Standing.MET),
        (above(2.0), Standing.UNDECIDED),
        (8.0, Standing.UNDECIDED),
        (above(8.0), Standing.EXCEEDED),
    ],
)
def test_throughput_is_met_down_to_its_limit(limit: float, standing: Standing) -> None:
    rates = measured({"throughput_per_s": np.arange(1.0, 10.0)[:, None]})
    assert finding_of(Budget("throughput_per_s", limit), rates).standing is standing


def test_throughput_relative_to_the_baseline_is_paired() -> None:
    drift = np.linspace(100.0, 300.0, 9)[:, None]
    twice = measured({"throughput_per_s": 2 * drift}, {"throughput_per_s": drift})
    met = finding_of(Budget("throughput_per_s", 2.0, relative=True), twice)
    assert (met.standing, met.value) == (Standing.MET, 2.0)
    assert finding_of(Budget("throughput_per_s", above(2.0), relative=True), twice).standing is Standing.EXCEEDED


# accuracy


def test_a_drop_of_right_answers_is_decided_by_tangos_bounds() -> None:
    lost, gained, n = 60, 12, 400
    measurement = paired(lost, gained, n - lost - gained - 30, 30)
    low, high = (100 * bound for bound in drop_bounds(lost, gained, n, ALPHA))
    assert 0 < low < high
    limits = {
        high: Standing.MET,
        below(high): Standing.UNDECIDED,
        low: Standing.UNDECIDED,
        below(low): Standing.EXCEEDED,
    }
    for limit, standing in limits.items():
        finding = finding_of(Budget("max_accuracy_drop_pp", limit), measurement)
        assert finding.standing is standing
        assert (finding.low, finding.high, finding.samples) == (low, high, n)
        assert finding.value == pytest.approx(12.0)
        assert "60 of 400 items lost, 12 won" in finding.sentence


def test_few_items_without_a_change_do_not_show_that_nothing_was_lost() -> None:
    finding = finding_of(Budget("max_accuracy_drop_pp", 1.0), paired(0, 0, 20))
    assert finding.value == 0
    assert finding.standing is Standing.UNDECIDED


def test_a_drop_in_the_tasks_own_unit_is_decided_by_the_bounds_of_its_mean() -> None:
    generator = np.random.default_rng(1)
    before = generator.normal(size=80)
    after = before - generator.normal(0.3, 0.5, 80)
    measurement = measured({"score": after}, {"score": before})
    low, high = mean_bounds(before - after, ALPHA)
    assert 0 < low < high
    limits = {
        high: Standing.MET,
        below(high): Standing.UNDECIDED,
        low: Standing.UNDECIDED,
        below(low): Standing.EXCEEDED,
    }
    for limit, standing in limits.items():
        finding = finding_of(Budget("max_score_drop", limit), measurement)
        assert finding.standing is standing
        assert (finding.low, finding.high) == (low, high)
        assert "mean over 80 items" in finding.sentence


def test_points_of_a_score_between_zero_and_one_are_hundredths_of_it() -> None:
    # token accuracy: the score of an item is a share and not right or wrong
    generator = np.random.default_rng(2)
    before, after = generator.integers(5, 11, 300) / 10, generator.integers(4, 10, 300) / 10
    measurement = measured({"score": after}, {"score": before})
    low, high = bounded_mean_bounds(before - after, -1.0, 1.0, ALPHA)
    finding = finding_of(Budget("max_accuracy_drop_pp", 40.0), measurement)
    assert finding.value == pytest.approx(100 * float((before - after).mean()))
    assert (finding.low, finding.high) == (100 * low, 100 * high)
    assert finding.standing is Standing.MET


def test_one_score_between_right_and_wrong_makes_all_scores_real_valued() -> None:
    before, after = answers((5, 1, 0), (95, 1, 1))
    binary = finding_of(Budget("max_score_drop", 0.2), measured({"score": after}, {"score": before}))
    after[-1] = 0.5
    mixed = finding_of(Budget("max_score_drop", 0.2), measured({"score": after}, {"score": before}))
    assert binary.high == drop_bounds(5, 0, 100, ALPHA)[1]
    assert mixed.high == mean_bounds(before - after, ALPHA)[1]


def test_a_floor_on_accuracy_is_decided_by_the_exact_bounds_of_the_rate() -> None:
    measurement = measured({"score": [1.0] * 170 + [0.0] * 30})
    low, high = (100 * bound for bound in rate_bounds(170, 200, ALPHA))
    limits = {
        low: Standing.MET,
        above(low): Standing.UNDECIDED,
        high: Standing.UNDECIDED,
        above(high): Standing.EXCEEDED,
    }
    for limit, standing in limits.items():
        finding = finding_of(Budget("min_accuracy", limit), measurement)
        assert finding.standing is standing
        assert (finding.low, finding.high, finding.value) == (low, high, 85.0)


def test_a_floor_needs_no_baseline_and_real_scores_get_the_bounds_of_a_mean() -> None:
    scores = np.linspace(0.6, 1.0, 50)
    finding = finding_of(Budget("min_accuracy", 70.0), measured({"score": scores}))
    low, high = bounded_mean_bounds(scores, 0.0, 1.0, ALPHA)
    assert (finding.low, finding.high) == (100 * low, 100 * high)
    assert finding.standing is Standing.MET


def test_a_smaller_error_probability_for_accuracy_leaves_latency_as_it_is() -> None:
    latency, score = blocks(range(1, 10)), paired(8, 2, 190)
    both = Measurement({**score.readings, "latency_ms": reading("latency_ms", latency)}, score.baseline)
    budgets = [Budget("latency_ms", 5.0), Budget("max_accuracy_drop_pp", 5.0), Budget("min_accuracy", 90.0)]
    plain, strict = (judge(budgets, both, ALPHA, accuracy_alpha=alpha).findings for alpha in (None, 0.001))
    assert plain[0] == strict[0]
    for wide, narrow in zip(strict[1:], plain[1:], strict=True):
        assert wide.low is not None
        assert wide.high is not None
        assert narrow.low is not None
        assert narrow.high is not None
        assert wide.low < narrow.low
        assert wide.high > narrow.high


def test_real_scores_of_two_items_that_did_not_change_do_not_show_that_nothing_is_lost() -> None:
    same = measured({"score": [0.5, 0.25]}, {"score": [0.5, 0.25]})
    assert finding_of(Budget("max_score_drop", 0.01), same).standing is Standing.UNDECIDED


# how much more is needed


@pytest.mark.parametrize(("lost", "gained", "limit"), [(4, 2, 1.5), (6, 1, 3.0), (0, 0, 0.5), (16, 2, 5.0)])
def test_as_many_more_items_of_the_same_kind_as_are_needed_decide(lost: int, gained: int, limit: float) -> None:
    budget, n = Budget("max_accuracy_drop_pp", limit), 200
    finding = finding_of(budget, paired(lost, gained, n - lost - gained))
    assert finding.standing is Standing.UNDECIDED
    assert finding.needed is not None
    assert finding.needed > 0
    assert f"about {finding.needed} more items are needed" in finding.sentence
    assert n + finding.needed == items_needed(lost, gained, n, limit / 100, ALPHA)
    times = math.ceil((n + finding.needed) / n)
    more = paired(times * lost, times * gained, times * (n - lost - gained))
    assert finding_of(budget, more).standing is (
        Standing.MET if 100 * (lost - gained) / n < limit else Standing.EXCEEDED
    )


def test_no_number_of_items_decides_a_drop_that_lies_at_the_limit() -> None:
    finding = finding_of(Budget("max_accuracy_drop_pp", 2.0), paired(6, 2, 192))
    assert finding.standing is Standing.UNDECIDED
    assert finding.needed is None
    assert "it lies at the limit" in finding.sentence


def test_nothing_more_is_needed_for_what_is_decided() -> None:
    for limit in (50.0, 0.0):
        finding = finding_of(Budget("max_accuracy_drop_pp", limit), paired(40, 0, 160))
        assert finding.standing is not Standing.UNDECIDED
        assert finding.needed is None
        assert "more items" not in finding.sentence


def test_an_undecided_drop_of_real_scores_says_how_many_more_items_are_needed() -> None:
    generator = np.random.default_rng(3)
    before = generator.normal(size=30)
    after = before - generator.normal(0.1, 1.0, 30)
    finding = finding_of(Budget("max_score_drop", 0.2), measured({"score": after}, {"score": before}))
    assert finding.standing is Standing.UNDECIDED
    assert "lies at the limit" not in finding.sentence
    assert finding.needed is not None


def test_an_undecided_floor_says_how_many_more_items_are_needed() -> None:
    finding = finding_of(Budget("min_accuracy", 84.0), measured({"score": [1.0] * 170 + [0.0] * 30}))
    assert finding.standing is Standing.UNDECIDED
    assert finding.needed is not None


# the baseline itself


def test_the_baseline_loses_exactly_nothing_against_itself() -> None:
    scores = [1.0, 0.0, 1.0]
    times = {name: blocks([1.0, 9.0, 2.0]) for name in ("latency_ms", "throughput_per_s")}
    readings = {"score": scores, "size_mb": [3.0], **times}
    itself = measured(readings, readings, unchanged=True)
    for budget, value in (
        (Budget("max_accuracy_drop_pp", 0.0), 0.0),
        (Budget("max_score_drop", 0.0), 0.0),
        (Budget("latency_ms", 1.0, relative=True), 1.0),
        (Budget("throughput_per_s", 1.0, relative=True), 1.0),
        (Budget("size_mb", 1.0, relative=True), 1.0),
    ):
        finding = finding_of(budget, itself)
        assert finding.standing is Standing.MET
        assert finding.value == finding.low == finding.high == value


def test_the_baseline_is_no_faster_than_itself() -> None:
    times = {name: blocks([1.0] * 9) for name in ("latency_ms", "throughput_per_s")}
    itself = measured(times, times, unchanged=True)
    assert finding_of(Budget("latency_ms", below(1.0), relative=True), itself).standing is Standing.EXCEEDED
    assert finding_of(Budget("throughput_per_s", above(1.0), relative=True), itself).standing is Standing.EXCEEDED


def test_the_baseline_is_judged_like_any_other_where_limits_are_absolute() -> None:
    itself = measured({"score": [1.0] * 8, "latency_ms": blocks([1.0, 2.0, 3.0])}, unchanged=True)
    assert finding_of(Budget("min_accuracy", 99.0), itself).standing is Standing.UNDECIDED
    assert finding_of(Budget("latency_ms", 5.0), itself).standing is Standing.UNDECIDED


def test_unchanged_without_a_reading_is_still_unmeasured() -> None:
    nothing = Measurement(unchanged=True)
    for budget in (Budget("max_accuracy_drop_pp", 1.0), Budget("latency_ms", 2.0, relative=True)):
        assert finding_of(budget, nothing).standing is Standing.UNMEASURED


# what must hold for all readings

LATENCIES = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=12)
COUNTS = st.tuples(*(st.integers(0, 60) for _ in range(4))).filter(lambda counts: sum(counts) > 0)
RATES = st.floats(0.0, 1.0)
SCORES = st.lists(st.tuples(RATES, RATES), min_size=1, max_size=20)
LIMITS = st.floats(0.001, 100.0)


@st.composite
def measurements(draw: st.DrawFn, times: int = 1) -> tuple[Measurement, Measurement]:
    """A measurement and the same with `times` as many blocks and items of the same kind."""
    latency, before = (np.array(draw(LATENCIES)) for _ in range(2))
    if draw(st.booleans()):
        lost, gained, right, wrong = draw(COUNTS)
        scores = answers((lost, 1, 0), (gained, 0, 1), (right, 1, 1), (wrong, 0, 0))
    else:
        pairs = np.array(draw(SCORES))
        scores = pairs[:, 0], pairs[:, 1]
    sizes: dict[str, object] = {name: [draw(st.floats(0.001, 100.0))] for name in SIZES}
    rounds = min(len(latency), len(before))

    def timed(values: Array, count: int) -> dict[str, object]:
        found = {name: np.tile(blocks(values[:rounds]), (count, 1)) for name in TIMES}
        return {**found, "memory_mb": np.tile(values[:rounds], count)}

    def repeated(count: int) -> Measurement:
        return measured(
            {**sizes, **timed(latency, count), "score": np.tile(scores[1], count)},
            {**{name: [2.0] for name in SIZES}, **timed(before, count), "score": np.tile(scores[0], count)},
        )

    return repeated(1), repeated(times)


BUDGETS = st.one_of(
    # accuracies below 1 % are taken for shares
    st.builds(Budget, st.sampled_from(sorted(METRICS)), st.floats(1.0, 100.0)),
    st.builds(
        Budget, st.sampled_from([n for n, m in METRICS.items() if m.may_be_relative]), LIMITS, st.just(value=True)
    ),
)


@settings(deadline=None, max_examples=150)
@given(measurements(), BUDGETS, st.floats(1.0, 100.0))
def test_a_wider_limit_never_makes_a_standing_worse(
    found: tuple[Measurement, Measurement], budget: Budget, limit: float
) -> None:
    at_least = METRICS[budget.metric].direction == "at least"
    assume(limit < budget.limit if at_least else limit > budget.limit)
    tight = finding_of(budget, found[0])
    wide = finding_of(Budget(budget.metric, limit, budget.relative), found[0])
    assert RANK[wide.standing] >= RANK[tight.standing]


@settings(deadline=None, max_examples=150)
@given(st.integers(2, 6).flatmap(measurements), BUDGETS)
def test_more_blocks_and_items_of_the_same_kind_never_turn_met_into_exceeded_or_back(
    found: tuple[Measurement, Measurement], budget: Budget
) -> None:
    few, many = (finding_of(budget, measurement).standing for measurement in found)
    assert {few, many} != {Standing.MET, Standing.EXCEEDED}


@settings(deadline=None, max_examples=100)
@given(measurements(), BUDGETS)
def test_value_and_bounds_agree_with_the_standing(found: tuple[Measurement, Measurement], budget: Budget) -> None:
    finding = finding_of(budget, found[0])
    assert finding.value is not None
    if finding.low is not None and finding.high is not None:
        rounding = 1e-9 * max(1.0, abs(finding.value))
        assert finding.low - rounding <= finding.value <= finding.high + rounding
    if finding.standing is Standing.MET:
        assert finding.overshoot <= 1 + 1e-9
    if finding.standing is Standing.EXCEEDED:
        assert finding.overshoot >= 1 - 1e-9


# figures of all items together


def together(value: float, spread: float, items: int = 1000, seed: int = 0) -> Reading:
    """A figure and its replicates; the same seed draws the same items."""
    drawn = np.random.default_rng(seed).standard_normal(999)
    return Reading("macro_f1", np.concatenate([[value], value + spread * drawn]), items)


def aggregated(after: Reading, before: Reading | None) -> Measurement:
    return Measurement({"score": after}, {} if before is None else {"score": before})


def test_a_drop_of_an_aggregate_is_decided_by_paired_replicates() -> None:
    # both vary a great deal over the items, and together
    measurement = aggregated(together(0.80, 0.02), together(0.81, 0.02))
    finding = finding_of(Budget("max_accuracy_drop_pp", 1.5), measurement)
    assert finding.standing is Standing.MET
    assert finding.value == pytest.approx(1.0)
    assert (finding.low, finding.high) == pytest.approx((1.0, 1.0))
    apart = finding_of(
        Budget("max_accuracy_drop_pp", 1.5), aggregated(together(0.80, 0.02, seed=1), together(0.81, 0.02))
    )
    assert apart.standing is Standing.UNDECIDED
    assert apart.needed is not None
    assert apart.samples == 1000


def test_an_aggregate_that_is_no_rate_has_no_points() -> None:
    measurement = aggregated(together(-21.0, 0.1), together(-20.0, 0.1))
    assert finding_of(Budget("max_accuracy_drop_pp", 50.0), measurement).standing is Standing.UNMEASURED
    assert finding_of(Budget("max_score_drop", 1.5), measurement).standing is Standing.MET
    assert finding_of(Budget("max_score_drop", 0.5), measurement).standing is Standing.EXCEEDED


def test_a_floor_on_an_aggregate_needs_no_baseline() -> None:
    assert finding_of(Budget("min_accuracy", 70.0), aggregated(together(0.8, 0.01), None)).standing is Standing.MET
    assert (
        finding_of(Budget("max_score_drop", 0.1), aggregated(together(0.8, 0.01), None)).standing is Standing.UNMEASURED
    )


# reading until it is clear


def reader(answer_pairs: tuple[np.ndarray, np.ndarray], taken: list[int]) -> Callable[[int], Measurement]:
    before, after = answer_pairs

    def take(count: int) -> Measurement:
        taken.append(count)
        return measured({"score": after[:count]}, {"score": before[:count]})

    return take


def test_reading_ends_when_every_accuracy_budget_is_clear() -> None:
    same = np.ones(10_000)
    profile = Profile("p", budgets=(Budget("max_accuracy_drop_pp", 2.0),))
    taken: list[int] = []
    measurement, level = look_until_clear(profile, 10_000, 0.05, reader((same, same), taken))
    assert taken == [250, 500]
    assert len(measurement.readings["score"].samples) == 500
    assert 0 < level < 0.05
    worse = same.copy()
    worse[::3] = 0
    taken.clear()
    look_until_clear(profile, 10_000, 0.05, reader((same, worse), taken))
    assert taken == [250]


def test_what_stays_open_is_read_to_the_end() -> None:
    same = np.ones(10_000)
    worse = same.copy()
    worse[::100] = 0
    taken: list[int] = []
    profile = Profile("p", budgets=(Budget("max_accuracy_drop_pp", 1.0),))
    _, level = look_until_clear(profile, 10_000, 0.05, reader((same, worse), taken))
    assert taken[-1] == 10_000
    assert level == last_level(profile, 10_000, 0.05)


@pytest.mark.parametrize(
    "profile",
    [
        Profile("all", protocol=Protocol(items="all"), budgets=(Budget("max_accuracy_drop_pp", 5.0),)),
        Profile("no accuracy budget", budgets=(Budget("size_mb", 5.0),)),
    ],
)
def test_everything_is_read_at_once_where_that_is_asked_or_nothing_could_be_decided(profile: Profile) -> None:
    taken: list[int] = []
    _, level = look_until_clear(profile, 1000, 0.05, reader((np.ones(1000), np.ones(1000)), taken))
    assert (taken, level) == ([1000], 0.05)


def test_no_items_are_read_at_once_as_well() -> None:
    taken: list[int] = []
    profile = Profile("p", budgets=(Budget("max_accuracy_drop_pp", 1.0),))
    _, level = look_until_clear(profile, 0, 0.05, reader((np.ones(0), np.ones(0)), taken))
    assert (taken, level) == ([0], 0.05)
    assert last_level(profile, 0, 0.05) == 0.05


# scores that are neither right nor wrong


def scored(before: Array, after: Array, bounds: tuple[float, float] | None) -> Measurement:
    sides = ({"score": Reading("score", side, bounds=bounds)} for side in (after, before))
    return Measurement(*sides)


def rare_total_losses(seed: int, items: int = 1_000, share: float = 0.008) -> tuple[np.ndarray, np.ndarray]:
    """Scores before and after: a share of the items loses all of 0.85, the others next to nothing."""
    random = np.random.default_rng(seed)
    before = np.full(items, 0.85)
    after = before + random.normal(0, 0.001, items).round(4)
    return before, np.where(random.random(items) < share, 0.0, after)


def test_rare_total_losses_above_the_limit_seldom_pass() -> None:
    # 0.68 points are lost in truth; the first 250 items hold no lost one in every seventh gate
    profile = Profile("p", budgets=(Budget("max_accuracy_drop_pp", 0.5),))
    gates, passed = 200, 0
    for seed in range(gates):
        measurement, level = look_until_clear(profile, 1_000, ALPHA, reader(rare_total_losses(seed), []))
        passed += judge(profile.budgets, measurement, ALPHA, accuracy_alpha=level).status is Status.MET
    assert passed / gates <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / gates)


def overlaps(items: int, lost: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Intersections over union before and after, between 0 and 1."""
    random = np.random.default_rng(7)
    before = random.beta(8, 2, items)
    return before, np.clip(before - random.normal(lost, 0.01, items), 0, 1)


def reader_in(bounds: tuple[float, float] | None, pairs: tuple[Array, Array], taken: list[int]) -> Callable[..., Any]:
    def take(count: int) -> Measurement:
        taken.append(count)
        return scored(pairs[0][:count], pairs[1][:count], bounds)

    return take


SCORE_DROP = Profile("p", budgets=(Budget("max_score_drop", 0.05),))


def test_scores_in_known_bounds_are_read_until_it_is_clear_at_the_full_error_probability() -> None:
    taken: list[int] = []
    measurement, level = look_until_clear(SCORE_DROP, 10_000, ALPHA, reader_in((0.0, 1.0), overlaps(10_000), taken))
    assert (taken, level) == ([250], ALPHA)
    finding = finding_of(SCORE_DROP.budgets[0], measurement)
    assert finding.standing is Standing.MET
    assert finding.sentence.endswith("mean over 250 items")


def test_scores_without_bounds_are_read_to_the_end_and_the_bound_is_called_asymptotic() -> None:
    taken: list[int] = []
    measurement, level = look_until_clear(SCORE_DROP, 10_000, ALPHA, reader_in(None, overlaps(10_000), taken))
    assert (taken[-1], level) == (10_000, ALPHA)
    assert len(taken) == 2
    finding = finding_of(SCORE_DROP.budgets[0], measurement)
    assert "mean over 10,000 items; the bound is asymptotic: the score's range is not known" in finding.sentence


def test_figures_of_all_items_together_are_read_to_the_end_and_called_asymptotic() -> None:
    taken: list[int] = []

    def take(count: int) -> Measurement:
        taken.append(count)
        return aggregated(together(0.8, 0.01, count), together(0.8, 0.01, count))

    measurement, level = look_until_clear(SCORE_DROP, 5_000, ALPHA, take)
    assert (taken, level) == ([250, 5_000], ALPHA)
    sentence = finding_of(SCORE_DROP.budgets[0], measurement).sentence
    assert "macro_f1 over 5,000 items; the bound is asymptotic" in sentence


def test_wider_bounds_of_the_score_give_wider_bounds_of_the_drop() -> None:
    before, after = overlaps(500)
    narrow, wide = (finding_of(SCORE_DROP.budgets[0], scored(before, after, (0.0, top))) for top in (1.0, 10.0))
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low < narrow.high < wide.high  # type: ignore[operator]  # not None either


def test_zeros_and_ones_of_a_score_with_wider_bounds_are_not_right_or_wrong() -> None:
    before, after = answers((5, 1, 0), (495, 1, 1))
    found = finding_of(Budget("max_score_drop", 0.5), scored(before, after, (0.0, 100.0)))
    assert found.high == bounded_mean_bounds(before - after, -100.0, 100.0, ALPHA)[1]


def test_points_need_declared_bounds_between_zero_and_one() -> None:
    before, after = overlaps(500)
    points = Budget("max_accuracy_drop_pp", 5.0)
    assert finding_of(points, scored(before, after, (0.0, 1.0))).standing is Standing.MET
    assert finding_of(points, scored(before, after, (0.0, 100.0))).standing is Standing.UNMEASURED


def test_a_baseline_that_is_no_rate_has_no_points_even_where_the_candidate_is() -> None:
    before, after = overlaps(500)
    sides = ({"score": Reading("score", after, bounds=(0.0, 1.0))}, {"score": Reading("score", before + 1)})
    assert finding_of(Budget("max_accuracy_drop_pp", 5.0), Measurement(*sides)).standing is Standing.UNMEASURED
    assert finding_of(Budget("max_score_drop", 5.0), Measurement(*sides)).standing is Standing.MET


def test_answers_that_turn_out_to_be_scores_spend_what_was_left() -> None:
    # right or wrong in the first 500 items, a fraction later: what the first two readings may have erred is spent
    before = np.ones(1_000)
    after = before.copy()
    after[::50] = 0.0
    after[600] = 0.5
    taken: list[int] = []
    profile = Profile("p", budgets=(Budget("max_score_drop", 0.021),))
    _, level = look_until_clear(profile, 1_000, ALPHA, reader_in((0.0, 1.0), (before, after), taken))
    assert taken == [250, 500, 1_000]
    assert level == pytest.approx(ALPHA / 2)


def test_what_is_needed_in_known_bounds_decides_and_no_range_is_guessed_from_the_values() -> None:
    before, after = overlaps(300, lost=0.01)
    budget = Budget("max_score_drop", 0.02)
    finding = finding_of(budget, scored(before, after, (0.0, 1.0)))
    assert finding.standing is Standing.UNDECIDED
    assert finding.needed is not None
    times = math.ceil((300 + finding.needed) / 300)
    more = scored(np.tile(before, times), np.tile(after, times), (0.0, 1.0))
    assert finding_of(budget, more).standing is Standing.MET
    assert finding_of(budget, scored(before, after, None)).standing is Standing.MET


def test_a_floor_under_scores_in_known_bounds_is_met_and_exceeded() -> None:
    scores = np.random.default_rng(8).beta(8, 2, 2_000)
    found = {limit: finding_of(Budget("min_accuracy", limit), measured({"score": scores})) for limit in (70, 80, 90)}
    assert [found[limit].standing for limit in (70, 80, 90)] == [Standing.MET, Standing.UNDECIDED, Standing.EXCEEDED]


def test_a_forecast_judges_scores_in_known_bounds_at_the_full_level_of_the_look() -> None:
    profile = Profile("p", budgets=(Budget("max_score_drop", 0.02),))
    measurement = scored(*overlaps(300, lost=0.01), (0.0, 1.0))
    high = finding_of(profile.budgets[0], measurement).high
    assert high is not None
    assert high > 0.02
    assert not forecast(profile, measurement, 300, 1)
    assert forecast(profile, measurement, 3_000, 1)


def test_a_finding_that_stands_in_for_a_later_one_stays_asymptotic() -> None:
    earlier = finding_of(SCORE_DROP.budgets[0], scored(*overlaps(500), None))
    again = decide_again(SCORE_DROP.budgets[0], earlier, "certified on a day")
    assert again.sentence.endswith("certified on a day; the bound is asymptotic")


def test_each_of_several_shapes_has_its_finding_and_what_was_not_measured_is_not_met() -> None:
    latency, size = Budget("latency_ms", 0.5, relative=True), Budget("size_mb", 1)
    slow = measured({"latency_ms": blocks([6] * 9)}, {"latency_ms": blocks([10] * 9)})
    fast = measured({"latency_ms": blocks([4] * 9), "size_mb": 1}, {"latency_ms": blocks([10] * 9)})

    def judged(measurement: Measurement) -> Verdict:
        return judge([size, latency], measurement, ALPHA, shapes=("1x8", "1x32", "1x64"))

    verdict = judged(replace(fast, smaller={"1x8": slow, "1x32": fast}))
    assert [(one.name, one.standing) for one in verdict.findings] == [
        ("size_mb", Standing.MET),
        ("latency_ms at 1x8", Standing.EXCEEDED),
        ("latency_ms at 1x32", Standing.MET),
        ("latency_ms at 1x64", Standing.MET),
    ]
    assert verdict.status is Status.NOT_MET
    assert verdict.binding == verdict.of("latency_ms") == verdict.findings[1]
    assert Verdict.from_json(verdict.to_json()) == verdict
    lacking = judged(replace(fast, smaller={"1x8": fast}))
    assert [one.standing for one in lacking.findings if one.shapes == "1x32"] == [Standing.UNMEASURED]
    assert lacking.status is Status.UNDECIDED
    assert judged(replace(fast, smaller={"1x8": fast, "1x32": fast})).status is Status.MET
