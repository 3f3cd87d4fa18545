import random
from dataclasses import replace
from itertools import pairwise, product
from typing import ClassVar

import pytest

from autocompress.core.budget import ACCURACY_METRICS, METRICS, Budget
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.plan import Effort, Plan, Stage, Step
from autocompress.core.search_space import Choice, Element, Recipe, SearchSpace, SettingSpace
from autocompress.core.strategy import Strategy
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.strategies import STRATEGIES, Bisection, Random
from autocompress.strategies.bisection import MOST_FAILURES
from autocompress.testing.strategy_suite import (
    DYNAMIC,
    ENDED,
    PACKED,
    PLANS,
    SEARCH_SPACE,
    STATIC,
    WHY,
    StrategySuite,
    proposals,
    recipe_of,
    trial,
)

CUTS = tuple(
    (Step("dropping", Stage.STRUCTURE, {"blocks": " ".join(f"block{i}" for i in range(k))}),) for k in range(1, 10)
)
RECOVERIES = tuple(
    Element("distillation", Stage.RECOVERY, SettingSpace((Choice("steps", (steps,), structural=False),)))
    for steps in (100, 300)
)
DROPPED = replace(recipe_of(Effort.CALIBRATION, ("dynamic", Stage.PRECISION, ())), structures=CUTS, nested=True)
OF_CUTS = SearchSpace((DROPPED,), {})
TRAINED = replace(DROPPED, effort=Effort.TRAINING, structures=CUTS[3:6], nested=False, rounds=(RECOVERIES[:1],))
LONGER = replace(TRAINED, rounds=(RECOVERIES[:1], RECOVERIES[1:]), promotes=2)
TUNING = Element("tuning", Stage.TUNING, SettingSpace((Choice("steps", (30,), structural=False),)))
BY_LENGTH = tuple({"steps": steps, "ranges": ranges} for steps, ranges in product((300, 1000), ("learned", "fixed")))
LENGTHS = SettingSpace(tuple(Choice(name, (), structural=False) for name in ("steps", "ranges")), BY_LENGTH)
OF_LENGTHS = Recipe("tuned", Effort.TRAINING, (Element("tuning", Stage.TUNING, LENGTHS),), WHY)
TUNED = replace(TRAINED, finish=(*TRAINED.finish, TUNING), promotes=1, refines=next(TRAINED.plans()).finish)
STRUCTURAL = [name for name, metric in METRICS.items() if metric.structural]


class TestBisection(StrategySuite):
    strategy: ClassVar[type[Strategy]] = Bisection

    def test_it_begins_with_the_cheapest_recipe_and_with_the_most_promising_settings(self) -> None:
        assert proposals(Bisection(), SEARCH_SPACE) == list(PLANS)

    @pytest.mark.parametrize("metric", STRUCTURAL)
    def test_what_has_the_structure_of_a_plan_that_broke_size_or_time_is_skipped(self, metric: str) -> None:
        broken = next(STATIC.plans())
        proposed = proposals(Bisection(), SEARCH_SPACE, [trial(broken, Outcome.STOPPED, metric)])
        skipped = set(STATIC.plans()) - set(proposed) - {broken}
        assert skipped == {plan for plan in STATIC.plans() if same_types(plan, broken)} - {broken}
        assert skipped
        assert proposed == [plan for plan in PLANS if plan not in skipped and plan != broken]

    @pytest.mark.parametrize("metric", sorted(ACCURACY_METRICS))
    def test_what_broke_accuracy_rules_out_nothing_but_itself(self, metric: str) -> None:
        for broken in PLANS:
            proposed = proposals(Bisection(), SEARCH_SPACE, [trial(broken, Outcome.STOPPED, metric)])
            assert proposed == [plan for plan in PLANS if plan != broken]

    def test_what_broke_a_budget_in_one_recipe_says_nothing_of_another(self) -> None:
        dead = [trial(plan, Outcome.STOPPED, "latency_ms") for plan in DYNAMIC.plans()]
        assert proposals(Bisection(), SEARCH_SPACE, dead) == [*STATIC.plans(), *PACKED.plans()]

    def test_every_step_of_a_plan_counts_for_its_structure(self) -> None:
        broken = next(PACKED.plans())
        proposed = proposals(Bisection(), SEARCH_SPACE, [trial(broken, Outcome.STOPPED, "size_mb")])
        left = [plan for plan in PACKED.plans() if plan in proposed]
        assert [p for p in left if same_types(p, broken)] == [
            plan for plan in PACKED.plans() if same_types(plan, broken) and plan.finish[1] != broken.finish[1]
        ]

    def test_what_has_the_structure_of_a_plan_that_was_refused_is_skipped(self) -> None:
        broken = next(STATIC.plans())
        proposed = proposals(Bisection(), SEARCH_SPACE, [trial(broken, Outcome.REFUSED)])
        assert not any(same_types(plan, broken) for plan in proposed if plan in set(STATIC.plans()))
        assert len(proposed) == len(PLANS) - 2

    @pytest.mark.parametrize("outcome", [Outcome.MEASURED, Outcome.CLAIMED, Outcome.FAILED])
    def test_what_was_measured_is_under_way_or_failed_rules_out_nothing_but_itself(self, outcome: Outcome) -> None:
        first = next(STATIC.plans())
        assert len(proposals(Bisection(), SEARCH_SPACE, [trial(first, outcome)])) == len(PLANS) - 1

    def test_once_all_values_lose_accuracy_other_types_are_tried_with_the_best_of_them(self) -> None:
        first = [plan for plan in STATIC.plans() if same_types(plan, next(STATIC.plans()))]
        assert len(first) > 1
        history = [scored(place, plan, 0.5 + 0.1 * (place == 1)) for place, plan in enumerate(first)]
        # as long as one is not known nothing is left out
        others = [plan for plan in STATIC.plans() if plan not in first]
        assert proposals(Bisection(), SearchSpace((STATIC,), {}), history[1:]) == [first[0], *others]
        left = proposals(Bisection(), SearchSpace((STATIC,), {}), history)
        best = first[1].finish[0].settings["method"]
        assert left == [plan for plan in others if plan.finish[0].settings["method"] == best]
        assert 0 < len(left) < len(others)

    @pytest.mark.parametrize(("scores", "best"), [((0.7, 0.8), "fixed"), ((0.8, 0.7), "learned")])
    def test_a_longer_training_is_tried_with_the_better_values_of_the_shorter_ones(
        self, scores: tuple[float, float], best: str
    ) -> None:
        short = list(OF_LENGTHS.plans())[:2]
        search_space = SearchSpace((OF_LENGTHS,), {})
        assert proposals(Bisection(), search_space)[:2] == short
        history = [scored(place, plan, score) for place, (plan, score) in enumerate(zip(short, scores, strict=True))]
        left = proposals(Bisection(), search_space, history)
        assert [plan.finish[0].settings for plan in left] == [{"steps": 1000, "ranges": best}]

    def test_whatever_came_before_the_plans_left_are_proposed_in_the_search_spaces_order(self) -> None:
        draw = random.Random(0)
        for _ in range(30):
            history = [
                trial(plan, draw.choice(ENDED), draw.choice([*METRICS, "", "no metric"]), number)
                for number, plan in enumerate(draw.sample(PLANS, draw.randrange(len(PLANS))))
            ]
            proposed = proposals(Bisection(), SEARCH_SPACE, history)
            places = [PLANS.index(plan) for plan in proposed]
            assert all(one < other for one, other in pairwise(places))
            assert not {one.plan for one in history} & set(proposed)


