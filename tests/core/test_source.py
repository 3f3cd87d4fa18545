import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.data_sources import as_source
from autocompress.core.runtime import align, feeds
from autocompress.core.source import ArraySource, Source, Split, split_batch, third, to_array, whole
from autocompress.core.task import Task
from autocompress.errors import DataError
from autocompress.testing.python_processes import run_python

ITEMS = 12
FEATURES = np.arange(ITEMS * 3, dtype=np.float32).reshape(ITEMS, 3)
LABELS = np.arange(ITEMS) % 4


class Pairs(Dataset[Any]):
    """Items are (features, label), as torchvision's data sets give them."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return FEATURES[index], int(LABELS[index])


class Dicts(Dataset[Any]):
    """Items are dicts, as Hugging Face's data sets give them."""

    def __init__(self, target: str = "label") -> None:
        self.target = target

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "ids": torch.tensor([index, 1]),
            self.target: int(LABELS[index]),
            "mask": torch.tensor([1, index % 2]),
        }


class Stream(IterableDataset[Any]):
    def __init__(self, count: int = ITEMS) -> None:
        self.count = count
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        self.passes += 1
        for index in range(self.count):
            yield FEATURES[index], int(LABELS[index])


def source_of(data: Any) -> Source:
    source = as_source(data)
    assert source is not None
    return source


def assert_holds_the_items(source: Source, order: list[int]) -> None:
    inputs, targets = source.read(order)
    assert isinstance(inputs, tuple)
    np.testing.assert_array_equal(inputs[0], FEATURES[order])
    np.testing.assert_array_equal(targets, LABELS[order])


FORMS = {
    "arrays": lambda: (FEATURES, LABELS),
    "list of two arrays": lambda: [FEATURES, LABELS],
    "tensors": lambda: (torch.from_numpy(FEATURES), torch.from_numpy(LABELS)),
    "lists of numbers": lambda: (FEATURES.tolist(), LABELS.tolist()),
    "one input in a tuple": lambda: ((FEATURES,), LABELS),
    "dataset": Pairs,
    "tensor dataset": lambda: TensorDataset(torch.from_numpy(FEATURES), torch.from_numpy(LABELS)),
    "list of items": lambda: [(FEATURES[i], int(LABELS[i])) for i in range(ITEMS)],
    "loader": lambda: DataLoader(Pairs(), batch_size=5),
    "shuffling loader": lambda: DataLoader(Pairs(), batch_size=5, shuffle=True),
    "loader that drops no full batch": lambda: DataLoader(Pairs(), batch_size=6, drop_last=True),
    "loader over a stream": lambda: DataLoader(Stream(), batch_size=5),
    "loader over batches": lambda: DataLoader(
        [(FEATURES[:7], LABELS[:7]), (FEATURES[7:], LABELS[7:])], batch_size=None
    ),
    "source": lambda: ArraySource((FEATURES,), LABELS),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_holds_the_same_items(form: str) -> None:
    source = source_of(FORMS[form]())
    assert len(source) == ITEMS
    assert_holds_the_items(source, list(range(ITEMS)))
    assert_holds_the_items(source, [7, 0, 7, 11])


def test_no_data_is_no_source() -> None:
    assert as_source(None) is None


def test_a_source_is_taken_as_it_is() -> None:
    source = ArraySource((FEATURES,), LABELS)
    assert as_source(source) is source


def test_several_inputs_keep_their_order() -> None:
    inputs, targets = source_of(((FEATURES, FEATURES[:, :1] * 2), LABELS)).read([3, 1])
    assert isinstance(inputs, tuple)
    np.testing.assert_array_equal(inputs[0], FEATURES[[3, 1]])
    np.testing.assert_array_equal(inputs[1], FEATURES[[3, 1], :1] * 2)
    np.testing.assert_array_equal(targets, LABELS[[3, 1]])


def test_several_inputs_of_a_dataset_come_before_its_target() -> None:
    data = TensorDataset(torch.from_numpy(FEATURES), torch.ones(ITEMS, 2), torch.from_numpy(LABELS))
    inputs, targets = source_of(data).read([3, 1])
    assert [array.shape for array in inputs] == [(2, 3), (2, 2)]
    np.testing.assert_array_equal(targets, LABELS[[3, 1]])


def test_named_inputs_keep_their_names() -> None:
    inputs, targets = source_of(({"a": FEATURES, "b": LABELS}, LABELS)).read([2, 5])
    assert isinstance(inputs, dict)
    assert list(inputs) == ["a", "b"]
    np.testing.assert_array_equal(inputs["a"], FEATURES[[2, 5]])
    np.testing.assert_array_equal(targets, LABELS[[2, 5]])


@pytest.mark.parametrize("target", ["labels", "label", "targets", "target", "y"])
@pytest.mark.parametrize("through_a_loader", [False, True])
def test_the_target_of_dict_items_is_found_by_its_name(target: str, *, through_a_loader: bool) -> None:
    data = Dicts(target)
    inputs, targets = source_of(DataLoader(data, batch_size=4) if through_a_loader else data).read([9, 4])
    assert isinstance(inputs, dict)
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "ids": [[9, 1], [4, 1]],
        "mask": [[1, 1], [1, 0]],
    }
    np.testing.assert_array_equal(targets, LABELS[[9, 4]])


