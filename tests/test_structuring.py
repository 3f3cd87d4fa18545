from __future__ import annotations

from typing import Any, cast

import pytest

from autocompress.budget import Budget
from autocompress.ladder import Element, Ladder, Reason, Rung, Space
from autocompress.plan import Effort, Plan, Stage, Step
from autocompress.planner import Anatomy, Cut, Target
from autocompress.structuring import WORTH_ANOTHER, Shaping, _ends, _smallest, nearly_fitted
from autocompress.trial import Outcome, Trial
from autocompress.verdict import Finding, Standing, Verdict

LIMIT = 0.2
CUTS = tuple((Step("block_dropping", Stage.STRUCTURE, {"blocks": blocks}),) for blocks in ("a", "a b"))
FINISH = (Element("int8_static", Stage.PRECISION, Space()),)
LADDER = Ladder(
    (Rung("depth", Effort.CALIBRATION, FINISH, Reason("because.", "structure"), structures=CUTS, nested=True),), {}
)


def trial(size: float, plan: Plan | None = None) -> Trial:
    """A trial of the first cut whose file is so large, as a share."""
    standing = Standing.MET if size <= LIMIT else Standing.EXCEEDED
    finding = Finding(Budget("size_mb", LIMIT, relative=True), standing, size, size, size)
    outcome = Outcome.MEASURED if size <= LIMIT else Outcome.STOPPED
    first = next(LADDER.rungs[0].plans())
    stopped_by = "" if size <= LIMIT else "size_mb"
    return Trial(1, plan or first, outcome, verdict=Verdict((finding,)), stopped_by=stopped_by)


@pytest.mark.parametrize(
    ("sizes", "nearly"),
    [
        ([], False),
        ([0.99 * LIMIT * WORTH_ANOTHER], True),
        # nothing of this network will get there
        ([1.01 * LIMIT * WORTH_ANOTHER], False),
        ([5 * LIMIT, 1.1 * LIMIT], True),
        # met, but by so little that it would be lost to noise when all training is done
        ([0.99 * LIMIT], True),
        ([0.5 * LIMIT], False),
        ([1.1 * LIMIT, 0.5 * LIMIT], False),
    ],
)
def test_another_look_is_worth_it_when_nothing_fitted_and_something_came_close(
    sizes: list[float], nearly: bool
) -> None:
    assert nearly_fitted(LADDER, [trial(size) for size in sizes]) is nearly


def test_what_was_only_quantized_says_nothing_of_structure() -> None:
    quantized = Plan(finish=next(LADDER.rungs[0].plans()).finish)
    assert not nearly_fitted(LADDER, [trial(1.1 * LIMIT, quantized)])


NARROW = (*CUTS[1], Step("channel_pruning", Stage.STRUCTURE, {"groups": "c"}))
Answers = dict[tuple[tuple[Step, ...], int], tuple[float, float] | None]


class Measuring:
    """Stands for the run: measures structures as it is told, by their steps and how often they were measured."""

    def __init__(self, answers: Answers) -> None:
        self._answers = {(str(steps), time): found for (steps, time), found in answers.items()}
        self.looks = 0

    def said(self, sentence: str) -> None:
        pass

    def measured(self, steps: tuple[Step, ...], time: int = 1) -> tuple[float, float] | None:
        self.looks += 1
        return self._answers[str(steps), time]


class Two:
    """Stands for a network of two blocks and a group that can be narrowed."""

    def smallest(self) -> tuple[Cut, tuple[Step, ...]]:
        return Cut(("a", "b"), (("c", 0.75),)), NARROW

    def steps(self, cut: Cut) -> tuple[Step, ...]:
        assert cut == Cut(("a", "b"))
        return CUTS[1]


@pytest.mark.parametrize(
    ("first", "again", "wide", "missed"),
    [
        # what keeps the budgets is believed
        ((0.24, 0.1), (), (), []),
        # a burst of work next door
        ((0.30, 0.1), (0.22, 0.1), (0.4, 0.15), []),
        # thin layers are slow here
        ((0.30, 0.1), (0.31, 0.1), (0.24, 0.3), []),
        ((0.30, 0.1), (0.31, 0.1), (0.29, 0.3), ["latency 0.29x where 0.25x is asked"]),
        ((0.30, 0.1), None, None, ["latency 0.3x where 0.25x is asked"]),
        # bytes do not change
        ((0.24, 0.3), (), (), ["size 0.3x where 0.2x is asked"]),
    ],
)
def test_latency_is_called_out_of_reach_only_when_it_is_missed_again_and_by_wide_layers_too(
    first: tuple[float, float], again: Any, wide: Any, missed: list[str]
) -> None:
    fake, asked = Measuring({(NARROW, 1): first, (NARROW, 2): again, (CUTS[1], 1): wide}), Target(0.25, 0.2)
    smallest = _smallest(_ends(cast(Shaping, fake), cast(Anatomy, Two()), asked))
    assert smallest is not None
    assert asked.missed(smallest.latency, smallest.size) == missed
    assert fake.looks == (1 if again == () else 3)


def test_a_smallest_structure_that_cannot_be_built_says_nothing() -> None:
    ends = _ends(cast(Shaping, Measuring({(NARROW, 1): None})), cast(Anatomy, Two()), Target(0.25, 0.2))
    assert _smallest(ends) is None
