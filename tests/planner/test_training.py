from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autocompress.plan import Stage, Step
from autocompress.planner.training import GROWTH, ROUNDS, TRAINING_SHARE, measure_training, with_next_round
from autocompress.probes import TrainingProbe
from autocompress.runtime import Example
from autocompress.task import Task

ITEMS = 12_800


def probe(candidates: int = 1, asking: float = 0.05) -> TrainingProbe:
    structures = tuple((Step("dropping", Stage.STRUCTURE, {"blocks": str(i)}),) for i in range(candidates))
    return TrainingProbe((), (), 128, 0.05, "sgd", 0.1, asking, 1000, structures)


def rounds(training: TrainingProbe, seconds_left: float | None) -> TrainingProbe:
    """All rounds, each as long as it was foreseen."""
    left = seconds_left
    while (longer := with_next_round(training, ITEMS, left)) is not None:
        training = longer
        if left is not None:
            left -= training.candidates[-1] * training.seconds(len(training.rounds) - 1)
    return training


def test_without_a_limit_each_round_takes_fewer_candidates_and_longer() -> None:
    found = rounds(probe(3), None)
    assert found.rounds == (400, 400 * GROWTH, 400 * GROWTH**2)
    assert found.candidates == (3, 2, 1)
    assert len(found.rounds) == ROUNDS


@given(st.floats(1, 20_000), st.integers(1, 4))
def test_what_is_planned_fits_into_the_time_and_uses_most_of_it(seconds: float, candidates: int) -> None:
    found = rounds(probe(candidates), seconds)
    spent = sum(count * found.seconds(number) for number, count in enumerate(found.candidates))
    assert spent <= seconds
    assert list(found.candidates) == sorted(found.candidates, reverse=True)
    if seconds > 120:
        assert spent >= 0.9 * TRAINING_SHARE * seconds
    if not found.rounds:
        assert TRAINING_SHARE * seconds < 200 * 0.15 + 1


def test_little_time_is_not_spent_on_rivals() -> None:
    assert rounds(probe(3), 200.0).candidates[0] == 1
    assert rounds(probe(3), 2000.0).candidates[0] == 3


def test_answers_are_paid_for_once() -> None:
    found = TrainingProbe((400, 1200, 3600), (1, 1, 1), 128, 0.05, "sgd", 0.1, 0.05, 1000)
    assert [found.seconds(number) for number in range(3)] == pytest.approx([60.0, 150.0, 360.0])


def test_a_step_is_timed_without_the_judging(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((256, 6)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    task = Task(test=(inputs, labels), train=(inputs, labels))
    teacher = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
    student = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    found = measure_training(student, teacher, task, Example((inputs[:2],)))
    assert found is not None
    assert found.rounds == ()
    assert (found.batch, found.bank, found.optimizer) == (64, 40, "sgd")
    assert found.seconds_per_step > 0
    assert measure_training(student, teacher, Task(test=(inputs, labels)), Example((inputs[:2],))) is None