def place_of(plan: Plan) -> int:
    return CUTS.index((plan.rounds[0][0],))


FITS = Verdict((Finding(Budget("size_mb", 1.0), Standing.MET, 0.5),))


def boundary_found(search_space: SearchSpace, least: int) -> list[Plan]:
    """What is proposed where the cut at place `least` and all after it keep the budgets on size and time."""
    history: list[Trial] = []
    while (plan := Bisection().propose(search_space, history)) is not None:
        if place_of(plan) >= least:
            history.append(Trial(len(history), plan, Outcome.STOPPED, verdict=FITS, stopped_by="max_accuracy_drop_pp"))
        else:
            history.append(trial(plan, Outcome.STOPPED, "size_mb", len(history)))
    return [one.plan for one in history]


class TestBisectionOfCuts:
    """Recipes that leave less and less of the network."""

    @pytest.mark.parametrize("likely", [None, *range(len(CUTS))])
    @pytest.mark.parametrize("least", range(len(CUTS)))
    def test_the_least_cut_that_fits_is_found_from_wherever_it_was_expected(
        self, least: int, likely: int | None
    ) -> None:
        proposed = [
            place_of(plan) for plan in boundary_found(SearchSpace((replace(DROPPED, likely=likely),), {}), least)
        ]
        assert least in proposed
        assert least == 0 or least - 1 in proposed
        assert proposed[0] == (len(CUTS) - 1 if likely is None else likely)
        assert len(proposed) == len(set(proposed)) <= 6
        if likely == least:
            # what was expected, and that less is too little
            assert len(proposed) == min(2, least + 1)

    def test_where_no_cut_fits_one_look_at_the_most_that_can_go_settles_it(self) -> None:
        assert [place_of(plan) for plan in boundary_found(OF_CUTS, len(CUTS))] == [len(CUTS) - 1]

    def test_what_just_fits_is_left_no_room_by_noise_and_does_not_count(self) -> None:
        tight = Verdict((Finding(Budget("latency_ms", 1.0), Standing.MET, 0.99),))
        following = Bisection().propose(OF_CUTS, [Trial(0, plan_at(4), Outcome.MEASURED, verdict=tight)])
        assert following is not None
        assert place_of(following) > 4

    def test_a_cut_that_could_not_be_made_or_is_undecided_does_not_fit(self) -> None:
        undecided = Verdict((Finding(Budget("latency_ms", 1.0), Standing.UNDECIDED, 0.9),))
        for seen in (trial(plan_at(4), Outcome.FAILED), Trial(0, plan_at(4), Outcome.MEASURED, verdict=undecided)):
            following = Bisection().propose(OF_CUTS, [seen])
            assert following is not None
            assert place_of(following) > 4

    def test_the_most_that_can_go_failing_rules_out_no_smaller_cut(self) -> None:
        failed = trial(plan_at(len(CUTS) - 1), Outcome.FAILED)
        following = Bisection().propose(OF_CUTS, [failed])
        assert following is not None
        assert place_of(following) == len(CUTS) - 2

    def test_many_failures_along_one_path_are_no_accident(self) -> None:
        history: list[Trial] = []
        while (plan := Bisection().propose(OF_CUTS, history)) is not None:
            history.append(trial(plan, Outcome.FAILED, number=len(history)))
        assert len(history) == MOST_FAILURES

    def test_while_another_worker_measures_a_cut_there_is_something_to_do(self) -> None:
        first = Bisection().propose(OF_CUTS, [])
        assert first is not None
        second = Bisection().propose(OF_CUTS, [trial(first, Outcome.CLAIMED)])
        assert second is not None
        assert second != first


