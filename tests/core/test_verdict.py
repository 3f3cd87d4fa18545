import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.budget import Budget
from autocompress.core.verdict import Finding, Standing, Status, Verdict

METRICS = ("size_mb", "latency_ms", "memory_mb", "max_accuracy_drop_pp")


def verdict_of(standings: Sequence[Standing]) -> Verdict:
    return Verdict(tuple(Finding(Budget(name, 1.0), s) for name, s in zip(METRICS, standings, strict=False)))


def finding(metric: str, limit: float, value: float | None, standing: Standing = Standing.EXCEEDED) -> Finding:
    return Finding(Budget(metric, limit), standing, value)


def test_nothing_measured_is_not_met() -> None:
    assert Verdict().status is Status.UNDECIDED
    assert verdict_of([Standing.UNMEASURED]).status is Status.UNDECIDED


@settings(deadline=None)
@given(st.lists(st.sampled_from(Standing), max_size=4))
def test_only_findings_that_are_all_met_are_met(standings: list[Standing]) -> None:
    expected = Status.UNDECIDED
    if Standing.EXCEEDED in standings:
        expected = Status.NOT_MET
    elif standings and all(standing is Standing.MET for standing in standings):
        expected = Status.MET
    assert verdict_of(standings).status is expected


@settings(deadline=None)
@given(st.lists(st.sampled_from(Standing), min_size=1, max_size=4), st.data())
def test_a_finding_that_gets_worse_never_makes_the_answer_better(
    standings: list[Standing], data: st.DataObject
) -> None:
    rank = {Status.MET: 2, Status.UNDECIDED: 1, Status.NOT_MET: 0}
    place = data.draw(st.integers(0, len(standings) - 1))
    for worse in (Standing.UNDECIDED, Standing.UNMEASURED, Standing.EXCEEDED):
        changed = [*standings[:place], worse, *standings[place + 1 :]]
        if standings[place] is Standing.MET or worse is Standing.EXCEEDED:
            assert rank[verdict_of(changed).status] <= rank[verdict_of(standings).status]


def test_exit_codes_are_those_of_the_command_line() -> None:
    assert {status: status.exit_code for status in Status} == {
        Status.MET: 0,
        Status.NOT_MET: 1,
        Status.UNDECIDED: 3,
    }


def test_nothing_binds_when_all_is_met() -> None:
    assert verdict_of([Standing.MET, Standing.MET]).binding is None


def test_the_budget_exceeded_by_the_largest_factor_binds() -> None:
    verdict = Verdict(
        (
            finding("size_mb", 10, 12),
            finding("latency_ms", 5, 9),
            finding("memory_mb", 50, 20, Standing.MET),
        )
    )
    assert verdict.binding is verdict.findings[1]


def test_what_is_exceeded_binds_before_what_is_undecided_and_that_before_what_is_unmeasured() -> None:
    unmeasured = finding("memory_mb", 1, None, Standing.UNMEASURED)
    undecided = finding("max_accuracy_drop_pp", 1, 9, Standing.UNDECIDED)
    exceeded = finding("size_mb", 10, 10.1, Standing.EXCEEDED)
    assert Verdict((unmeasured, undecided, exceeded)).binding is exceeded
    assert Verdict((unmeasured, undecided)).binding is undecided
    assert Verdict((unmeasured,)).binding is unmeasured


@pytest.mark.parametrize(
    ("metric", "limit", "value", "overshoot"),
    [
        ("size_mb", 10, 5, 0.5),
        ("size_mb", 10, 10, 1.0),
        ("latency_ms", 4, 6, 1.5),
        ("throughput_per_s", 100, 50, 2.0),
        ("throughput_per_s", 100, 200, 0.5),
        ("throughput_per_s", 100, 0, float("inf")),
        ("max_accuracy_drop_pp", 1, 1, 1.0),
        ("max_accuracy_drop_pp", 2, 4, 2.0),
        ("max_accuracy_drop_pp", 0, 0.5, 1.5),
        ("max_accuracy_drop_pp", 1, -0.5, 0.0),
        ("max_score_drop", 0.1, 0.3, 1.2),
        ("min_accuracy", 90, 90, 1.0),
        ("min_accuracy", 90, 89, 2.0),
        ("min_accuracy", 90, 95, 0.0),
    ],
)
def test_the_overshoot_is_one_at_the_limit_and_above_one_past_it(
    metric: str, limit: float, value: float, overshoot: float
) -> None:
    assert finding(metric, limit, value).overshoot == pytest.approx(overshoot)


def test_what_has_no_value_overshoots_without_bound() -> None:
    assert finding("size_mb", 10, None).overshoot == float("inf")


def test_a_finding_is_found_by_its_metric() -> None:
    verdict = verdict_of([Standing.MET, Standing.EXCEEDED])
    assert verdict.of("latency_ms") is verdict.findings[1]
    assert verdict.of("energy_mj") is None


def test_a_verdict_survives_json_and_its_status_is_derived_again() -> None:
    verdict = Verdict(
        (
            Finding(Budget("latency_ms", 0.5, relative=True), Standing.MET, 0.4, 0.38, 0.42, None, 300, "0.4x"),
            Finding(Budget("max_accuracy_drop_pp", 1), Standing.UNDECIDED, 0.8, -0.2, 1.8, 4_000, 500, "more"),
            Finding(Budget("memory_mb", 30), Standing.UNMEASURED),
        )
    )
    written = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert written["status"] == "undecided"
    assert Verdict.from_json({**written, "status": "met"}).status is Status.UNDECIDED
    assert Verdict.from_json(written) == verdict
