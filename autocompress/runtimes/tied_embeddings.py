"""Shares one quantized table between an embedding and the output layer with tied weights.

Language models look words up in the table that they score them with (Press and Wolf, "Using the Output Embedding to
Improve Language Models", EACL 2017). Quantizers store it twice: the output layer's copy is transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autocompress.runtimes.external_weights import values_of

# suffixes that the quantizer adds to a weight's name for its values, its scales and its zero points
VALUES, SCALES, ZEROS = "_quantized", "_scale", "_zero_point"


def tied_tables(model: onnx.ModelProto) -> dict[str, str]:
    """Lookup tables, each with the weight of a product that holds the same values transposed."""
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    looked_up = {node.input[0] for node in graph.node if _looks_rows_up(node)} & stored.keys()
    multiplied = {node.input[1] for node in graph.node if node.op_type in ("MatMul", "Gemm")} & stored.keys()
    found = {}
    for table in sorted(looked_up):
        for weight in sorted(multiplied):
            if list(stored[table].dims) == list(stored[weight].dims)[::-1] and _is_transposed(
                stored[table], stored[weight]
            ):
                found[table] = weight
    return found


def share_tied_tables(model: onnx.ModelProto, tied: Mapping[str, str]) -> None:
    """Make quantized lookups read the quantized weight's values, so that only one copy is stored.

    The copy has the table's orientation. The runtime transposes it once for the product, when it loads the file. Rows
    have the scales of the weight's columns.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for table, weight in tied.items():
        names = (table + VALUES, weight + VALUES, weight + SCALES, weight + ZEROS)
        if not all(name in stored for name in names):
            continue
        old, values, scales, zeros = (stored[name] for name in names)
        per_row = values_of(scales).size > 1
        if per_row and np.any(values_of(zeros)):
            # zero points would need a second lookup for every word
            continue
        if not _look_up(graph, table, weight, per_row=per_row):
            continue
        old.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values_of(values).T), old.name))
        graph.node.insert(0, helper.make_node("Transpose", [old.name], [values.name], perm=[1, 0]))
        graph.initializer.remove(values)


def _look_up(graph: onnx.GraphProto, table: str, weight: str, *, per_row: bool) -> bool:
    """Look rows up with the weight's scales; False where something else reads the table or weight too."""
    lookups = [node for node in graph.node if table + VALUES in node.input]
    rows = {node.output[0]: node for node in lookups}
    readers = [node for node in graph.node if rows.keys() & set(node.input)]
    if not all(map(_looks_rows_up, lookups)) or {node.op_type for node in readers} != {"DequantizeLinear"}:
        return False
    for node in readers:
        lookup = rows[node.input[0]]
        if not per_row:
            node.input[1:] = [weight + SCALES, weight + ZEROS]
            continue
        place = list(graph.node).index(node)
        row, result = node.input[0], node.output[0]
        axis = numpy_helper.from_array(np.array([-1], dtype=np.int64), f"{result}_axis")
        graph.initializer.append(axis)
        steps = [
            helper.make_node("Cast", [row], [f"{row}_float"], to=TensorProto.FLOAT),
            helper.make_node("Gather", [weight + SCALES, lookup.input[1]], [f"{result}_flat"], axis=0),
            helper.make_node("Unsqueeze", [f"{result}_flat", axis.name], [f"{result}_by_row"]),
            helper.make_node("Mul", [f"{row}_float", f"{result}_by_row"], [result]),
        ]
        graph.node.remove(node)
        for step in reversed(steps):
            graph.node.insert(place, step)
    return True


def _looks_rows_up(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gather" and all(helper.get_attribute_value(axis) == 0 for axis in node.attribute)


def _is_transposed(table: TensorProto, weight: TensorProto) -> bool:
    return np.array_equal(values_of(table), values_of(weight).T)
