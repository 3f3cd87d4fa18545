from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.measurement import Measurement, Reading
from autocompress.statistics.prediction_flips import PredictionFlips, prediction_flips_of


def measured(labels: list[int], before: list[int], after: list[int]) -> Measurement:
    right, then, now = np.array(labels), np.array(before), np.array(after)

    def side(answers: np.ndarray) -> dict[str, Reading]:
        return {
            "score": Reading("score", (answers == right).astype(np.float64)),
            "answer": Reading("class", answers.astype(np.float64)),
            "label": Reading("class", right.astype(np.float64)),
        }

    return Measurement(side(now), side(then))


def test_flips_both_ways_agreement_and_the_class_that_lost_most() -> None:
    found = prediction_flips_of(measured([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 0], [1, 1, 0, 1, 1, 1]))
    # class 0 lost two and won one of three; the wrong answer of the last item is another wrong one
    assert found == PredictionFlips(6, 2, 1, 2 / 6, 0, 3, 1)
    assert str(found) == (
        "2 of 6 items lost, 1 won; 33.33% answered as by the original; class 0 lost most, 33.3 points of 3 items"
    )


def test_where_no_class_lost_none_is_named() -> None:
    found = prediction_flips_of(measured([0, 1], [1, 1], [0, 1]))
    assert found == PredictionFlips(2, 0, 1, 0.5)
    assert "lost most" not in str(found)


def test_scores_that_are_not_right_or_wrong_have_no_flips() -> None:
    half = {"score": Reading("score", np.array([0.5, 1.0]))}
    assert prediction_flips_of(Measurement(half, half)) is None
    assert prediction_flips_of(Measurement()) is None
    together = {"score": Reading("macro_f1", np.array([1.0, 1.0]), items=10)}
    assert prediction_flips_of(Measurement(together, together)) is None


def test_without_answers_the_flips_are_counted_all_the_same() -> None:
    scores = {"score": Reading("score", np.array([1.0, 0.0]))}
    assert prediction_flips_of(Measurement(scores, scores)) == PredictionFlips(2, 0, 0)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=60))
def test_the_changes_add_up_to_the_difference_in_accuracy(rows: list[tuple[int, int, int]]) -> None:
    measurement = measured(*(list(column) for column in zip(*rows, strict=True)))
    found = prediction_flips_of(measurement)
    assert found is not None
    drop = measurement.baseline["score"].value - measurement.readings["score"].value
    assert (found.lost - found.gained) / found.items == pytest.approx(drop)
    assert found.agreement is not None
    assert found.agreement <= 1 - (found.lost + found.gained) / found.items + 1e-9
