"""The shapes that a file is timed at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.runtime import Example
from autocompress.data.example_inputs import example_for
from autocompress.data.input_shapes import timed_example
from autocompress.errors import FreeDimensionError, ModelError, UsageError

IDS = TensorSpec("ids", "int64", (None, None), ("batch", "sequence"))
MASK = TensorSpec("mask", "int64", (None, None), ("batch", "sequence"))
IMAGE = TensorSpec("image", "float32", (None, 3, None, None), ("batch", "", "", ""))


def file_of(*inputs: TensorSpec) -> Artifact:
    return Artifact(Path("folder"), "model.onnx", ("model.onnx",), "onnx", inputs, ())


def timed(artifact: Artifact, *asked: TensorSpec, data: Example | None = None, batch: int = 1) -> dict[str, np.ndarray]:
    example = timed_example(artifact, asked, data, batch)
    assert example is not None
    return example.arrays


def shape(name: str, *sizes: int) -> TensorSpec:
    return TensorSpec(name, "", sizes)


def test_dimensions_of_one_name_have_one_size() -> None:
    arrays = timed(file_of(IDS, MASK), shape("ids", 1, 5), batch=2)
    assert {name: array.shape for name, array in arrays.items()} == {"ids": (2, 5), "mask": (2, 5)}
    assert all((array == 1).all() and array.dtype == np.int64 for array in arrays.values())


def test_what_has_no_name_goes_by_its_place() -> None:
    arrays = timed(file_of(IDS, IMAGE), shape("input", 1, 5), shape("input_1", 1, 3, 8, 9))
    assert {name: array.shape for name, array in arrays.items()} == {"ids": (1, 5), "image": (1, 3, 8, 9)}
    with pytest.raises(UsageError, match="input_2"):
        timed(file_of(IDS, IMAGE), shape("input_2", 1, 5), shape("ids", 1, 5), shape("input_2", 1))


def test_the_input_that_lacks_its_shape_is_the_one_that_is_named() -> None:
    with pytest.raises(FreeDimensionError, match="input image has free dimensions"):
        timed(file_of(IDS, MASK, IMAGE), shape("ids", 1, 5))


def test_values_are_those_of_the_data_where_these_have_the_shape() -> None:
    ids = np.arange(12).reshape(2, 6)
    data = Example({"ids": ids, "mask": ids})
    own = timed(file_of(IDS, MASK), shape("ids", 1, 6), data=data, batch=2)
    assert (own["ids"] == ids).all()
    assert (own["mask"] == ids).all()
    other = timed(file_of(IDS, MASK), shape("ids", 1, 7), data=data)
    assert {name: array.shape for name, array in other.items()} == {"ids": (1, 7), "mask": (1, 7)}
    image = np.zeros((1, 3, 4, 4), dtype=np.float32)
    mixed = timed(file_of(IDS, IMAGE), shape("ids", 1, 7), data=Example({"ids": ids, "image": image}))
    assert mixed["image"].shape == (1, 3, 4, 4)


def test_a_file_without_free_dimensions_needs_no_example() -> None:
    fixed = file_of(TensorSpec("input", "float32", (None, 8)))
    assert timed_example(fixed, (), None, 4) is None
    example = timed_example(fixed, (), None, 4, baseline=file_of(TensorSpec("input", "float32", (None, None))))
    assert example is not None
    assert example.arrays["input"].shape == (4, 8)


def test_a_single_number_has_no_batch() -> None:
    arrays = timed(file_of(IDS, TensorSpec("scale", "float32", ())), shape("ids", 1, 5), batch=3)
    assert Example(arrays).with_batch(2).arrays["scale"].shape == ()


def test_an_open_dtype_that_the_model_does_not_take_is_an_error_that_says_what_to_state() -> None:
    class Refusing(torch.nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            raise ValueError("neither")

    with pytest.raises(ModelError, match="neither") as caught:
        example_for(Refusing(), None, None, [shape("ids", 1, 5)])
    assert "int64" in caught.value.hint