def test_a_dict_beside_its_target_is_named_inputs() -> None:
    data = [({"a": FEATURES[i]}, int(LABELS[i])) for i in range(ITEMS)]
    inputs, targets = source_of(data).read([6])
    assert isinstance(inputs, dict)
    np.testing.assert_array_equal(inputs["a"], FEATURES[[6]])
    assert targets.tolist() == [LABELS[6]]


def test_the_collate_function_of_a_loader_is_used() -> None:
    def doubling(items: list[Any]) -> Any:
        inputs, targets = default_collate(items)
        return inputs * 2, targets

    inputs, _ = source_of(DataLoader(Pairs(), batch_size=4, collate_fn=doubling)).read([5, 2])
    assert isinstance(inputs, tuple)
    np.testing.assert_array_equal(inputs[0], FEATURES[[5, 2]] * 2)


def test_a_transform_changes_what_is_read_and_not_what_is_held() -> None:
    images = np.full((ITEMS, 2, 2), 255, dtype=np.uint8)
    source = ArraySource((images,), LABELS, transform=lambda batch: batch.astype(np.float32) / 255)
    inputs, _ = source.read([0, 3])
    assert isinstance(inputs, tuple)
    assert inputs[0].dtype == np.float32
    assert (inputs[0] == 1.0).all()
    assert images.dtype == np.uint8


@pytest.mark.parametrize(("trains", "passes"), [(True, 1), (False, 2)])
def test_a_stream_is_read_into_memory_and_its_beginning_again_for_judging(trains: bool, passes: int) -> None:
    stream = Stream()
    source = as_source(DataLoader(stream, batch_size=5), trains=trains)
    assert source is not None
    source.read([1])
    source.read([0])
    assert stream.passes == passes


def test_a_stream_of_dicts_is_read_by_name() -> None:
    class NamedStream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            for index in range(ITEMS):
                yield {"x": FEATURES[index], "label": int(LABELS[index])}

    inputs, targets = source_of(DataLoader(NamedStream(), batch_size=5)).read([11, 0])
    assert isinstance(inputs, dict)
    np.testing.assert_array_equal(inputs["x"], FEATURES[[11, 0]])
    np.testing.assert_array_equal(targets, LABELS[[11, 0]])


