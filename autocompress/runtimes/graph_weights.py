"""Weights of an ONNX graph's linear layers, read and scaled by output and input channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes.onnx_file import names_in_subgraphs

# operators with a stored weight as their second input
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class LinearWeight:
    """The stored weight of a convolution or linear layer.

    `tensor` is its name, `place` the node's index in the graph. `transposed` weights lie in memory with their input
    channels first. Convolutions have `groups`, others one.
    """

    node: onnx.NodeProto
    place: int
    tensor: str
    groups: int = 1
    transposed: bool = False

    @property
    def channel_axis(self) -> int:
        """The axis of the channels in input and output: 1 for convolutions, the last one otherwise."""
        return 1 if self.node.op_type in ("Conv", "ConvTranspose") else -1

    def by_channel(self, values: Array) -> Array:
        """A view of the values by group, output channel, input channel, place in the kernel."""
        if self.transposed:
            inside = values.reshape(self.groups, values.shape[0] // self.groups, values.shape[1], -1)
            return inside.swapaxes(1, 2)
        return values.reshape(self.groups, values.shape[0] // self.groups, values.shape[1], -1)

    def output_ranges(self, values: Array) -> Array:
        """The largest absolute value of each output channel."""
        ranges: Array = np.abs(self.by_channel(values)).max(axis=(2, 3), initial=0.0)
        return ranges.reshape(-1)

    def input_ranges(self, values: Array) -> Array:
        """The largest absolute value of each input channel."""
        ranges: Array = np.abs(self.by_channel(values)).max(axis=(1, 3), initial=0.0)
        return ranges.reshape(-1)

    def scale_outputs(self, values: Array, factors: Array) -> None:
        """Multiply each output channel by its factor, in place."""
        view = self.by_channel(values)
        view *= factors.reshape(self.groups, -1, 1, 1)

    def scale_inputs(self, values: Array, factors: Array) -> None:
        """Multiply each input channel by its factor, in place."""
        view = self.by_channel(values)
        view *= factors.reshape(self.groups, 1, -1, 1)


def linear_weights(graph: onnx.GraphProto) -> Iterator[LinearWeight]:
    """The float32 weights of all convolutions and linear layers, in the order of the graph."""
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for place, node in enumerate(graph.node):
        if node.op_type not in LINEAR or len(node.input) < 2 or node.input[1] not in stored:
            continue
        given = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type in ("Conv", "ConvTranspose"):
            groups = given.get("group", 1)
            yield LinearWeight(node, place, node.input[1], groups, node.op_type == "ConvTranspose")
        elif len(stored[node.input[1]].dims) == 2 and not given.get("transA"):
            yield LinearWeight(node, place, node.input[1], 1, not given.get("transB"))


class StoredTensors:
    """The stored float tensors of a graph, changed in double precision and written back together."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._users = Counter(name for node in graph.node for name in node.input)
        # what branches, loop bodies or the caller read keeps its values
        self._users.update(names_in_subgraphs(graph) | {value.name for value in (*graph.input, *graph.output)})
        self._values: dict[str, Doubles] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors and self._tensors[name].data_type == TensorProto.FLOAT

    def users(self, name: str) -> int:
        """How many inputs of nodes the tensor is."""
        return self._users[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self._tensors[name].dims)

    def values(self, name: str) -> Doubles:
        """The tensor's values, to be changed in place."""
        if name not in self._values:
            self._values[name] = numpy_helper.to_array(self._tensors[name]).astype(np.float64)
        return self._values[name]

    def own(self, node: onnx.NodeProto, position: int, values: Doubles) -> None:
        """Give one input of a node these values; a tensor that other nodes use is left to them."""
        name = node.input[position]
        if self._users[name] > 1:
            self._users[name] -= 1
            name = self._unused_name(f"{name}.own")
            self._tensors[name] = self._graph.initializer.add()
            self._tensors[name].name = name
            self._users[name] = 1
            node.input[position] = name
        self._values[name] = values

    def write(self) -> None:
        """Put everything that was changed into the graph, as float32."""
        for name, values in self._values.items():
            self._tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    def _unused_name(self, wanted: str) -> str:
        # names without digits, as everywhere in these files
        while wanted in self._tensors or wanted in self._users:
            wanted += "'"
        return wanted


def constants(graph: onnx.GraphProto) -> Mapping[str, Array]:
    """The stored tensors of at most 16 values: axes, shapes, bounds."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if int(np.prod(tensor.dims, dtype=np.int64)) <= 16
    }
