from __future__ import annotations

from typing import cast

import pytest

from autocompress.budget import Budget
from autocompress.ladder import Element, Ladder, Reason, Rung, Space
from autocompress.plan import Effort, Plan, Stage, Step
from autocompress.planner import Anatomy, Cut, Target
from autocompress.structuring import WORTH_ANOTHER, Shaping, _smallest, nearly_fitted
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


class Measuring:
    """Stands for the run and its network: measures the smallest structure as the list says."""

    def __init__(self, *found: tuple[float, float] | None) -> None:
        self._found = list(found)
        self.said: list[str] = []

    def measured(self, steps: tuple[Step, ...], time: int = 1) -> tuple[float, float] | None:
        assert steps == CUTS[1]
        return self._found[time - 1]

    def smallest(self) -> tuple[Cut, tuple[Step, ...]]:
        return Cut(), CUTS[1]

    def told(self, asked: Target) -> tuple[float, float] | None:
        fake = Saying(self)
        found = _smallest(cast(Shaping, fake), cast(Anatomy, self), asked)
        self.said = fake.heard
        return None if found is None else (found.latency, found.size)


class Saying:
    def __init__(self, measuring: Measuring) -> None:
        self.measured = measuring.measured
        self.heard: list[str] = []

    def said(self, sentence: str) -> None:
        self.heard.append(sentence)


@pytest.mark.parametrize(
    ("found", "expected", "looks"),
    [
        # a burst of work next door
        ([(0.30, 0.1), (0.22, 0.1)], (0.22, 0.1), 2),
        ([(0.30, 0.1), (0.31, 0.1)], (0.30, 0.1), 2),
        ([(0.30, 0.1), None], (0.30, 0.1), 2),
        # what keeps the budgets is believed
        ([(0.24, 0.1)], (0.24, 0.1), 1),
        # and bytes do not change
        ([(0.30, 0.3)], (0.30, 0.3), 1),
        ([None], None, 1),
    ],
)
def test_a_smallest_structure_that_misses_the_latency_is_measured_twice(
    found: list[tuple[float, float] | None], expected: tuple[float, float] | None, looks: int
) -> None:
    measuring = Measuring(*found)
    assert measuring.told(Target(0.25, 0.2)) == expected
    assert len(measuring.said) == looks
