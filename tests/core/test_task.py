import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch.utils.data import DataLoader, TensorDataset

from autocompress.core.source import ArraySource, third
from autocompress.core.task import SCORES, Task
from autocompress.errors import AutocompressError, DataError

ITEMS, CLASSES = 30, 7
FEATURES = np.arange(ITEMS * 2, dtype=np.float32).reshape(ITEMS, 2)
LABELS = np.arange(ITEMS) % CLASSES
DATA = (FEATURES, LABELS)


def scores(score: Any, outputs: Any, targets: np.ndarray) -> list[float]:
    return Task(score=score).scores(outputs, targets).tolist()


# parts


def test_without_validation_data_a_third_of_test_selects_and_the_rest_confirms() -> None:
    task = Task(test=DATA)
    assert task.validation is not None
    assert task.holdout is not None
    assert task.validation.indices.tolist() == third(ITEMS, selects=True).tolist()
    assert task.holdout.indices.tolist() == third(ITEMS, selects=False).tolist()
    assert "third" in task.validation.name
    assert task.validation.source is task.holdout.source


def test_with_validation_data_all_of_test_confirms() -> None:
    task = Task(test=DATA, val=(FEATURES[:4], LABELS[:4]))
    assert task.validation is not None
    assert task.holdout is not None
    assert (task.validation.name, len(task.validation)) == ("val", 4)
    assert (task.holdout.name, len(task.holdout)) == ("test", ITEMS)


def test_without_test_data_nothing_confirms() -> None:
    task = Task(train=DATA)
    assert task.holdout is None
    assert task.validation is None
    assert Task(val=DATA).holdout is None
    assert len(Task(val=DATA).validation or ()) == ITEMS


def test_calibration_uses_training_data_and_else_what_selects_but_never_what_confirms() -> None:
    trained = Task(test=DATA, train=(FEATURES[:5], LABELS[:5]))
    assert trained.calibration is not None
    assert (trained.calibration.name, len(trained.calibration)) == ("train", 5)
    untrained = Task(test=DATA)
    assert untrained.calibration is not None
    assert untrained.holdout is not None
    assert np.intersect1d(untrained.calibration.indices, untrained.holdout.indices).size == 0
    assert len(untrained.calibration) > 0
    assert Task().calibration is None


def test_every_part_may_come_in_another_form() -> None:
    tensors = TensorDataset(torch.from_numpy(FEATURES), torch.from_numpy(LABELS))
    task = Task(test=DataLoader(tensors, shuffle=True), train=tensors, val=ArraySource((FEATURES,), LABELS))
    assert [len(task.test), len(task.train), len(task.val)] == [ITEMS] * 3
    np.testing.assert_array_equal(task.test.read([4])[0][0], task.val.read([4])[0][0])


@pytest.mark.parametrize("part", ["test", "train", "val"])
def test_an_empty_part_is_refused_by_name(part: str) -> None:
    with pytest.raises(DataError, match="is empty") as caught:
        Task(**{part: (FEATURES[:0], LABELS[:0])}, name="digits")
    assert caught.value.where == f"digits: {part}"


def test_an_unknown_score_is_refused_beside_the_known_ones() -> None:
    with pytest.raises(DataError, match="no score named 'accuracy'") as caught:
        Task(test=DATA, score="accuracy")
    assert all(name in caught.value.hint for name in SCORES)


# right and wrong


def test_top1_is_one_where_the_label_scores_highest() -> None:
    outputs = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.0, 0.1, 0.9]])
    assert scores("top1", outputs, np.array([1, 2, 2])) == [1.0, 0.0, 1.0]


def test_top5_is_one_where_the_label_is_among_the_five_highest() -> None:
    outputs = np.tile(np.arange(CLASSES, dtype=np.float32), (CLASSES, 1))
    assert scores("top5", outputs, np.arange(CLASSES)) == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_of_equal_scores_the_lower_classes_come_first() -> None:
    outputs = np.zeros((CLASSES, CLASSES))
    labels = np.arange(CLASSES)
    assert scores("top1", outputs, labels) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert scores("top5", outputs, labels) == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    outputs[:, 6] = 1.0
    assert scores("top5", outputs, labels) == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0]


