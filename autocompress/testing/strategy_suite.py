"""Contract suite for strategies: inherit `StrategySuite` in a class named `Test...`, set `strategy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from autocompress.core.plan import Effort, Plan, Stage
from autocompress.core.search_space import Choice, Element, Reason, Recipe, SearchSpace, SettingSpace
from autocompress.core.strategy import Strategy
from autocompress.core.trial import Outcome, Trial

WHY = Reason("it may pay.", "suite")
TYPES = Choice("types", ("u8s8", "u8u8", "s8s8"))
METHOD = Choice("method", ("minmax", "entropy"), structural=False)
BITS = Choice("bits", (4, 8))
ENDED = tuple(outcome for outcome in Outcome if outcome is not Outcome.CLAIMED)


def recipe_of(effort: Effort, *techniques: tuple[str, Stage, tuple[Choice, ...]]) -> Recipe:
    elements = tuple(Element(name, stage, SettingSpace(choices)) for name, stage, choices in techniques)
    return Recipe(" and ".join(name for name, _, _ in techniques), effort, elements, WHY)


DYNAMIC = recipe_of(Effort.NONE, ("dynamic", Stage.PRECISION, (TYPES,)))
STATIC = recipe_of(Effort.CALIBRATION, ("static", Stage.PRECISION, (TYPES, METHOD)))
PACKED = recipe_of(
    Effort.CALIBRATION, ("static", Stage.PRECISION, (TYPES, METHOD)), ("codebook", Stage.PACKING, (BITS,))
)
SEARCH_SPACE = SearchSpace((DYNAMIC, STATIC, PACKED), {})
PLANS = tuple(plan for recipe in SEARCH_SPACE.recipes for plan in recipe.plans())


def trial(plan: Plan, outcome: Outcome = Outcome.MEASURED, stopped_by: str = "", number: int = 0) -> Trial:
    return Trial(number, plan, outcome, stopped_by=stopped_by)


def proposals(strategy: Strategy, search_space: SearchSpace, history: Sequence[Trial] = ()) -> list[Plan]:
    """Plans in the order proposed, each recorded as measured, until the strategy proposes none."""
    done = list(history)
    proposed: list[Plan] = []
    while (plan := strategy.propose(search_space, done)) is not None:
        proposed.append(plan)
        done.append(trial(plan, number=len(done)))
        assert len(proposed) <= 2 * len(PLANS), "the strategy does not come to an end"
    return proposed


class StrategySuite:
    """Tests of the contract of `Strategy`."""

    strategy: ClassVar[type[Strategy]]

    def test_every_plan_of_the_search_space_is_proposed_exactly_once(self) -> None:
        proposed = [plan.hash for plan in proposals(self.strategy(), SEARCH_SPACE)]
        assert sorted(proposed) == sorted(plan.hash for plan in PLANS)

    def test_an_empty_search_space_has_nothing_to_propose(self) -> None:
        assert self.strategy().propose(SearchSpace((), {}), []) is None
        assert self.strategy().propose(SearchSpace((), {}), [trial(PLANS[0])]) is None

    @pytest.mark.parametrize("outcome", Outcome)
    def test_nothing_is_proposed_when_everything_is_in_the_history(self, outcome: Outcome) -> None:
        history = [trial(plan, outcome, number=number) for number, plan in enumerate(PLANS)]
        assert self.strategy().propose(SEARCH_SPACE, history) is None

    @pytest.mark.parametrize("outcome", Outcome)
    @pytest.mark.parametrize("taken", [1, 2, 5, len(PLANS) - 1])
    def test_a_plan_of_the_history_is_never_proposed_however_it_ended(self, outcome: Outcome, taken: int) -> None:
        # each plan in turn is missing from the history
        for start in range(len(PLANS)):
            known = [PLANS[(start + step) % len(PLANS)] for step in range(taken)]
            plan = self.strategy().propose(SEARCH_SPACE, [trial(one, outcome) for one in known])
            assert plan is None or plan in PLANS
            assert plan not in known

    def test_a_plan_that_another_worker_has_claimed_is_left_to_it(self) -> None:
        first = self.strategy().propose(SEARCH_SPACE, [])
        assert first is not None
        second = self.strategy().propose(SEARCH_SPACE, [trial(first, Outcome.CLAIMED)])
        assert second is not None
        assert second != first

    def test_the_same_history_gives_the_same_plan(self) -> None:
        strategy = self.strategy()
        for length in range(0, len(PLANS), 4):
            history = [trial(plan, number=number) for number, plan in enumerate(PLANS[:length])]
            first = strategy.propose(SEARCH_SPACE, history)
            # neither earlier calls nor the instance makes a difference
            strategy.propose(SEARCH_SPACE, history[:1])
            assert strategy.propose(SEARCH_SPACE, history) == first
            assert self.strategy().propose(SEARCH_SPACE, history) == first

    def test_search_space_and_history_are_left_as_they_are(self) -> None:
        history = [trial(PLANS[0], Outcome.STOPPED, "size_mb"), trial(PLANS[4])]
        before, search_space = list(history), SEARCH_SPACE.to_json()
        self.strategy().propose(SEARCH_SPACE, history)
        assert history == before
        assert SEARCH_SPACE.to_json() == search_space

    def test_trials_of_plans_that_are_in_no_recipe_do_not_disturb(self) -> None:
        others = [trial(Plan()), trial(next(recipe_of(Effort.NONE, ("fp16", Stage.PRECISION, ())).plans()))]
        assert len(proposals(self.strategy(), SEARCH_SPACE, others)) == len(PLANS)

    def test_a_resumed_search_goes_on_with_what_is_left(self) -> None:
        whole = proposals(self.strategy(), SEARCH_SPACE)
        history = [trial(plan, number=number) for number, plan in enumerate(whole[:7])]
        assert proposals(self.strategy(), SEARCH_SPACE, history) == whole[7:]
