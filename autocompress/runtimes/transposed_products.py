"""Products whose weight is stored transposed, as PyTorch stores that of a linear layer.

onnxruntime's quantizer turns such weights in place and assumes that nothing else reads them (1.31): a layer that is
used twice, or whose weight is an embedding too, computes something else afterwards.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from autocompress.runtimes.external_weights import TRANSPOSED, is_outside, values_of
from autocompress.runtimes.onnx_file import attributes_of


def turn_weights(model: onnx.ModelProto) -> None:
    """Give products a weight of their own, the other way round, where the quantizer must not turn it.

    That is where others read it too, and where it lies in a file, which would be read into memory.
    """
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    readers = Counter(name for node in graph.node for name in set(node.input))
    readers.update(value.name for value in graph.output)
    turned: dict[str, str] = {}
    for node in graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        if name not in stored or not _is_turned_by_quantizer(node):
            continue
        if readers[name] < 2 and not is_outside(stored[name]):
            continue
        if name not in turned:
            turned[name] = f"{name}.{TRANSPOSED}"
            graph.initializer.append(_transposed(stored[name], turned[name]))
        node.input[1] = turned[name]
        next(attribute for attribute in node.attribute if attribute.name == "transB").i = 0
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name in turned.keys() - read:
            del graph.initializer[place]


def _is_turned_by_quantizer(node: onnx.NodeProto) -> bool:
    if node.op_type != "Gemm":
        return False
    given = attributes_of(node)
    plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
    return plain and bool(given.get("transB", 0))


def _transposed(tensor: TensorProto, name: str) -> TensorProto:
    if not is_outside(tensor):
        return numpy_helper.from_array(np.ascontiguousarray(values_of(tensor).T), name)
    made = TensorProto()
    made.CopyFrom(tensor)
    made.name = name
    made.dims[:] = tensor.dims[::-1]
    made.external_data.add(key=TRANSPOSED, value="1")
    return made
