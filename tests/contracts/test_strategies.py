import random
from itertools import pairwise
from typing import ClassVar

import pytest
from strategy_suite import DYNAMIC, ENDED, LADDER, PACKED, PLANS, STATIC, StrategySuite, climbed, trial

from autocompress.budget import ACCURACY_METRICS, METRICS
from autocompress.plan import Plan
from autocompress.strategies import STRATEGIES, Boundary, Random
from autocompress.strategy import Strategy
from autocompress.trial import Outcome

STRUCTURAL = [name for name, metric in METRICS.items() if metric.structural]


class TestBoundary(StrategySuite):
    strategy: ClassVar[type[Strategy]] = Boundary

    def test_it_climbs_from_the_cheapest_rung_and_from_the_most_promising_settings(self) -> None:
        assert climbed(Boundary(), LADDER) == list(PLANS)

    @pytest.mark.parametrize("metric", STRUCTURAL)
    def test_what_has_the_structure_of_a_plan_that_broke_size_or_time_is_skipped(self, metric: str) -> None:
        broken = next(STATIC.plans())
        proposed = climbed(Boundary(), LADDER, [trial(broken, Outcome.STOPPED, metric)])
        skipped = set(STATIC.plans()) - set(proposed) - {broken}
        assert skipped == {plan for plan in STATIC.plans() if same_types(plan, broken)} - {broken}
        assert skipped
        assert proposed == [plan for plan in PLANS if plan not in skipped and plan != broken]

    @pytest.mark.parametrize("metric", sorted(ACCURACY_METRICS))
    def test_what_broke_accuracy_rules_out_nothing_but_itself(self, metric: str) -> None:
        for broken in PLANS:
            proposed = climbed(Boundary(), LADDER, [trial(broken, Outcome.STOPPED, metric)])
            assert proposed == [plan for plan in PLANS if plan != broken]

    def test_what_broke_a_budget_on_one_rung_says_nothing_of_another(self) -> None:
        dead = [trial(plan, Outcome.STOPPED, "latency_ms") for plan in DYNAMIC.plans()]
        assert climbed(Boundary(), LADDER, dead) == [*STATIC.plans(), *PACKED.plans()]

    def test_every_step_of_a_plan_counts_for_its_structure(self) -> None:
        broken = next(PACKED.plans())
        proposed = climbed(Boundary(), LADDER, [trial(broken, Outcome.STOPPED, "size_mb")])
        left = [plan for plan in PACKED.plans() if plan in proposed]
        assert [p for p in left if same_types(p, broken)] == [
            plan for plan in PACKED.plans() if same_types(plan, broken) and plan.finish[1] != broken.finish[1]
        ]

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REFUSED])
    def test_what_has_the_structure_of_a_plan_that_could_not_be_made_is_skipped(self, outcome: Outcome) -> None:
        broken = next(STATIC.plans())
        proposed = climbed(Boundary(), LADDER, [trial(broken, outcome)])
        assert not any(same_types(plan, broken) for plan in proposed if plan in set(STATIC.plans()))
        assert len(proposed) == len(PLANS) - 2

    @pytest.mark.parametrize("outcome", [Outcome.MEASURED, Outcome.CLAIMED])
    def test_what_was_measured_or_is_under_way_rules_out_nothing_but_itself(self, outcome: Outcome) -> None:
        first = next(STATIC.plans())
        assert len(climbed(Boundary(), LADDER, [trial(first, outcome)])) == len(PLANS) - 1

    def test_whatever_came_before_the_plans_left_are_proposed_in_the_ladders_order(self) -> None:
        draw = random.Random(0)
        for _ in range(30):
            history = [
                trial(plan, draw.choice(ENDED), draw.choice([*METRICS, "", "no metric"]), number)
                for number, plan in enumerate(draw.sample(PLANS, draw.randrange(len(PLANS))))
            ]
            proposed = climbed(Boundary(), LADDER, history)
            places = [PLANS.index(plan) for plan in proposed]
            assert all(one < other for one, other in pairwise(places))
            assert not {one.plan for one in history} & set(proposed)


class TestRandom(StrategySuite):
    strategy: ClassVar[type[Strategy]] = Random

    def test_its_order_is_not_that_of_the_ladder_and_depends_on_the_seed(self) -> None:
        orders = [climbed(Random(seed), LADDER) for seed in range(3)]
        assert list(PLANS) not in orders
        assert len({tuple(plan.hash for plan in order) for order in orders}) == 3

    def test_it_rules_out_nothing(self) -> None:
        broken = next(STATIC.plans())
        assert len(climbed(Random(), LADDER, [trial(broken, Outcome.STOPPED, "size_mb")])) == len(PLANS) - 1


def same_types(plan: Plan, other: Plan) -> bool:
    return plan.finish[0].settings["types"] == other.finish[0].settings["types"]


def test_every_strategy_has_a_suite() -> None:
    suites = {suite.strategy for suite in StrategySuite.__subclasses__()}
    assert suites == set(STRATEGIES)
