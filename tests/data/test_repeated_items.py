"""Items that occur more than once, and sources that are others each time they are read."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from autocompress.core.data_check import DataCheck
from autocompress.core.source import Array, Inputs, whole
from autocompress.core.task import Task
from autocompress.data import repeated_items
from autocompress.data.repeated_items import examine, require_stable
from autocompress.errors import DataError

ITEMS = 40


def inputs(first: int, count: int) -> Array:
    """Inputs that no other number gives."""
    return np.arange(first, first + count, dtype=np.float32)[:, None] * np.ones(3, dtype=np.float32)


def labels(count: int) -> Array:
    return np.arange(count) % 4


TEST = (inputs(0, ITEMS), labels(ITEMS))


class Mirrored(Dataset[Any]):
    """Items with a random transform, as a training set often has."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.arange(3) + index + torch.rand(3), index % 4


class Counted:
    """A source that counts what is read from it."""

    def __init__(self, values: Array, targets: Array) -> None:
        self.values, self.targets, self.read_so_far = values, targets, 0

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, indices: Sequence[int]) -> tuple[Inputs, Array]:
        self.read_so_far += len(indices)
        index = np.asarray(indices)
        return (self.values[index],), self.targets[index]


def with_val(**more: Any) -> Task:
    return Task(**{"test": TEST, "val": (inputs(1000, 10), labels(10)), **more})


def test_items_that_all_differ_leave_nothing_out_and_nothing_to_say() -> None:
    check = examine(with_val(train=(inputs(2000, 50), labels(50))))
    assert (check.left_out, check.sentences, check.train_read) == ((), [], 50)


def test_holdout_items_that_were_trained_on_are_named_and_left_out() -> None:
    values, targets = inputs(2000, 50), labels(50)
    values[17], targets[17] = TEST[0][5], TEST[1][5]
    values[[40, 44]], targets[[40, 44]] = TEST[0][9], TEST[1][9]
    check = examine(with_val(train=(values, targets)))
    assert check.left_out == (5, 9)
    assert check.sentences == [
        "2 of 40 holdout items are also in train and left out: test 5 = train 17, test 9 = train 40.",
        "38 holdout items are left to confirm with.",
    ]


def test_other_targets_of_the_same_inputs_are_told() -> None:
    values = np.concatenate([inputs(2000, 4), TEST[0][5:7]])
    check = examine(with_val(train=(values, np.array([0, 0, 0, 0, TEST[1][5], 3 - TEST[1][6]]))))
    assert check.sentences[0].endswith("test 5 = train 4, test 6 = train 5; 1 with another target.")


def test_holdout_items_that_select_are_left_out() -> None:
    check = examine(with_val(val=(TEST[0][[3, 30]], TEST[1][[3, 30]])))
    assert check.left_out == (3, 30)
    assert (
        "2 of 40 holdout items are also among the validation items and left out: test 3 = val 0" in check.sentences[0]
    )


def test_without_val_copies_between_the_two_parts_of_test_are_left_out_of_the_holdout() -> None:
    values, targets = inputs(0, ITEMS), labels(ITEMS)
    aside, selects = Task(test=TEST).set_aside, Task(test=TEST).validation
    assert aside is not None
    assert selects is not None
    one, other = int(aside.indices[2]), int(selects.indices[1])
    values[one] = values[other]
    check = examine(Task(test=(values, targets)))
    assert check.left_out == (one,)
    assert f"test {one} = test {other}" in check.sentences[0]


def test_of_copies_within_the_holdout_the_first_counts() -> None:
    values = np.concatenate([inputs(0, 20), inputs(0, 20)])
    check = examine(with_val(test=(values, np.concatenate([labels(20)] * 2))))
    assert check.left_out == tuple(range(20, 40))
    assert check.sentences[0] == (
        "20 of 40 holdout items are copies of others and not counted again: test 20 = test 0, test 21 = test 1, "
        "test 22 = test 2, ..."
    )


def test_validation_items_that_were_trained_on_are_told_and_stay() -> None:
    check = examine(with_val(train=(inputs(1000, 3), labels(3))))
    assert check.left_out == ()
    assert "3 of 10 validation items are also in train, so candidates look better than they are" in check.sentences[0]


def test_a_task_confirms_without_the_items_left_out_and_keeps_its_name_for_the_whole() -> None:
    task = with_val(left_out=(5, 9))
    assert task.holdout is not None
    assert task.set_aside is not None
    assert task.holdout.indices.tolist() == [i for i in range(ITEMS) if i not in (5, 9)]
    assert len(task.set_aside) == len(task.everything) == ITEMS
    nothing = with_val(left_out=range(ITEMS)).holdout
    assert nothing is not None
    assert len(nothing) == 0


def test_shape_dtype_and_names_of_inputs_count() -> None:
    flat = with_val(train=(TEST[0].reshape(ITEMS, 3, 1), TEST[1]))
    other = with_val(train=(TEST[0].astype(np.float64), TEST[1]))
    named = Task(test=({"a": TEST[0]}, TEST[1]), val=({"a": inputs(99, 2)}, labels(2)), train=({"b": TEST[0]}, TEST[1]))
    assert [examine(task).left_out for task in (flat, other, named)] == [()] * 3


