import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autocompress.core.budget import Budget
from autocompress.core.plan import Effort, Plan, Stage, Step
from autocompress.core.search_space import Choice, Decision, Element, Reason, Recipe, SearchSpace, SettingSpace
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.run.diagnosis import binding_budget, diagnose, relaxed_budgets
from autocompress.statistics.judging import decide_again

LATENCY, SIZE = Budget("latency_ms", 0.2, relative=True), Budget("size_mb", 0.1, relative=True)
MISSED = Verdict(
    (
        Finding(SIZE, Standing.EXCEEDED, 0.253, 0.253, 0.253),
        Finding(LATENCY, Standing.EXCEEDED, 0.301, 0.29, 0.312),
        Finding(Budget("max_accuracy_drop_pp", 2.0), Standing.MET, 0.5, -1.0, 1.5),
    )
)
OF = Choice("of", (0, 1, 2))
SHAPES = (("1x8", 0.41), ("1x64", 0.33))
UNREACHABLE = SearchSpace((), {}, (Decision("reachable", "Are they?", "yes", "", ""),))


def test_budgets_are_relaxed_to_the_bounds_of_what_was_measured_and_no_further() -> None:
    assert [str(budget) for budget in relaxed_budgets(MISSED)] == ["size_mb <= 0.26x", "latency_ms <= 0.32x"]


def test_a_limit_that_is_a_floor_is_relaxed_downwards() -> None:
    finding = Finding(Budget("throughput_per_s", 400.0), Standing.EXCEEDED, 228.0, 219.0, 240.0)
    assert relaxed_budgets(Verdict((finding,))) == [Budget("throughput_per_s", 210.0)]


def test_a_limit_at_several_shapes_is_relaxed_to_what_all_of_them_keep() -> None:
    short, long = (Finding(LATENCY, Standing.EXCEEDED, 0.3, 0.2, high, shapes=name) for name, high in SHAPES)
    for verdict in (Verdict((short, long)), Verdict((long, short))):
        assert relaxed_budgets(verdict) == [Budget("latency_ms", 0.41, relative=True)]


def test_nothing_is_promised_where_a_budget_has_no_bound() -> None:
    unmeasured = Finding(Budget("energy_mj", 3.0), Standing.UNMEASURED)
    unbounded = Finding(LATENCY, Standing.UNDECIDED, 0.3, 0.1, math.inf)
    for finding in (unmeasured, unbounded):
        assert relaxed_budgets(Verdict((*MISSED.findings, finding))) == []


@given(st.floats(1e-3, 1e4), st.floats(0, 0.5), st.floats(0, 0.5))
@settings(max_examples=2000)
@example(1.999999999998181, 0.0, 0.0)
@example(2.0000000000018, 0.0, 0.0)
def test_the_same_measurement_meets_what_is_relaxed(value: float, below: float, above: float) -> None:
    for metric, most in (("latency_ms", math.inf), ("throughput_per_s", math.inf), ("max_accuracy_drop_pp", 60.0)):
        # no drop is above 100 points
        seen = min(value, most)
        finding = Finding(Budget(metric, 1e-6), Standing.EXCEEDED, seen, seen * (1 - below), seen * (1 + above))
        (budget,) = relaxed_budgets(Verdict((finding,)))
        assert decide_again(budget, finding, "").standing is Standing.MET


def test_it_names_the_best_of_all_trials_and_what_the_nearest_would_keep() -> None:
    other = Trial(2, Plan(), Outcome.STOPPED, verdict=Verdict((Finding(LATENCY, Standing.EXCEEDED, 0.27),)))
    assert diagnose(MISSED, [other], SearchSpace((), {})) == [
        "size_mb: the best that was reached is 0.253x, asked 0.1x.",
        "latency_ms: the best that was reached is 0.27x, asked 0.2x.",
        "The nearest miss would keep size_mb <= 0.26x, latency_ms <= 0.32x.",
    ]


def test_what_each_recipe_loses_is_told_best_first() -> None:
    names = ("static", "prepared", "static")
    steps = [Step(name, Stage.PRECISION, {"of": place}) for place, name in enumerate(names)]
    recipes = tuple(
        Recipe(name, Effort.CALIBRATION, (Element(name, Stage.PRECISION, SettingSpace((OF,))),), Reason("", ""))
        for name in ("static", "prepared")
    )
    drop = Budget("max_accuracy_drop_pp", 1.0)
    trials = [
        Trial(place, Plan(finish=(step,)), Outcome.STOPPED, verdict=Verdict((lost(drop, value),)))
        for place, (step, value) in enumerate(zip(steps, (6.4, 3.1, 5.5), strict=True))
    ]
    sentence = "max_accuracy_drop_pp in pp by what was tried: prepared 3.1, static 5.5."
    assert sentence in diagnose(trials[1].verdict, trials, SearchSpace(recipes, {}))
    # one alone is told as the best that was reached
    alone = diagnose(trials[1].verdict, trials[1:2], SearchSpace(recipes, {}))
    assert alone[0] == "max_accuracy_drop_pp: the best that was reached is 3.1 pp, asked 1 pp."
    assert not any("by what was tried" in one for one in alone)


def lost(budget: Budget, value: float) -> Finding:
    return Finding(budget, Standing.EXCEEDED, value, value - 1, value + 1)


def test_what_was_refused_for_want_of_data_or_is_not_on_the_shelf_is_named() -> None:
    refusals = {
        "distillation": Reason("needs training data, and there are none.", "training"),
        "int8_dynamic": Reason("makes it slower.", "probe"),
        "clustering": Reason("not available in this version.", "what"),
    }
    said = diagnose(MISSED, [], SearchSpace((), refusals))
    assert "Refused, and may open the way: distillation (needs training data, and there are none)." in said
    assert "Not available in this version, and usual here: clustering." in said
    assert not any("int8_dynamic" in sentence for sentence in said)


def test_budgets_out_of_reach_are_said_to_be() -> None:
    assert any("nothing was trained" in sentence for sentence in diagnose(MISSED, [], UNREACHABLE))
    assert not any("nothing was trained" in sentence for sentence in diagnose(MISSED, [], SearchSpace((), {})))


def test_accuracy_that_nobody_trained_does_not_stand_in_the_way_of_what_is_out_of_reach() -> None:
    ruined = Verdict((*MISSED.findings[:2], Finding(Budget("max_accuracy_drop_pp", 2.0), Standing.EXCEEDED, 80.0)))
    binding = binding_budget(ruined, UNREACHABLE)
    assert binding is not None
    assert binding.budget is SIZE
    assert binding_budget(ruined, SearchSpace((), {})) is ruined.findings[2]


def test_an_empty_verdict_has_no_advice() -> None:
    assert diagnose(Verdict(), [], SearchSpace((), {})) == []


@pytest.mark.parametrize("value", [0.25, 0.3, 12.0, 120.0])
def test_a_bound_of_two_digits_stays(value: float) -> None:
    (budget,) = relaxed_budgets(Verdict((Finding(Budget("latency_ms", 0.1), Standing.EXCEEDED, value, value, value),)))
    assert budget.limit == value
