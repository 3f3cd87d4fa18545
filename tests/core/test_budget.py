import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.budget import ACCURACY_METRICS, METRICS, Budget, Direction, merge
from autocompress.errors import AutocompressError, ProfileError

RELATIVE = tuple(name for name, metric in METRICS.items() if metric.may_be_relative)
STRUCTURAL = tuple(name for name, metric in METRICS.items() if metric.structural)
LIMITS = st.floats(min_value=1e-6, max_value=1e12, allow_nan=False, allow_infinity=False)


@st.composite
def budgets(draw: st.DrawFn) -> Budget:
    metric = draw(st.sampled_from(tuple(METRICS)))
    limit = draw(st.floats(min_value=1, max_value=100) if METRICS[metric].unit in ("pp", "%") else LIMITS)
    return Budget(metric, limit, metric in RELATIVE and draw(st.booleans()))


@pytest.mark.parametrize("value", [12, 12.0, "12", " 12 ", "1.2e1", "+12"])
def test_a_number_is_an_absolute_limit(value: float | str) -> None:
    assert Budget.parse("latency_ms", value) == Budget("latency_ms", 12.0, relative=False)


@pytest.mark.parametrize("value", ["0.5x", "0.5X", " 0.5x ", ".5x"])
def test_a_number_with_an_x_is_a_share_of_the_baseline(value: str) -> None:
    assert Budget.parse("size_mb", value) == Budget("size_mb", 0.5, relative=True)


@pytest.mark.parametrize("value", ["", "x", "fast", "12 ms", "0.5xx", "x0.5", "1,5", True])
def test_what_is_no_number_is_refused_with_the_forms_that_are_allowed(value: str) -> None:
    with pytest.raises(ProfileError, match="is not a limit") as caught:
        Budget.parse("latency_ms", value)
    assert caught.value.where == "budgets.latency_ms"
    assert "0.5x" in caught.value.hint


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", ["-1", "-0.001", "nan", "inf", "-inf", "1e999"])
def test_a_limit_is_finite_and_not_negative(metric: str, value: str) -> None:
    with pytest.raises(ProfileError, match="at least 0") as caught:
        Budget.parse(metric, value)
    assert caught.value.where == f"budgets.{metric}"


@pytest.mark.parametrize("metric", STRUCTURAL)
@pytest.mark.parametrize("value", [0, "0x", "-0"])
def test_a_cost_of_zero_is_refused_because_it_can_never_be_met(metric: str, value: float | str) -> None:
    with pytest.raises(ProfileError, match="never be met"):
        Budget.parse(metric, value)


@pytest.mark.parametrize("metric", sorted(ACCURACY_METRICS))
def test_an_accuracy_limit_may_be_zero(metric: str) -> None:
    assert Budget.parse(metric, 0).limit == 0


@pytest.mark.parametrize("metric", sorted(ACCURACY_METRICS))
def test_an_accuracy_limit_is_never_a_share_of_the_baseline(metric: str) -> None:
    with pytest.raises(ProfileError, match="cannot be a share of the baseline") as caught:
        Budget.parse(metric, "0.5x")
    assert METRICS[metric].unit in caught.value.message


@pytest.mark.parametrize("metric", RELATIVE)
def test_costs_may_be_a_share_of_the_baseline(metric: str) -> None:
    assert Budget.parse(metric, "0.5x").text == "0.5x"


def test_an_accuracy_floor_above_a_hundred_percent_is_refused() -> None:
    assert Budget("min_accuracy", 100).limit == 100
    with pytest.raises(ProfileError, match="at most 100"):
        Budget("min_accuracy", 100.1)


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match="latency_s") as caught:
        Budget.parse("latency_s", 1)
    assert all(name in caught.value.hint for name in METRICS)


def test_only_throughput_and_the_accuracy_floor_are_at_least() -> None:
    at_least = {name for name in METRICS if Budget(name, 1).direction is Direction.AT_LEAST}
    assert at_least == {"throughput_per_s", "min_accuracy"}


def test_what_training_changes_is_not_structural() -> None:
    assert {name for name in METRICS if not Budget(name, 1).structural} == ACCURACY_METRICS


def test_a_budget_reads_as_a_person_writes_it() -> None:
    assert str(Budget("latency_ms", 12)) == "latency_ms <= 12 ms"
    assert str(Budget("size_mb", 0.35, relative=True)) == "size_mb <= 0.35x"
    assert str(Budget("throughput_per_s", 90.5)) == "throughput_per_s >= 90.5 items/s"


def test_merging_replaces_the_same_metric_and_keeps_the_order_of_the_metrics() -> None:
    old = (Budget("max_accuracy_drop_pp", 1), Budget("latency_ms", 0.5, relative=True), Budget("size_mb", 3))
    merged = merge(old, [Budget("latency_ms", 7), Budget("memory_mb", 50)])
    assert merged == (
        Budget("size_mb", 3),
        Budget("memory_mb", 50),
        Budget("latency_ms", 7),
        Budget("max_accuracy_drop_pp", 1),
    )


@settings(deadline=None)
@given(budgets())
def test_every_budget_is_parsed_back_from_its_number(budget: Budget) -> None:
    written = f"{budget.limit!r}x" if budget.relative else repr(budget.limit)
    assert Budget.parse(budget.metric, written) == budget


@settings(deadline=None)
@given(st.lists(budgets()), st.lists(budgets()))
def test_merging_holds_each_metric_once_and_the_last_replacement_wins(old: list[Budget], new: list[Budget]) -> None:
    merged = merge(old, new)
    names = [budget.metric for budget in merged]
    assert names == [name for name in METRICS if any(b.metric == name for b in (*old, *new))]
    for budget in merged:
        source = [b for b in new if b.metric == budget.metric] or [b for b in old if b.metric == budget.metric]
        assert budget == source[-1]


@settings(deadline=None)
@given(st.one_of(st.sampled_from(tuple(METRICS)), st.text()), st.one_of(st.floats(), st.text(max_size=20)))
def test_whatever_is_written_gives_a_sound_budget_or_an_error_of_ours(metric: str, value: float | str) -> None:
    try:
        budget = Budget.parse(metric, value)
    except AutocompressError:
        return
    assert budget.metric in METRICS
    assert math.isfinite(budget.limit)
    assert budget.limit > 0 or (budget.limit == 0 and metric in ACCURACY_METRICS)
    assert not (budget.relative and metric in ACCURACY_METRICS)