def test_a_subset_of_a_dataset_is_only_that_subset() -> None:
    source = source_of(DataLoader(Subset(Pairs(), [4, 9]), batch_size=2, shuffle=True))
    assert len(source) == 2
    inputs, targets = source.read([1, 0])
    assert isinstance(inputs, tuple)
    np.testing.assert_array_equal(inputs[0], FEATURES[[9, 4]])
    np.testing.assert_array_equal(targets, LABELS[[9, 4]])


# errors


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((FEATURES, LABELS[:-1]), "has 12 inputs and 11 targets"),
        (((FEATURES, FEATURES[:3]), LABELS), "has 3 inputs and 12 targets"),
        (({"a": FEATURES[:2]}, LABELS), "has 2 inputs and 12 targets"),
        (3, "cannot be read from an int"),
        (Stream(), "cannot be read from a Stream"),
        ((np.array(["a", "b"]), np.array([0, 1])), "holds texts, not numbers"),
        ((FEATURES, np.array([None] * ITEMS)), "holds object values, not numbers"),
        ((FEATURES.astype(complex), LABELS), "holds complex128 values"),
        (DataLoader(Stream(0), batch_size=2), "is empty"),
    ],
)
def test_data_that_cannot_be_a_source_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        as_source(data)
    assert caught.value.where == "data"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TensorDataset(torch.from_numpy(FEATURES)), "items have no target"),
        (FEATURES, "items have no target"),
        (Dicts("answer"), "items are dicts without a target; keys: ids, answer, mask"),
        ([(FEATURES[0], "cat"), (FEATURES[1], "dog")] * 2, "not numbers"),
    ],
)
def test_items_without_a_usable_target_are_refused_when_they_are_read(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        source_of(data).read([0, 1])
    assert caught.value.where == "data"


def test_the_names_that_a_target_may_have_are_told() -> None:
    with pytest.raises(DataError) as caught:
        split_batch({"x": FEATURES, "answer": LABELS})
    assert all(name in caught.value.hint for name in ("labels", "label", "targets", "target", "y"))


@pytest.mark.parametrize(
    "value",
    [[[1.0], [1.0, 2.0]], [FEATURES, FEATURES[:, :1]]],
    ids=["ragged list", "list of inputs"],
)
def test_what_is_no_array_of_numbers_is_a_data_error(value: Any) -> None:
    with pytest.raises(DataError):
        to_array(value)


@pytest.mark.parametrize("data", [(FEATURES, np.float32(2.0)), (np.float32(2.0), LABELS)])
def test_a_single_number_is_a_data_error(data: Any) -> None:
    with pytest.raises(DataError):
        as_source(data)


@pytest.mark.parametrize(
    "data",
    ["digits", {"x": FEATURES, "y": LABELS}, ([], [])],
    ids=["a name", "a dict of arrays", "two empty lists"],
)
def test_what_only_looks_like_a_dataset_is_refused_at_once(data: Any) -> None:
    with pytest.raises(DataError):
        Task(test=data)


def test_a_loader_that_does_not_batch_is_read_or_refused() -> None:
    with suppress(DataError):
        assert_holds_the_items(source_of(DataLoader(Pairs(), batch_size=None)), [2, 1])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], np.array([1, 2])),
        (torch.tensor([1.5], requires_grad=True), np.array([1.5], dtype=np.float32)),
        (np.array([True, False]), np.array([True, False])),
    ],
)
def test_lists_tensors_and_arrays_become_arrays(value: Any, expected: np.ndarray) -> None:
    found = to_array(value)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


# parts