OUTPUTS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
)


@settings(deadline=None)
@given(OUTPUTS, st.integers(0, 1000))
def test_whatever_the_ties_one_label_of_an_item_is_in_the_top_one_and_five_in_the_top_five(
    outputs: np.ndarray, seed: int
) -> None:
    n, classes = outputs.shape
    per_label = {
        name: np.array([scores(name, outputs, np.full(n, label)) for label in range(classes)])
        for name in ("top1", "top5")
    }
    assert (per_label["top1"].sum(axis=0) == 1).all()
    assert (per_label["top5"].sum(axis=0) == min(5, classes)).all()
    labels = np.random.default_rng(seed).integers(0, classes, n)
    assert scores("top1", outputs, labels) == (outputs.argmax(axis=1) == labels).tolist()


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "uint64"])
def test_labels_of_any_whole_type_will_do(dtype: str) -> None:
    outputs = np.eye(3, dtype=np.float32)
    assert scores("top1", outputs, np.array([0, 1, 0], dtype=dtype)) == [1.0, 1.0, 0.0]


def test_of_several_outputs_the_first_is_scored() -> None:
    outputs = (np.eye(3), np.zeros((3, 8)))
    assert scores("top1", outputs, np.array([0, 1, 0])) == [1.0, 1.0, 0.0]


def test_only_right_or_wrong_answers_are_a_rate() -> None:
    assert Task(score="top1").score_is_rate
    assert Task(score="top5").score_is_rate
    assert not Task(score="negative_error").score_is_rate
    assert not Task(score="token_accuracy").score_is_rate
    assert not Task(score=lambda outputs, _targets: outputs).score_is_rate


# other scores


def test_negative_error_is_minus_the_mean_absolute_error_of_each_item() -> None:
    outputs = np.array([[1.0, 2.0], [0.0, -4.0]])
    targets = np.array([[1.5, 2.0], [1.0, 4.0]])
    assert scores("negative_error", outputs, targets) == [-0.25, -4.5]


def test_negative_error_takes_one_number_an_item_with_or_without_an_axis() -> None:
    assert scores("negative_error", np.array([[1.0], [2.0]]), np.array([0.0, 4.0])) == [-1.0, -2.0]


def test_token_accuracy_is_the_share_of_tokens_that_are_right() -> None:
    outputs = np.zeros((2, 4, 3))
    outputs[0, :, 1] = 1.0
    outputs[1, :2, 2] = 1.0
    targets = np.array([[1, 1, 0, 2], [2, 0, 0, 0]])
    assert scores("token_accuracy", outputs, targets) == [0.5, 0.75]


def test_token_accuracy_passes_over_padding() -> None:
    outputs = np.zeros((3, 4, 3))
    outputs[:, :, 1] = 1.0
    targets = np.array([[1, 1, -100, -100], [1, 0, -100, -1], [-1, -1, -1, -1]])
    assert scores("token_accuracy", outputs, targets) == [1.0, 0.5, 0.0]


def test_a_score_of_ones_own_gets_outputs_and_targets_as_they_are() -> None:
    outputs, targets = (np.ones((3, 2)), np.zeros(3)), np.array([5, 6, 7])
    seen = []

    def score(*given: Any) -> list[float]:
        seen.append(given)
        return [0.5, 1.0, 2.5]

    assert scores(score, outputs, targets) == [0.5, 1.0, 2.5]
    assert seen[0][0] is outputs
    assert seen[0][1] is targets


@pytest.mark.parametrize("result", [np.array([True, False]), torch.tensor([1.0, 0.0], requires_grad=True), [1, 0]])
def test_a_score_may_return_any_kind_of_numbers(result: Any) -> None:
    found = Task(score=lambda _outputs, _targets: result).scores(np.zeros((2, 3)), np.zeros(2))
    assert found.dtype == np.float64
    assert found.tolist() == [1.0, 0.0]