def plan_at(place: int) -> Plan:
    return list(DROPPED.plans())[place]


def scored(number: int, plan: Plan, score: float) -> Trial:
    measurement = Measurement({"score": Reading.one("score", score)})
    return Trial(number, plan, Outcome.STOPPED, measurement, FITS, stopped_by="max_accuracy_drop_pp")


class TestBisectionOfTraining:
    """Of those that were trained a little, the best go on."""

    def test_the_best_of_the_first_rung_go_on_in_their_order(self) -> None:
        first = list(TRAINED.plans())
        history = [
            scored(place, plan, score) for place, (plan, score) in enumerate(zip(first, (0.5, 0.9, 0.7), strict=True))
        ]
        search_space = SearchSpace((TRAINED, LONGER), {})
        proposed = []
        while (plan := Bisection().propose(search_space, history)) is not None:
            proposed.append(plan)
            history.append(scored(len(history), plan, 0.9))
        assert [plan.rounds[0] for plan in proposed] == [first[1].rounds[0], first[2].rounds[0]]
        assert all(len(plan.rounds) == 2 for plan in proposed)

    def test_nobody_goes_on_while_a_rival_is_under_way(self) -> None:
        first = list(TRAINED.plans())
        history = [scored(0, first[0], 0.9), scored(1, first[1], 0.8), trial(first[2], Outcome.CLAIMED)]
        assert Bisection().propose(SearchSpace((TRAINED, LONGER), {}), history) is None

    def test_only_the_best_of_a_round_is_trained_as_quantized_and_the_next_round_goes_on_without_that(self) -> None:
        first = list(TRAINED.plans())
        cut = Plan(((*first[2].rounds[0][:-1], with_cuts(first[2].rounds[0][-1])),), first[2].finish)
        history = [scored(0, first[0], 0.9), scored(1, first[1], 0.8), scored(2, cut, 0.95)]
        search_space = SearchSpace((TRAINED, TUNED), {})
        tuned = Bisection().propose(search_space, history)
        # it is the training that was cut which goes on
        assert tuned is not None
        assert (tuned.rounds, tuned.finish[:-1]) == (cut.rounds, cut.finish)
        assert tuned.finish[-1].technique == "tuning"
        assert search_space.recipe_of(tuned) is TUNED
        history.append(scored(3, tuned, 0.99))
        assert Bisection().propose(search_space, history) is None
        longer = Bisection().propose(SearchSpace((TRAINED, TUNED, LONGER), {}), history)
        assert longer is not None
        assert (longer.rounds[0], longer.finish) == (cut.rounds[0], cut.finish)

    def test_what_failed_does_not_go_on(self) -> None:
        first = list(TRAINED.plans())
        history = [trial(plan, Outcome.FAILED, number=place) for place, plan in enumerate(first)]
        assert Bisection().propose(SearchSpace((TRAINED, LONGER), {}), history) is None


class TestRandom(StrategySuite):
    strategy: ClassVar[type[Strategy]] = Random

    def test_its_order_is_not_that_of_the_search_space_and_depends_on_the_seed(self) -> None:
        orders = [proposals(Random(seed), SEARCH_SPACE) for seed in range(3)]
        assert list(PLANS) not in orders
        assert len({tuple(plan.hash for plan in order) for order in orders}) == 3

    def test_it_rules_out_nothing(self) -> None:
        broken = next(STATIC.plans())
        assert len(proposals(Random(), SEARCH_SPACE, [trial(broken, Outcome.STOPPED, "size_mb")])) == len(PLANS) - 1


def with_cuts(step: Step) -> Step:
    return replace(step, settings={**step.settings, "cuts": "20:50"})


def same_types(plan: Plan, other: Plan) -> bool:
    return plan.finish[0].settings["types"] == other.finish[0].settings["types"]


def test_every_strategy_inherits_the_suite() -> None:
    suites = {suite.strategy: suite for suite in StrategySuite.__subclasses__() if suite.__module__ == __name__}
    for strategy in STRATEGIES:
        assert suites[strategy].__name__.startswith("Test"), strategy
    assert set(suites) == set(STRATEGIES)
