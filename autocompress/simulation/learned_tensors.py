"""Which stored floating tensors of a graph are weights or biases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from autocompress.runtimes.onnx_layers import FLOATS

# inputs that are weights or biases whatever their size
ALWAYS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LSTM": (1, 2, 3),
    "DynamicQuantizeLSTM": (3,),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "PRelu": (1,),
}
# inputs that are, where they hold more than one value: a single one is a constant, such as a factor of attention
LARGE: Mapping[str, tuple[int, ...]] = {"Add": (0, 1), "Sub": (0, 1), "Mul": (0, 1), "Gather": (0,)}


def learned_tensors(graph: onnx.GraphProto) -> set[str]:
    """Names of the stored floating tensors that are weights or biases; statistics are neither."""
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer if tensor.data_type in FLOATS}
    found: set[str] = set()
    for node in graph.node:
        always, large = ALWAYS.get(node.op_type, ()), LARGE.get(node.op_type, ())
        for number, name in enumerate(node.input):
            if name in sizes and (number in always or (number in large and sizes[name] > 1)):
                found.add(name)
    return found
