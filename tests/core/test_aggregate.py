from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from autocompress.core.aggregate import AGGREGATES, Aggregate, macro_f1, spearman
from autocompress.core.task import Task
from autocompress.errors import DataError


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=80))
def test_macro_f1_is_scikit_learns_over_the_classes_that_occur(rows: list[tuple[int, int]]) -> None:
    given_, right = np.array(rows).T
    present = sorted({*given_, *right})
    wanted = f1_score(right, given_, labels=present, average="macro", zero_division=0)
    assert macro_f1(np.array(rows, dtype=np.float64)) == pytest.approx(wanted)


@given(st.integers(0, 1000), st.integers(3, 60))
def test_spearman_is_scipys(seed: int, n: int) -> None:
    # few values, so that there are ties
    rows = np.random.default_rng(seed).integers(0, 6, (n, 2)).astype(np.float64)
    if rows.std(axis=0).all():
        assert spearman(rows) == pytest.approx(stats.spearmanr(*rows.T).statistic)
    else:
        assert spearman(rows) == 0.0


def test_perplexity_is_the_exponential_of_torchs_loss_over_all_tokens() -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal((4, 7, 11)).astype(np.float32)
    targets = random.integers(0, 11, (4, 7))
    targets[2, 3:] = -100
    loss = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).reshape(-1, 11), torch.from_numpy(targets).reshape(-1), ignore_index=-100
    )
    task = Task(score="negative_perplexity")
    # in two batches, as it is read
    records = np.concatenate([task.scores(logits[i : i + 2], targets[i : i + 2]) for i in (0, 2)])
    assert task.value(records) == pytest.approx(-float(loss.exp()), rel=1e-5)


def test_an_aggregate_of_ones_own_is_a_score() -> None:
    worst = Aggregate(
        "worst", lambda outputs, targets: np.abs(outputs[:, 0] - targets), lambda rows: -float(rows.max())
    )
    task = Task(score=worst)
    records = task.scores(np.array([[1.0], [5.0]]), np.array([1.0, 2.0]))
    assert records.shape == (2, 1)
    assert task.value(records) == -3.0
    assert (task.score_is_rate, task.chooses_classes) == (False, False)


@pytest.mark.parametrize(
    ("name", "outputs", "targets"),
    [
        ("macro_f1", np.zeros((3, 2, 2)), np.zeros(3, int)),
        ("macro_f1", np.zeros((3, 2)), np.zeros(3)),
        ("spearman", np.zeros((3, 2)), np.zeros(3)),
        ("negative_perplexity", np.zeros((3, 2)), np.zeros((3, 2), int)),
    ],
)
def test_outputs_of_another_shape_are_refused(name: str, outputs: np.ndarray, targets: np.ndarray) -> None:
    with pytest.raises(DataError, match="needs"):
        Task(score=name).scores(outputs, targets)


def test_named_aggregates_are_known_to_tasks() -> None:
    for name in AGGREGATES:
        assert Task(score=name).aggregate is AGGREGATES[name]
    with pytest.raises(DataError, match="macro_f1"):
        Task(score="micro_f1")