def test_the_hash_of_the_holdout_is_of_its_items_alone() -> None:
    base = examine(with_val()).holdout_hash
    order = np.arange(ITEMS)[::-1]
    same = [
        with_val(val=(inputs(5000, 20), labels(20))),
        with_val(train=(TEST[0][:5], TEST[1][:5])),
        with_val(test=(TEST[0][order], TEST[1][order])),
    ]
    assert {examine(task).holdout_hash for task in same} == {base}
    moved = TEST[0].copy()
    moved[39, 2] += 1
    others = [
        with_val(test=(moved, TEST[1])),
        with_val(test=(TEST[0], TEST[1][::-1])),
        with_val(test=(TEST[0][:-1], TEST[1][:-1])),
        Task(test=TEST),
    ]
    assert len({base, *(examine(task).holdout_hash for task in others)}) == 5


def test_large_training_data_are_read_for_a_while_and_the_sentence_says_how_many() -> None:
    train = Counted(inputs(2000, 3000), labels(3000))
    check = examine(with_val(train=train), seconds=0.0)
    assert check.train_read == repeated_items.BATCH
    # one more tells how large an item is
    assert train.read_so_far == repeated_items.BATCH + 2 * repeated_items.READ_TWICE + 1
    assert check.sentences == [
        "Repeated items were looked for among 256 of 3,000 training items, as many as could be read in the time for it."
    ]


def test_test_and_validation_items_are_read_once_beside_the_few_that_are_read_twice() -> None:
    test, val = Counted(*TEST), Counted(inputs(1000, 10), labels(10))
    examine(Task(test=test, val=val))
    assert (test.read_so_far, val.read_so_far) == (ITEMS + 2 * repeated_items.READ_TWICE + 1, 3 * 10 + 1)


@pytest.mark.parametrize("field", ["test", "val"])
def test_items_that_are_others_each_time_are_refused_where_they_judge(field: str) -> None:
    data = {"test": TEST, "val": TEST, field: Mirrored()}
    with pytest.raises(DataError, match=r"item 0 is another one \(input 0 differs\) each time it is read") as caught:
        examine(Task(**data, name="toy"))
    assert caught.value.where == f"toy: {field}"
    assert "without random transforms" in caught.value.hint


def test_items_that_are_others_each_time_may_be_trained_on() -> None:
    check = examine(with_val(train=Mirrored()))
    assert (check.train, check.train_read, check.train_stable) == (ITEMS, 0, False)
    assert "whether test items are among them is not known" in check.sentences[0]


def test_a_target_that_changes_is_named() -> None:
    class Noisy(Mirrored):
        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(3), int(torch.randint(0, 1000, ()))

    with pytest.raises(DataError, match=r"another one \(target differs\) each time it is read"):
        require_stable(Task(test=Noisy()).test, "test")


def test_values_that_are_no_numbers_are_equal_to_themselves() -> None:
    require_stable(Task(test=(np.full((4, 2), np.nan), labels(4))).test, "test")


def test_a_check_is_remembered_whole_and_shown_in_part() -> None:
    check = examine(with_val(train=TEST))
    again = DataCheck.from_json(json.loads(json.dumps(check.to_json())))
    assert again == check
    assert len(check.left_out) == ITEMS
    shown = check.to_json(20)
    assert shown["left_out"] == shown["overlaps"][0]["count"] == ITEMS
    assert len(shown["overlaps"][0]["pairs"]) == 20


def test_of_a_large_holdout_a_sample_is_the_identity_and_the_rest_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeated_items, "IDENTIFYING", 20)
    monkeypatch.setattr(repeated_items, "BATCH", 10)
    values, val = inputs(0, 300), (inputs(1000, 10), labels(10))

    def check(changed: Sequence[int] = (), items: int = 300, seconds: float = 0.0) -> DataCheck:
        other = values.copy()
        other[list(changed)] += 0.5
        return examine(Task(test=Counted(other[:items], labels(items)), val=val), seconds=seconds)

    base = check()
    assert (base.holdout, base.holdout_read, base.validation_read) == (300, 20, 10)
    assert base.sentences == [
        "20 of 300 holdout items were read when the run began: repeated ones among the others are not known, and their "
        "shapes and values are checked when they are read to be judged."
    ]
    # however much time there was
    longer = check(seconds=100.0)
    assert (longer.holdout_hash, longer.holdout_read, longer.sentences) == (base.holdout_hash, 300, [])
    chosen = whole("test", Counted(values, labels(300))).first(20).indices.tolist()
    others = [check([chosen[3]]), check(items=299)]
    assert len({base.holdout_hash, *(other.holdout_hash for other in others)}) == 3
    # what changes outside of the sample alone is taken for the same holdout: its looks are counted on
    assert check([index for index in range(300) if index not in chosen]).holdout_hash == base.holdout_hash


def test_repeated_items_among_those_that_were_read_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_items, "IDENTIFYING", 20)
    test = Counted(inputs(0, 300), labels(300))
    read = whole("test", test).first(20).indices.tolist()
    check = examine(Task(test=test, val=(inputs(read[4], 1), labels(1))), seconds=0.0)
    assert check.left_out == (read[4],)
    assert DataCheck.from_json(json.loads(json.dumps(check.to_json()))) == check