def test_a_whole_part_holds_every_item() -> None:
    part = whole("test", source_of((FEATURES, LABELS)))
    assert len(part) == ITEMS
    assert part.indices.tolist() == list(range(ITEMS))


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_batches_give_every_item_once_and_in_order(size: int) -> None:
    indices = np.array([1, 4, 5, 7, 8, 11])
    batches = list(Split("some", source_of((FEATURES, LABELS)), indices).batches(size))
    assert all(len(targets) == size for _, targets in batches[:-1])
    assert np.concatenate([targets for _, targets in batches]).tolist() == LABELS[indices].tolist()
    assert np.concatenate([inputs[0] for inputs, _ in batches]).tolist() == FEATURES[indices].tolist()  # type: ignore[index]


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 600))
def test_the_first_items_are_some_of_the_part_and_nested(n: int, count: int) -> None:
    source = ArraySource((np.zeros(n),), np.zeros(n))
    part = Split("some", source, np.arange(0, 3 * n, 3))
    chosen = part.first(count).indices
    assert len(chosen) == min(n, count)
    assert set(chosen) <= set(part.indices)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert set(chosen) <= set(part.first(count + 5).indices)


def test_the_first_items_come_from_all_over_data_sorted_by_class() -> None:
    targets = np.repeat(np.arange(10), 100)
    part = whole("sorted", ArraySource((np.zeros(1000),), targets)).first(200)
    counts = np.bincount(targets[part.indices], minlength=10)
    # 20 are expected of each; a plain slice would give 100, 100, 0, ...
    assert counts.min() >= 8
    assert counts.max() <= 36


def test_the_hash_of_a_part_tells_other_values_targets_and_items() -> None:
    part = whole("test", source_of((FEATURES, LABELS)))
    moved = FEATURES.copy()
    moved[5, 1] += 1
    others = [
        whole("test", source_of((moved, LABELS))),
        whole("test", source_of((FEATURES, LABELS[::-1]))),
        Split("test", part.source, part.indices[:-1]),
        Split("test", part.source, part.indices[::-1]),
    ]
    assert len({part.hash, *(other.hash for other in others)}) == 5
    assert whole("another name", source_of((FEATURES.copy(), LABELS))).hash == part.hash
    assert len(part.hash) == 16


# the split into thirds


@settings(deadline=None)
@given(st.integers(0, 3000))
def test_the_thirds_are_disjoint_and_hold_every_item(n: int) -> None:
    validation, holdout = third(n, selects=True), third(n, selects=False)
    assert np.intersect1d(validation, holdout).size == 0
    assert np.union1d(validation, holdout).tolist() == list(range(n))


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(0, 2000))
def test_an_item_keeps_its_part_when_items_are_appended(n: int, more: int) -> None:
    for selects in (True, False):
        later = third(n + more, selects=selects)
        assert later[later < n].tolist() == third(n, selects=selects).tolist()


@pytest.mark.parametrize("n", [300, 3000, 10_000, 50_000])
def test_about_a_third_selects(n: int) -> None:
    assert len(third(n, selects=True)) == pytest.approx(n / 3, abs=4 * np.sqrt(n * 2 / 9))


def test_the_split_does_not_follow_the_order_of_the_items() -> None:
    validation = third(9000, selects=True)
    for period in (2, 3, 7, 10):
        shares = np.bincount(validation % period, minlength=period) / len(validation)
        assert shares == pytest.approx(1 / period, abs=0.04)


def test_the_split_is_the_same_in_every_process() -> None:
    script = "from autocompress.core.source import third; print(third(40, selects=True).tolist())"
    assert run_python(script, PYTHONHASHSEED="7") == str(third(40, selects=True).tolist())
    # written down, so that a change of the hash shows: certificates of earlier versions would be worthless
    assert third(20, selects=True).tolist() == [0, 3, 5, 7, 11, 17, 18]


# what a model takes


def spec(dtype: str = "float32", *shape: int | None, name: str = "x") -> TensorSpec:
    return TensorSpec(name, dtype, shape or (None, 3))


def test_inputs_by_position_get_the_names_of_the_model() -> None:
    specs = (spec(name="image"), spec("int64", None, name="length"))
    aligned = align((FEATURES, LABELS), specs)
    assert list(aligned) == ["image", "length"]
    np.testing.assert_array_equal(aligned["image"], FEATURES)
    np.testing.assert_array_equal(aligned["length"], LABELS)


