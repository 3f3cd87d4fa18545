"""A baseline that looks wrong is told when a run begins: chance level, one class for all, batch norm never trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.measurement import Measurement, Reading
from autocompress.run.plausibility import doubts_about_answers, doubts_about_weights

LABELS = np.arange(60) % 3


def measured(answers: np.ndarray, labels: np.ndarray = LABELS) -> Measurement:
    return Measurement({"answer": Reading("class", answers * 1.0), "label": Reading("class", labels * 1.0)})


@pytest.mark.parametrize(
    ("answers", "labels", "says"),
    [
        (np.full(60, 2), LABELS, "The model answers class 2 for all 60 validation items."),
        ((LABELS + 1) % 3, LABELS, "The model is right for 0.0% of the validation items, no more than who always"),
        (LABELS * 0, LABELS * 0, "All 60 validation items have the label 0"),
    ],
)
def test_answers_no_better_than_one_class_for_all_are_told(answers: np.ndarray, labels: np.ndarray, says: str) -> None:
    (doubt,) = doubts_about_answers(measured(answers, labels))
    assert doubt.startswith(says)


def test_answers_that_are_better_than_that_few_ones_and_other_scores_are_not_doubted() -> None:
    better = np.where(np.arange(60) < 40, LABELS, (LABELS + 1) % 3)
    assert doubts_about_answers(measured(better)) == []
    assert doubts_about_answers(measured(LABELS[:20] * 0, LABELS[:20])) == []
    assert doubts_about_answers(Measurement({"score": Reading("score", np.zeros(60))})) == []


def test_batch_norm_that_never_saw_data_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False))
    (doubt,) = doubts_about_weights(module)
    assert "has never seen data in 1:" in doubt
    with torch.no_grad():
        module.train()(torch.rand(4, 1, 5, 5))
    assert doubts_about_weights(module) == []
