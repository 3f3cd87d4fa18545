"""Weights as whole numbers of one byte; those in float are rounded to such with a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from autocompress.packing.layer_weights import LayerWeight
from autocompress.runtimes.onnx_file import is_in_float

LARGEST = 127
Whole = Mapping[str, NDArray[np.int64]]


def as_whole_numbers(model: onnx.ModelProto, layers: list[LayerWeight]) -> tuple[list[LayerWeight], Whole]:
    """The layers whose weights may be changed, and their whole numbers less the zero point, by name.

    In a file without whole numbers each row of a weight gets a scale of its own, and the model is changed so that the
    weight is computed from a tensor of whole numbers of its name. In other files weights in float were left so on
    purpose, as are those of nodes that are marked, and stay.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    mixed = any(layer.is_whole for layer in layers)
    chosen, values = [], {}
    for layer in layers:
        array = numpy_helper.to_array(tensors[layer.tensor])
        if layer.is_whole:
            values[layer.tensor] = array.astype(np.int64) - layer.zero
            chosen.append(layer)
        elif not mixed and not is_in_float(layer.node) and np.isfinite(array).all():
            scaled = _scaled(layer, array)
            values[layer.tensor] = np.rint(array / scaled.scales()).astype(np.int64)
            stored = numpy_helper.from_array(values[layer.tensor].astype(np.int8), layer.tensor)
            tensors[layer.tensor].CopyFrom(stored)
            chosen.append(_with_scale(model, scaled, array.dtype))
    return chosen, values


def _scaled(layer: LayerWeight, array: NDArray[np.floating]) -> LayerWeight:
    """The layer with the scales that reach the largest value of each row."""
    others = tuple(axis for axis in range(array.ndim) if axis not in layer.axes_of_rows)
    reach = np.abs(array.astype(np.float64)).max(axis=others, keepdims=True)
    steps = (np.where(reach > 0, reach, 1.0) / LARGEST).astype(array.dtype).astype(np.float64)
    # halves have no steps as small as those of weights that are nearly zero
    return replace(layer, scale=np.where(steps > 0, steps, np.finfo(array.dtype).tiny))


def _with_scale(model: onnx.ModelProto, layer: LayerWeight, dtype: np.dtype) -> LayerWeight:
    """Compute the weight from whole numbers, which take its name; readers get the product with the scale."""
    graph, name = model.graph, layer.tensor
    product, scale = f"{name}_scaled", f"{name}_scale"
    for node in graph.node:
        for place, given in enumerate(node.input):
            if given == name:
                node.input[place] = product
    assert layer.scale is not None
    graph.initializer.append(numpy_helper.from_array(layer.scale.astype(dtype), scale))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Cast", [name], [f"{name}_cast"], to=kind),
        helper.make_node("Mul", [f"{name}_cast", scale], [product]),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    return layer
