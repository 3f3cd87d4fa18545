import random
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar

import pytest
from strategy_suite import DYNAMIC, ENDED, LADDER, PACKED, PLANS, STATIC, StrategySuite, climbed, rung_of, trial

from autocompress.budget import ACCURACY_METRICS, METRICS, Budget
from autocompress.ladder import Choice, Element, Ladder, Rung, Space
from autocompress.plan import Effort, Plan, Setting, Stage
from autocompress.strategies import STRATEGIES, Boundary, Random
from autocompress.strategy import Strategy
from autocompress.trial import Outcome, Trial
from autocompress.verdict import Finding, Standing, Verdict

AMOUNTS: tuple[Setting, ...] = tuple(" ".join(f"block{i}" for i in range(k)) for k in range(1, 10))
STRUCTURE = Element("dropping", Stage.STRUCTURE, Space((Choice("blocks", AMOUNTS, monotone=True),)))
RECOVERY = Element("distillation", Stage.RECOVERY, Space((Choice("steps", (100,), structural=False),)))
DROPPED = replace(rung_of(Effort.CALIBRATION, ("dynamic", Stage.PRECISION, ())), rounds=((STRUCTURE,),))
TRAINED = replace(DROPPED, effort=Effort.TRAINING, rounds=((STRUCTURE, RECOVERY),))
AMOUNT_LADDER = Ladder((DROPPED, TRAINED), {})
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


def of_amount(rung: Rung, amount: int) -> Plan:
    """The rung's plan that leaves out so many blocks."""
    (plan,) = (plan for plan in rung.plans() if plan.rounds[0][0].settings["blocks"] == AMOUNTS[amount])
    return plan


def boundary_found(ladder: Ladder, least: int) -> list[Plan]:
    """What is proposed where `least` of the amounts and all after it keep the budgets on size and time."""
    history: list[Trial] = []
    fits = Verdict((Finding(Budget("size_mb", 1.0), Standing.MET, 0.5),))
    while (plan := Boundary().propose(ladder, history)) is not None:
        if AMOUNTS.index(plan.rounds[0][0].settings["blocks"]) >= least:
            history.append(Trial(len(history), plan, Outcome.STOPPED, verdict=fits, stopped_by="max_accuracy_drop_pp"))
        else:
            history.append(trial(plan, Outcome.STOPPED, "size_mb", len(history)))
    return [one.plan for one in history]


class TestBoundaryOfAmounts:
    """Rungs that leave out more and more of the network."""

    @pytest.mark.parametrize("least", range(len(AMOUNTS)))
    def test_the_least_amount_that_fits_is_found_by_halving_and_only_that_is_trained(self, least: int) -> None:
        proposed = boundary_found(AMOUNT_LADDER, least)
        assert proposed[-1] == of_amount(TRAINED, least)
        untrained = proposed[:-1]
        assert of_amount(DROPPED, least) in untrained
        assert least == 0 or of_amount(DROPPED, least - 1) in untrained
        assert not any(TRAINED.holds(plan) for plan in untrained)
        # the most that can go, then at most 4 steps of halving 9 amounts
        assert untrained[0] == of_amount(DROPPED, len(AMOUNTS) - 1)
        assert len(untrained) == len(set(untrained)) <= 5

    def test_where_no_amount_fits_nothing_is_trained(self) -> None:
        # one look at the most that can go settles it
        assert boundary_found(AMOUNT_LADDER, len(AMOUNTS)) == [of_amount(DROPPED, len(AMOUNTS) - 1)]

    def test_an_amount_that_could_not_be_made_or_is_undecided_does_not_fit(self) -> None:
        undecided = Verdict((Finding(Budget("latency_ms", 1.0), Standing.UNDECIDED, 0.9),))
        middle = of_amount(DROPPED, 4)
        place = AMOUNTS.index(middle.rounds[0][0].settings["blocks"])
        for seen in (trial(middle, Outcome.FAILED), Trial(0, middle, Outcome.MEASURED, verdict=undecided)):
            following = Boundary().propose(AMOUNT_LADDER, [seen])
            assert following is not None
            assert AMOUNTS.index(following.rounds[0][0].settings["blocks"]) > place

    def test_while_another_worker_measures_an_amount_there_is_something_to_do(self) -> None:
        first = Boundary().propose(AMOUNT_LADDER, [])
        assert first is not None
        second = Boundary().propose(AMOUNT_LADDER, [trial(first, Outcome.CLAIMED)])
        assert second is not None
        assert second != first


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
