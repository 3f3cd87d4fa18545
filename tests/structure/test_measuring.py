from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.moves import Move, Moves
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.runtime import Example
from autocompress.planner.target import Target
from autocompress.structure import measuring as measuring_module
from autocompress.structure.measuring import (
    MOST_SAMPLES,
    MeasuredStructure,
    StructureMeasurer,
    best_of_smallest,
    measure_samples,
    measure_smallest,
    multiple_of,
)
from autocompress.structure.space import PruningSpace
from autocompress.system.time_limit import TimeLimit
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of

BLOCKS = Moves.of([Move("dropping", "a"), Move("dropping", "b")])
WIDTHS = Moves.of([Move("pruning", "c", 0.75)])
DROPPED = (Step("dropping", Stage.STRUCTURE, {"blocks": "a b"}),)
NARROW = (*DROPPED, Step("pruning", Stage.STRUCTURE, {"groups": "c"}))
Answers = dict[tuple[tuple[Step, ...], int], tuple[float, float] | None]


class Measuring:
    """Stands for the run: measures structures as it is told, by their steps and how often they were measured."""

    expected, expected_measured, attempt = (0.5, 0.25), False, 1

    def __init__(self, answers: Answers) -> None:
        self._answers = {(str(steps), time): found for (steps, time), found in answers.items()}
        self.looks: list[tuple[Step, ...]] = []
        self.told: list[str] = []

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)

    def measured(self, steps: tuple[Step, ...], time: int = 1) -> tuple[float, float] | None:
        self.looks.append(steps)
        return self._answers[str(steps), time]


class Two:
    """Stands for a network of two blocks and a group that can be narrowed."""

    spaces: Mapping[str, Any] = {"dropping": SimpleNamespace(rebuilds=False), "pruning": SimpleNamespace(rebuilds=True)}

    def smallest(self) -> Moves:
        return Moves.of([*BLOCKS, *WIDTHS])

    def steps(self, moves: Moves) -> tuple[Step, ...]:
        return {Moves(): (), BLOCKS: DROPPED, self.smallest(): NARROW}[moves]

    def samples(self) -> list[Moves]:
        return [BLOCKS, self.smallest()]


def smallest_by(measuring: Measuring, asked: Target) -> list[MeasuredStructure]:
    return measure_smallest(cast(StructureMeasurer, measuring), cast(PruningSpace, Two()), asked, TimeLimit(None))


def samples_by(measuring: Measuring, limit: TimeLimit | None = None) -> list[MeasuredStructure]:
    return measure_samples(cast(StructureMeasurer, measuring), cast(PruningSpace, Two()), limit or TimeLimit(None))


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
    fake, asked = Measuring({(NARROW, 1): first, (NARROW, 2): again, (DROPPED, 1): wide}), Target(0.25, 0.2)
    smallest = best_of_smallest(smallest_by(fake, asked))
    assert smallest is not None
    assert asked.missed(smallest.latency, smallest.size) == missed
    # what rebuilds layers is what may have made them slow, so it is not measured alone
    assert fake.looks == ([NARROW] if again == () else [NARROW, NARROW, DROPPED])


def test_the_best_of_the_smallest_is_the_fastest_with_the_least_size_of_any() -> None:
    fake = Measuring({(NARROW, 1): (0.30, 0.1), (NARROW, 2): (0.31, 0.1), (DROPPED, 1): (0.24, 0.3)})
    smallest = best_of_smallest(smallest_by(fake, Target(0.25, 0.2)))
    assert smallest is not None
    assert (smallest.steps, smallest.latency, smallest.size) == (DROPPED, 0.24, 0.1)


def test_a_smallest_structure_that_cannot_be_built_says_nothing() -> None:
    assert smallest_by(Measuring({(NARROW, 1): None}), Target(0.25, 0.2)) == []
    assert best_of_smallest([]) is None


def test_samples_begin_with_the_finish_alone_and_leave_out_what_cannot_be_built() -> None:
    fake = Measuring({((), 1): (0.5, 0.3), (DROPPED, 1): None, (NARROW, 1): (0.2, 0.1)})
    assert samples_by(fake) == [
        MeasuredStructure(Moves(), (), 0.5, 0.3),
        MeasuredStructure(Two().smallest(), NARROW, 0.2, 0.1),
    ]
    assert fake.told == [
        "measuring what the finish alone saves",
        "measuring what dropping of a and 1 more saves",
        "measuring what dropping of a and 2 more saves",
    ]


