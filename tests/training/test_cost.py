from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autocompress.core.plan import Stage, Step
from autocompress.core.runtime import Example
from autocompress.core.source import Array, Inputs
from autocompress.core.task import Task
from autocompress.core.training_probe import Bracket, TrainingProbe
from autocompress.training.cost import (
    GROWTH,
    RUNGS,
    TIMED_STEPS,
    TRAINING_SHARE,
    measure_training,
    with_bracket,
    with_next_rung,
)

ITEMS = 12_800


def probe(candidates: int = 1, asking: float = 0.05) -> TrainingProbe:
    structures = tuple((Step("dropping", Stage.STRUCTURE, {"blocks": str(i)}),) for i in range(candidates))
    return with_bracket(TrainingProbe(128, 0.05, "sgd", 0.1, asking, 1000), structures)


def trained(training: TrainingProbe, seconds_left: float | None) -> TrainingProbe:
    """All rungs of the last bracket, each as long as it was foreseen."""
    left = seconds_left
    while (longer := with_next_rung(training, ITEMS, left)) is not None:
        training = longer
        if left is not None:
            bracket = training.brackets[-1]
            left -= bracket.candidates[-1] * training.seconds(len(training.brackets) - 1, len(bracket.rungs) - 1)
    return training


def rungs(training: TrainingProbe, seconds_left: float | None) -> Bracket:
    return trained(training, seconds_left).brackets[-1]


def test_without_a_limit_each_rung_takes_fewer_candidates_and_longer() -> None:
    found = rungs(probe(3), None)
    assert found.rungs == (400, 400 * GROWTH, 400 * GROWTH**2)
    assert found.candidates == (3, 2, 1)
    assert len(found.rungs) == RUNGS


@given(st.floats(1, 20_000), st.integers(1, 4))
def test_what_is_planned_fits_into_the_time_and_uses_most_of_it(seconds: float, candidates: int) -> None:
    whole = trained(probe(candidates), seconds)
    found = whole.brackets[0]
    spent = sum(count * whole.seconds(0, number) for number, count in enumerate(found.candidates))
    assert spent <= seconds
    assert list(found.candidates) == sorted(found.candidates, reverse=True)
    if seconds > 120:
        assert spent >= 0.9 * TRAINING_SHARE * seconds
    if not found.rungs:
        assert TRAINING_SHARE * seconds < 200 * 0.15 + 1


def test_little_time_is_not_spent_on_rivals() -> None:
    assert rungs(probe(3), 200.0).candidates[0] == 1
    assert rungs(probe(3), 2000.0).candidates[0] == 3


def test_answers_are_paid_for_once() -> None:
    bracket = Bracket((), (400, 1200, 3600), (1, 1, 1))
    found = TrainingProbe(128, 0.05, "sgd", 0.1, 0.05, 1000, (bracket, Bracket((), (1500,), (1,))))
    assert [found.seconds(0, number) for number in range(3)] == pytest.approx([60.0, 150.0, 360.0])
    # the first bracket asked for all of them
    assert found.seconds(1, 0) == pytest.approx(150.0)
    assert found.rungs == 4


def test_a_further_bracket_begins_again_with_a_short_rung() -> None:
    before = trained(probe(3), 2000.0)
    after = with_next_rung(with_bracket(before, before.brackets[0].structures[:1]), ITEMS, 2000.0)
    assert after is not None
    assert after.brackets[:-1] == before.brackets
    assert after.brackets[-1].rungs == (400,)
    assert after.brackets[-1].candidates == (1,)


def test_a_step_is_timed_without_the_judging(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    task = Task(test=(inputs, labels), train=(inputs, labels))
    teacher = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
    student = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    found = measure_training(student, teacher, task, Example((inputs[:2],)))
    assert found is not None
    assert found.brackets == ()
    assert (found.batch, found.bank, found.optimizer) == (64, 40, "sgd")
    assert found.seconds_per_step > 0
    assert measure_training(student, teacher, Task(test=(inputs, labels)), Example((inputs[:2],))) is None


def test_training_is_timed_with_fewer_items_where_memory_counts() -> None:
    inputs = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    sizes: list[int] = []
    student = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    student.register_forward_hook(lambda _module, inputs, _outputs: sizes.append(len(inputs[0])))
    task = Task(test=(inputs, labels), train=(inputs, labels))
    found = measure_training(student, nn.Linear(6, 2), task, Example((inputs[:2],)), 16)
    assert found is not None
    # what will be trained with stays
    assert (found.batch, found.optimizer) == (64, "adamw")
    assert set(sizes) == {16}


def test_only_the_items_that_the_timed_steps_show_are_read() -> None:
    read: set[int] = set()

    class Counted:
        def __len__(self) -> int:
            return 5000

        def read(self, indices: Sequence[int]) -> tuple[Inputs, Array]:
            read.update(indices)
            values = np.random.default_rng(0).standard_normal((len(indices), 6)).astype(np.float32)
            return (values,), (values[:, 0] > 0).astype(np.int64)

    found = measure_training(
        nn.Linear(6, 2), nn.Linear(6, 2), Task(train=Counted()), Example((np.zeros((2, 6), np.float32),)), 8
    )
    assert found is not None
    assert found.batch == 128
    assert 16 <= len(read) <= 8 * TIMED_STEPS
