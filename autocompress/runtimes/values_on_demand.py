"""Lets libraries that keep whole models in memory work on graphs whose weights stay in their file.

They get the graph without the weights' values, and each value when they read it. What reads values in another way than
by `onnx.numpy_helper.to_array` finds none and fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import quant_utils

from autocompress.core.source import Array
from autocompress.runtimes.external_weights import has_references, is_outside, refer_to, values_of

# number of values that are quantized at a time, since each needs about 16 bytes meanwhile
BLOCK = 1 << 24


@contextmanager
def values_on_demand(model: onnx.ModelProto) -> Iterator[None]:
    """Weights that the model refers to are read one by one where onnxruntime's tools ask for them.

    A model that holds its weights is left as it is.
    """
    if not has_references(model):
        yield
        return
    outside = [tensor for tensor in model.graph.initializer if is_outside(tensor)]
    for tensor in outside:
        tensor.data_location = TensorProto.DEFAULT
    reading: Any = numpy_helper
    quantizing: Any = quant_utils
    read, quantize = reading.to_array, quantizing.quantize_nparray
    reading.to_array = _reading(read)
    quantizing.quantize_nparray = _in_blocks(quantize)
    try:
        yield
    finally:
        reading.to_array, quantizing.quantize_nparray = read, quantize
        for tensor in outside:
            tensor.data_location = TensorProto.EXTERNAL


def with_references(path: Path) -> onnx.ModelProto:
    """The model in a file that was written in a block of `values_on_demand`.

    It refers to that file's own weights, and to those that were left as they are.
    """
    model = onnx.load(path, format="protobuf", load_external_data=False)
    left = [tensor for tensor in model.graph.initializer if _is_without_values(tensor)]
    refer_to(model, path.parent)
    for tensor in left:
        tensor.data_location = TensorProto.EXTERNAL
    return model


def _is_without_values(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) and not is_outside(tensor)


def _reading(read: Callable[..., Array]) -> Callable[..., Array]:
    def to_array(tensor: TensorProto, base_dir: str = "") -> Array:
        # numpy copies the whole of an array that is not in order for each row that is taken from it
        return np.ascontiguousarray(values_of(tensor)) if _is_without_values(tensor) else read(tensor, base_dir)

    return to_array


def _in_blocks(quantize: Callable[..., Array]) -> Callable[..., Array]:
    """The same function of each value, of some values after the others."""

    def quantize_nparray(
        type_: int, values: Array, scale: Array, zero_point: Array, low: Any = None, high: Any = None
    ) -> Array:
        if values.ndim != 1 or values.size <= BLOCK or np.size(scale) > 1:
            return quantize(type_, values, scale, zero_point, low, high)
        parts = (values[start : start + BLOCK] for start in range(0, values.size, BLOCK))
        return np.concatenate([quantize(type_, part, scale, zero_point, low, high) for part in parts])

    return quantize_nparray