def test_where_not_even_the_finish_can_be_built_there_are_no_samples() -> None:
    fake = Measuring({((), 1): None})
    assert samples_by(fake) == []
    assert len(fake.looks) == 1


@pytest.mark.parametrize(("attempt", "again"), [(1, False), (2, True)])
def test_a_finish_that_was_measured_of_the_whole_model_is_measured_again_by_another_attempt_only(
    attempt: int, again: bool
) -> None:
    fake = Measuring({((), 1): (0.52, 0.25), (DROPPED, 1): (0.3, 0.2), (NARROW, 1): (0.2, 0.1)})
    fake.expected_measured, fake.attempt = True, attempt
    found = samples_by(fake)
    assert (found[0].latency, found[0].size) == ((0.52, 0.25) if again else (0.5, 0.25))
    assert (() in fake.looks) == again


def test_without_time_the_finish_has_what_is_predicted_of_it_and_nothing_is_measured() -> None:
    fake = Measuring({})
    assert samples_by(fake, TimeLimit(1.0, expected=2.0)) == [MeasuredStructure(Moves(), (), 0.5, 0.25)]
    assert fake.looks == []


def test_no_more_samples_are_measured_than_the_model_of_latency_is_fitted_to() -> None:
    class Many(Two):
        def steps(self, moves: Moves) -> tuple[Step, ...]:
            return (Step("dropping", Stage.STRUCTURE, {"blocks": str(len(moves))}),) if len(moves) else ()

        def samples(self) -> list[Moves]:
            return [Moves.of(Move("dropping", str(i)) for i in range(count + 1)) for count in range(20)]

    class Quick(Measuring):
        def measured(self, steps: tuple[Step, ...], time: int = 1) -> tuple[float, float] | None:
            return 0.4, 0.2

    found = measure_samples(cast(StructureMeasurer, Quick({})), cast(PruningSpace, Many()), TimeLimit(None))
    assert len(found) == MOST_SAMPLES


def test_without_time_a_multiple_that_is_known_holds_and_else_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring_module, "probe_multiple", lambda *_: 4)
    task = task_of(ramp(40), ramp(100))
    stand = Stand(tmp_path, [Scripted("scripted", {"one": Variant()})], {"size_mb": "0.7x"}, task)
    facts = inspect_module(nn.Sequential(nn.Linear(32, 64)), Example((np.zeros((1, 32), np.float32),)))
    assert task.validation is not None
    measurer = StructureMeasurer(stand.run, facts, (), task.validation, (1.0, 1.0))
    assert multiple_of(measurer, TimeLimit(1.0, expected=2.0)) is None
    assert multiple_of(measurer, TimeLimit(None)) == 4
    assert multiple_of(measurer, TimeLimit(1.0, expected=2.0)) == 4


def test_what_one_attempt_has_measured_is_measured_once_and_another_attempt_does_not_go_by_it(tmp_path: Path) -> None:
    task = task_of(ramp(40), ramp(100))
    stand = Stand(tmp_path, [Scripted("scripted", {"one": Variant(20, 4.0)})], {"size_mb": "0.7x"}, task)
    finish = (Step("scripted", Stage.PRECISION, {"variant": "one"}),)
    facts = inspect_module(nn.Sequential(nn.Linear(32, 64)), Example((np.zeros((1, 32), np.float32),)))

    def measurer(attempt: int) -> StructureMeasurer:
        assert task.validation is not None
        return StructureMeasurer(stand.run, facts, finish, task.validation, (1.0, 1.0), attempt=attempt)

    found = measurer(1).measured(())
    made = stand.run.builder.build(Plan(finish=finish))
    assert found == (pytest.approx(0.4), pytest.approx(made.size_bytes / stand.run.baseline.size_bytes))
    count = len(stand.device.measured)
    assert measurer(1).measured(()) == found
    assert len(stand.device.measured) == count
    measurer(1).measured((), time=2)
    measurer(2).measured(())
    assert len(stand.device.measured) == count + 2