# errors


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 1, 3]), "label 3 is out of range: the model has 3 classes, 0 to 2"),
        (np.array([0, -1, 2]), "label -1 is out of range"),
        (np.array([0, 300, 2]), "label 300 is out of range"),
        (np.array([0.0, 1.0, 2.0]), "labels are float64 of shape (3,), not whole numbers"),
        (np.eye(3, dtype=np.int64), "labels are int64 of shape (3, 3)"),
        (np.array([[0], [1], [2]]), "labels are int64 of shape (3, 1)"),
    ],
    ids=["beyond", "negative", "far beyond", "float", "one-hot", "a column"],
)
@pytest.mark.parametrize("score", ["top1", "top5"])
def test_labels_that_are_no_classes_of_the_model_are_refused(score: str, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        scores(score, np.eye(3), labels)
    assert caught.value.where == "labels"


@pytest.mark.parametrize("outputs", [np.zeros(3), np.zeros((3, 4, 5)), np.zeros((3, 1, 1, 4))])
def test_outputs_that_are_no_class_scores_are_refused(outputs: np.ndarray) -> None:
    with pytest.raises(DataError, match="top-1 needs outputs of shape") as caught:
        scores("top1", outputs, np.zeros(3, dtype=int))
    assert "score function" in caught.value.hint


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros(2), "returned shape (2,) for 3 items"),
        (np.zeros((3, 1)), "returned shape (3, 1) for 3 items"),
        (0.93, "returned shape () for 3 items"),
        ([0.1, np.nan, 0.2], "not finite"),
        ([0.1, -np.inf, 0.2], "not finite"),
        (None, "not numbers"),
        (["good", "bad", "good"], "not numbers"),
    ],
)
def test_a_score_that_is_not_one_number_an_item_is_refused(result: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        scores(lambda _outputs, _targets: result, np.zeros((3, 2)), np.zeros(3))


def test_a_score_that_raises_is_a_data_error_with_the_words_and_the_cause() -> None:
    def failing(_outputs: Any, _targets: Any) -> Any:
        raise KeyError("no such answer")

    with pytest.raises(DataError, match="raised KeyError: 'no such answer'") as caught:
        scores(failing, np.zeros((3, 2)), np.zeros(3))
    assert caught.value.where == "score"
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(caught.value, AutocompressError)


@pytest.mark.parametrize("score", ["top1", "negative_error"])
@pytest.mark.parametrize("rows", [2, 4])
def test_another_number_of_outputs_than_targets_is_refused(score: str, rows: int) -> None:
    with pytest.raises(DataError):
        scores(score, np.zeros((rows, 5)), np.zeros(3, dtype=int))


@pytest.mark.parametrize("score", ["top1", "top5", "token_accuracy"])
def test_outputs_that_are_not_numbers_are_never_right(score: str) -> None:
    outputs = np.full((3, 4, 6) if score == "token_accuracy" else (3, 6), np.nan)
    targets = np.zeros(outputs.shape[:-1], dtype=int)
    try:
        found = scores(score, outputs, targets)
    except AutocompressError:
        return
    assert found == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("score", "outputs", "targets"),
    [
        ("token_accuracy", (3, 5), (3, 3)),
        ("token_accuracy", (3, 1, 5), (3, 4)),
        ("token_accuracy", (1, 4, 5), (3, 4)),
        ("negative_error", (6, 2), (3, 4)),
        ("negative_error", (2, 3), (3, 2)),
    ],
)
def test_outputs_of_another_shape_than_the_targets_are_refused(
    score: str, outputs: tuple[int, ...], targets: tuple[int, ...]
) -> None:
    with pytest.raises(DataError):
        scores(score, np.zeros(outputs), np.zeros(targets, dtype=int))


# bounds of a score


