from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.plan import Stage, Step
from autocompress.core.runtime import Example
from autocompress.planner.target import Target
from autocompress.structure import measuring as measuring_module
from autocompress.structure.measuring import StructureMeasurer, measure_ends, multiple_of, smallest_of
from autocompress.structure.space import Cut, PruningSpace
from autocompress.system.progress import silent
from autocompress.system.time_limit import TimeLimit
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of

DROPPED = (Step("block_dropping", Stage.STRUCTURE, {"blocks": "a b"}),)
NARROW = (*DROPPED, Step("channel_pruning", Stage.STRUCTURE, {"groups": "c"}))
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
        return DROPPED


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
    smallest = smallest_of(
        measure_ends(cast(StructureMeasurer, fake), cast(PruningSpace, Two()), asked, TimeLimit(None))
    )
    assert smallest is not None
    assert asked.missed(smallest.latency, smallest.size) == missed
    assert fake.looks == (1 if again == () else 3)


def test_a_smallest_structure_that_cannot_be_built_says_nothing() -> None:
    fake = cast(StructureMeasurer, Measuring({(NARROW, 1): None}))
    assert measure_ends(fake, cast(PruningSpace, Two()), Target(0.25, 0.2), TimeLimit(None)) == []
    assert smallest_of([]) is None


def test_without_time_a_multiple_that_is_known_holds_and_else_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measuring_module, "probe_multiple", lambda *_: 4)
    task = task_of(ramp(40), ramp(100))
    stand = Stand(tmp_path, [Scripted("scripted", {"one": Variant()})], {"size_mb": "0.7x"}, task)
    facts = inspect_module(nn.Sequential(nn.Linear(32, 64)), Example((np.zeros((1, 32), np.float32),)))
    structure_measurer = StructureMeasurer(stand.run, stand.record, facts, (), task.validation, silent, (1.0, 1.0))
    assert multiple_of(structure_measurer, TimeLimit(1.0, expected=2.0)) is None
    assert multiple_of(structure_measurer, TimeLimit(None)) == 4
    assert multiple_of(structure_measurer, TimeLimit(1.0, expected=2.0)) == 4