def test_inputs_by_name_are_put_in_the_order_of_the_model_and_others_left_out() -> None:
    specs = (spec(name="b"), spec(name="a"))
    aligned = align({"a": FEATURES, "extra": LABELS, "b": FEATURES * 2}, specs)
    assert list(aligned) == ["b", "a"]
    np.testing.assert_array_equal(aligned["b"], FEATURES * 2)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (FEATURES.astype(np.float64), "float32"),
        (FEATURES, "float16"),
        (FEATURES.astype(np.int32), "int64"),
        (FEATURES.astype(np.uint8), "int64"),
        (FEATURES > 3, "int64"),
        (FEATURES > 3, "bool"),
    ],
)
def test_values_are_converted_to_the_dtype_of_the_model_within_their_kind(array: np.ndarray, dtype: str) -> None:
    aligned = align((array,), (spec(dtype),))["x"]
    assert aligned.dtype == dtype
    assert aligned.flags.c_contiguous
    np.testing.assert_array_equal(aligned, array)


@pytest.mark.parametrize(
    ("array", "wanted", "message"),
    [
        (FEATURES[:, :2], spec(), r"input 'x' has shape \(12, 2\), the model takes \(n, 3\)"),
        (FEATURES[0], spec(), r"has shape \(3\), the model takes \(n, 3\)"),
        (FEATURES[:, :, None], spec(), r"has shape \(12, 3, 1\)"),
        (FEATURES.astype(np.uint8), spec(), "holds uint8, the model takes float32"),
        (FEATURES, spec("int64"), "holds float32, the model takes int64"),
        (FEATURES.astype(np.int64), spec("bool"), "holds int64, the model takes bool"),
        (FEATURES > 3, spec(), "holds bool, the model takes float32"),
    ],
)
def test_inputs_that_do_not_fit_the_model_are_refused(array: np.ndarray, wanted: TensorSpec, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        align((array,), (wanted,), where="data (test)")
    assert caught.value.where == "data (test)"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite_are_refused_with_the_item(value: float) -> None:
    array = FEATURES.copy()
    array[7, 1] = array[9, 0] = value
    with pytest.raises(DataError, match=r"not finite \(first in item 7 of a batch\)"):
        align((array,), (spec(),))


def test_a_missing_name_is_told_beside_those_that_are_there() -> None:
    with pytest.raises(DataError, match="has no input 'ids'") as caught:
        align({"tokens": FEATURES, "mask": FEATURES}, (spec(name="ids"),))
    assert "tokens, mask" in caught.value.hint


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_inputs_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"has {count} inputs, the model takes 2"):
        align((FEATURES,) * count, (spec(name="a"), spec(name="b")))


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array([[300, 1, 2]]), "uint8"),
        (np.array([[-1, 1, 2]]), "uint8"),
        (np.array([[2**40, 1, 2]]), "int32"),
        (np.array([[1e6, 1.0, 2.0]]), "float16"),
        (np.array([[1e300, 1.0, 2.0]]), "float32"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_values_beyond_the_dtype_of_the_model_are_refused(array: np.ndarray, dtype: str) -> None:
    with pytest.raises(DataError):
        align((array,), (spec(dtype),))


def artifact_taking(*shape: int | None) -> Artifact:
    return Artifact(Path(), "model.onnx", ("model.onnx",), "onnx", (spec("float32", *shape),), ())


def test_feeds_of_a_free_batch_have_the_size_asked_for() -> None:
    part = whole("test", source_of((FEATURES, LABELS)))
    found = [(feed["x"].shape, len(targets)) for feed, targets in feeds(part, artifact_taking(None, 3), 5)]
    assert found == [((5, 3), 5), ((5, 3), 5), ((2, 3), 2)]


def test_feeds_of_a_fixed_batch_are_full_and_their_targets_those_of_real_items() -> None:
    part = Split("test", source_of((FEATURES, LABELS)), np.arange(5))
    found = list(feeds(part, artifact_taking(4, 3), 100))
    assert [len(targets) for _, targets in found] == [4, 1]
    np.testing.assert_array_equal(found[0][0]["x"], FEATURES[:4])
    np.testing.assert_array_equal(found[1][0]["x"], FEATURES[[4, 4, 4, 4]])


def test_feeds_name_the_part_whose_data_do_not_fit() -> None:
    part = whole("test, validation third", source_of((FEATURES, LABELS)))
    with pytest.raises(DataError) as caught:
        list(feeds(part, artifact_taking(None, 4), 5))
    assert caught.value.where == "data (test, validation third)"


class Noisy:
    """Items with whatever the global generators give."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index >= len(self):
            raise IndexError
        return np.array([random.random(), np.random.random(), float(torch.rand(()))]), index


def test_an_item_of_random_transforms_is_always_the_same_and_the_users_generators_stay() -> None:
    split = whole("train", as_source(Noisy()))
    assert split.hash == split.hash
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    (alone, _), (among, _) = split.source.read([7]), split.source.read([3, 7])
    np.testing.assert_array_equal(alone[0][0], among[0][1])
    assert len(np.unique(np.concatenate([inputs[0] for inputs, _ in split.batches(4)]))) == 30
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())


# targets of several heads

HEADS = {"kinds": LABELS, "boxes": FEATURES * 2.0}


class SeveralTargets(Dataset[Any]):
    """Items are (features, targets), with a dict or a tuple of targets."""

    def __init__(self, *, as_dict: bool) -> None:
        self.as_dict = as_dict

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> Any:
        targets = {name: array[index] for name, array in HEADS.items()}
        return FEATURES[index], targets if self.as_dict else tuple(targets.values())


@pytest.mark.parametrize(
    "data",
    [
        (FEATURES, HEADS),
        ({"values": FEATURES}, HEADS),
        SeveralTargets(as_dict=True),
        DataLoader(SeveralTargets(as_dict=True), batch_size=5),
        [{"values": FEATURES[i], "labels": {"kinds": LABELS[i], "boxes": 2.0 * FEATURES[i]}} for i in range(ITEMS)],
    ],
)
def test_targets_may_be_a_dict_of_arrays(data: Any) -> None:
    source = as_source(data)
    assert source is not None
    assert len(source) == ITEMS
    _, targets = source.read([3, 1])
    assert isinstance(targets, dict)
    assert targets["kinds"].tolist() == LABELS[[3, 1]].tolist()
    np.testing.assert_array_equal(targets["boxes"], 2.0 * FEATURES[[3, 1]])
    assert whole("a", source).hash != whole("a", ArraySource((FEATURES,), {**HEADS, "kinds": LABELS + 1})).hash


@pytest.mark.parametrize("data", [(FEATURES, tuple(HEADS.values())), SeveralTargets(as_dict=False)])
def test_targets_may_be_a_tuple_of_arrays(data: Any) -> None:
    source = as_source(data)
    assert source is not None
    for items in ([5], [3, 1], range(ITEMS)):
        _, targets = source.read(list(items))
        assert isinstance(targets, tuple)
        assert [len(array) for array in targets] == [len(items)] * 2


def test_targets_of_several_heads_have_a_row_per_item() -> None:
    with pytest.raises(DataError, match="has 12 inputs and 11 targets"):
        as_source((FEATURES, {**HEADS, "boxes": FEATURES[1:]}))


def test_two_items_that_are_dicts_or_pairs_stay_items() -> None:
    as_dicts = as_source([{"values": FEATURES[i], "label": i} for i in range(2)])
    as_pairs = as_source([(FEATURES[i], i) for i in range(2)])
    assert as_dicts is not None
    assert as_pairs is not None
    for source in (as_dicts, as_pairs):
        assert len(source) == 2
        assert np.asarray(source.read([0, 1])[1]).tolist() == [0, 1]