def test_named_scores_have_the_bounds_that_they_have() -> None:
    assert {name: Task(score=name).bounds for name in SCORES} == {
        "top1": (0.0, 1.0),
        "top5": (0.0, 1.0),
        "token_accuracy": (0.0, 1.0),
        "negative_error": None,
    }
    assert Task(score="macro_f1").bounds is None
    assert Task(score="top1", score_bounds=(0, 1)).bounds == (0.0, 1.0)


def test_a_function_has_the_bounds_that_are_declared() -> None:
    assert Task(score=first).bounds is None
    assert Task(score=first, score_bounds=[0, 40]).bounds == (0.0, 40.0)
    assert Task(score="negative_error", score_bounds=(-2, 0)).bounds == (-2.0, 0.0)


def first(outputs: Any, targets: np.ndarray) -> np.ndarray:
    return np.asarray(outputs[:, 0])


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), (0, float("inf")), (float("nan"), 1), (0,), 1, "ab", (0, 1, 2)])
def test_bounds_that_are_none_are_refused(bounds: Any) -> None:
    with pytest.raises(DataError, match="two finite numbers") as caught:
        Task(score=first, score_bounds=bounds)
    assert "score_bounds" in str(caught.value)


def test_bounds_that_contradict_a_named_score_are_refused() -> None:
    with pytest.raises(DataError, match="token_accuracy gives values from 0 to 1"):
        Task(score="token_accuracy", score_bounds=(0, 100))
    with pytest.raises(DataError, match="no item has a score of its own"):
        Task(score="spearman", score_bounds=(-1, 1))


# several heads


def test_a_score_gets_the_outputs_and_the_targets_of_all_heads() -> None:
    def both(outputs: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> np.ndarray:
        right = outputs["logits"].argmax(1) == targets["kinds"]
        return right - np.abs(outputs["pred_boxes"] - targets["boxes"]).mean(1)

    outputs = {"logits": np.eye(3, dtype=np.float32), "pred_boxes": np.ones((3, 2), np.float32)}
    targets = {"kinds": np.array([0, 1, 0]), "boxes": np.ones((3, 2), np.float32)}
    assert Task(score=both).scores(outputs, targets).tolist() == [1, 1, 0]


def test_a_built_in_score_takes_the_logits_of_several_outputs_and_one_target() -> None:
    outputs = {"pred_boxes": np.ones((3, 2), np.float32), "logits": np.eye(3, dtype=np.float32)}
    found = Task(score="top1").columns(outputs, np.array([0, 1, 0]))
    assert found["score"].tolist() == [1, 1, 0]
    assert found["answer"].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"top1 takes one array of targets, not several \(kinds, boxes\)"):
        Task(score="top1").scores(outputs, {"kinds": np.array([0, 1, 0]), "boxes": np.ones((3, 2))})


def test_items_without_a_label_and_labels_for_tokens_are_told_what_to_do() -> None:
    task = Task()
    with pytest.raises(DataError, match=r"label -100 is out of range.*Leave items without a label"):
        task.scores(np.zeros((2, 3)), np.array([0, -100]))
    with pytest.raises(DataError, match=r"label -100 is of no class.*Leave items without a label"):
        Task(score="macro_f1").scores(np.zeros((2, 3)), np.array([0, -100]))
    for outputs in (np.zeros((2, 5, 3)), np.zeros((2, 3))):
        with pytest.raises(DataError, match=r'score="token_accuracy"'):
            task.scores(outputs, np.zeros((2, 5), dtype=np.int64))


def test_ignored_tokens_change_no_token_score() -> None:
    random = np.random.default_rng(0)
    outputs, targets = random.standard_normal((4, 6, 3)), random.integers(0, 3, (4, 6))
    padded = np.concatenate([outputs, random.standard_normal((4, 2, 3))], axis=1)
    ignored = np.concatenate([targets, np.full((4, 2), -100)], axis=1)
    for name in ("token_accuracy", "negative_perplexity"):
        task = Task(score=name)
        assert task.value(task.scores(padded, ignored)) == pytest.approx(task.value(task.scores(outputs, targets)))
