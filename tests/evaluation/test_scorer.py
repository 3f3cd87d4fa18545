from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.measurement import Reading
from autocompress.core.profile import Profile
from autocompress.core.task import Task
from autocompress.errors import DataError
from autocompress.evaluation.scorer import Scorer
from autocompress.testing.fakes import FakeDevice, Variant, answering, items_of, ramp

ITEMS = 150
POINTS = Budget("max_accuracy_drop_pp", 1.0)
DROP = Budget("max_score_drop", 1.0)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder: Path = tmp_path_factory.mktemp("scored")
    return answering(folder / "model.onnx", Variant())


def difficulty(scale: float) -> Callable[[Any, np.ndarray], np.ndarray]:
    """A score from 0 to `scale` that grows with the place of an item among all."""
    seen: list[int] = []

    def score(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        first = sum(seen)
        seen.append(len(targets))
        return scale * (first + np.arange(len(targets))) / ITEMS

    return score


def reading(artifact: Artifact, budget: Budget, **task: Any) -> Reading:
    whole = Task(test=items_of(ramp(ITEMS)), **task)
    return Scorer(FakeDevice(), Profile("p", budgets=(budget,)), whole).readings(artifact, whole.everything)["score"]


def test_a_reading_has_the_bounds_of_the_task(artifact: Artifact) -> None:
    assert reading(artifact, DROP).bounds == (0.0, 1.0)
    assert reading(artifact, DROP, score=difficulty(3.0), score_bounds=(0, 5)).bounds == (0.0, 5.0)
    assert reading(artifact, DROP, score=difficulty(0.5)).bounds is None


def test_a_budget_in_points_says_that_a_score_is_a_rate(artifact: Artifact) -> None:
    assert reading(artifact, POINTS, score=difficulty(0.5)).bounds == (0.0, 1.0)
    assert reading(artifact, POINTS, score=difficulty(3.0)).bounds is None


def test_a_score_outside_of_its_declared_bounds_is_an_error_that_names_item_and_score(artifact: Artifact) -> None:
    with pytest.raises(DataError, match=r"of item 101 is 1\.01, outside of its bounds 0 to 1") as caught:
        reading(artifact, DROP, score=difficulty(1.5), score_bounds=(0, 1))
    assert "score_bounds" in str(caught.value)
