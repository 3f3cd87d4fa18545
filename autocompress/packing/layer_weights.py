"""Stored weights of a file's layers as matrices: a row for each output, a column for each input of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes.float_nodes import DEQUANTIZE
from autocompress.runtimes.onnx_file import attributes_of, names_in_subgraphs

WHOLE = (TensorProto.INT8, TensorProto.UINT8)
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
CONVOLUTIONS = ("Conv", "ConvInteger", "ConvTranspose")
PRODUCTS = ("MatMul", "MatMulInteger")
RECURRENT = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
# fewer values are not worth a palette of their own
LEAST_VALUES = 256


@dataclass(frozen=True, eq=False)
class LayerWeight:
    """A stored weight, the node that computes with it, and where the scale of its whole numbers is stored.

    `input` names what its columns are multiplied with, None where nothing is or where it is not known. `is_whole` says
    that whole numbers are stored: `zero` is the one that stands for zero, `scale` the value of a step in a shape that
    broadcasts to the tensor's, None where it is not known.
    """

    tensor: str
    node: onnx.NodeProto
    shape: tuple[int, ...]
    input: str | None
    zero: int = 0
    scale: NDArray[np.float64] | None = None
    is_whole: bool = True

    @property
    def size(self) -> int:
        """The number of values."""
        return int(np.prod(self.shape))

    @property
    def groups(self) -> int:
        """Groups of rows that read columns of their own."""
        return int(attributes_of(self.node).get("group", 1)) if self.node.op_type in CONVOLUTIONS else 1

    @property
    def has_matrix(self) -> bool:
        """True where each column is multiplied with one value of the input, so that errors can be passed on."""
        kind, rank = self.node.op_type, len(self.shape)
        if kind in ("Conv", "ConvInteger"):
            return rank in (3, 4) and attributes_of(self.node).get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        return self.input is not None and rank == 2 and kind in (*PRODUCTS, "Gemm")

    @property
    def is_turned(self) -> bool:
        """True where the first axis is that of the columns."""
        if self.node.op_type == "Gemm":
            return not attributes_of(self.node).get("transB", 0)
        return self.node.op_type in PRODUCTS

    def matrix(self, values: Array) -> Array:
        """Values of the tensor's shape as `(groups, rows, columns)`; for tensors that have a matrix."""
        if self.is_turned:
            return values.T[None]
        return values.reshape(self.groups, self.shape[0] // self.groups, -1)

    def tensor_of(self, matrix: Array) -> Array:
        """What `matrix` made, in the tensor's shape again."""
        return matrix[0].T if self.is_turned else matrix.reshape(self.shape)

    @property
    def axes_of_rows(self) -> tuple[int, ...]:
        """The axes whose places have scales of their own where a weight in float gets whole numbers."""
        if self.node.op_type in RECURRENT:
            return (0, 1)
        if self.node.op_type == "ConvTranspose":
            return (1,)
        return (len(self.shape) - 1,) if self.is_turned or self.node.op_type == "Gather" else (0,)

    def scales(self) -> NDArray[np.float64]:
        """The value of a step for each value, broadcast to the tensor's shape; ones where none is known."""
        return np.broadcast_to(np.ones(1) if self.scale is None else self.scale, self.shape)


def layer_weights(graph: onnx.GraphProto) -> list[LayerWeight]:
    """The weights of the graph's layers that may be stored in another way, in the order of the graph.

    Tensors that branches, loop bodies or the caller read are left out, and so are those of fewer than `LEAST_VALUES`.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in (*WHOLE, *FLOATS)}
    fixed = names_in_subgraphs(graph) | {value.name for value in (*graph.input, *graph.output)}
    found: dict[str, LayerWeight] = {}
    for layer in _read(graph, _Tensors(graph)):
        if layer.tensor in stored and layer.tensor not in fixed and layer.size >= LEAST_VALUES:
            found.setdefault(layer.tensor, layer)
    return list(found.values())


class _Tensors:
    """The makers, readers and stored values of a graph's tensors."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def values(self, name: str) -> Array | None:
        """The values of a stored tensor; None for others."""
        return numpy_helper.to_array(self.stored[name]) if name in self.stored else None

    def zero(self, names: Sequence[str]) -> int | None:
        """The only zero point, 0 where none is named; None where there are several."""
        values = self.values(names[0]) if names and names[0] else np.zeros(1, dtype=np.int64)
        return int(values.reshape(-1)[0]) if values is not None and len(np.unique(values)) == 1 else None

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        return tuple(self.stored[name].dims)


def _read(graph: onnx.GraphProto, tensors: _Tensors) -> Iterator[LayerWeight]:
    for node in graph.node:
        kind = node.op_type
        if kind in ("Conv", "ConvTranspose", "MatMul", "Gemm") and len(node.input) > 1:
            yield from _plain(node, 1, node.input[0], tensors)
        elif kind == "Gather":
            yield from _plain(node, 0, None, tensors)
        elif kind in ("MatMulInteger", "ConvInteger") and node.input[1] in tensors.stored:
            yield from _whole(node, tensors)
        elif kind in RECURRENT:
            yield from _recurrent(node, tensors)


def _plain(node: onnx.NodeProto, slot: int, given: str | None, tensors: _Tensors) -> Iterator[LayerWeight]:
    """The weight of a node that computes in float, stored as it is or behind DequantizeLinear."""
    name = node.input[slot]
    maker = tensors.makers.get(name)
    if name in tensors.stored:
        if tensors.stored[name].data_type in FLOATS:
            yield LayerWeight(name, node, tensors.shape(name), given, is_whole=False)
        else:
            yield from _table(node, tensors)
    elif maker is not None and maker.op_type == DEQUANTIZE and maker.input[0] in tensors.stored:
        scale, zero = tensors.values(maker.input[1]), tensors.zero(maker.input[2:])
        axis = int(attributes_of(maker).get("axis", 1))
        if scale is not None and zero is not None and not attributes_of(maker).get("block_size", 0):
            shape = tensors.shape(maker.input[0])
            yield LayerWeight(maker.input[0], node, shape, given, zero, _along(scale, axis, len(shape)))


def _table(node: onnx.NodeProto, tensors: _Tensors) -> Iterator[LayerWeight]:
    """A table of whole numbers whose values are dequantized once they are looked up."""
    behind = [one for one in tensors.readers.get(node.output[0], []) if one.op_type == DEQUANTIZE]
    if behind:
        scale, zero = tensors.values(behind[0].input[1]), tensors.zero(behind[0].input[2:])
        if scale is not None and scale.size == 1 and zero is not None:
            shape = tensors.shape(node.input[0])
            yield LayerWeight(node.input[0], node, shape, None, zero, _along(scale, 0, len(shape)))


def _whole(node: onnx.NodeProto, tensors: _Tensors) -> Iterator[LayerWeight]:
    """The weight of a product of whole numbers, with the scale that multiplies the product behind it."""
    zero, maker = tensors.zero(node.input[3:]), tensors.makers.get(node.input[0])
    if zero is None:
        return
    given = maker.input[0] if maker is not None and maker.op_type == "DynamicQuantizeLinear" else None
    shape, scale = tensors.shape(node.input[1]), _scale_behind(node, tensors)
    axis = len(shape) - 1 if node.op_type == "MatMulInteger" else 0
    steps = None if scale is None else _along(scale, axis, len(shape))
    yield LayerWeight(node.input[1], node, shape, given, zero, steps)


def _along(scale: Array, axis: int, rank: int) -> NDArray[np.float64]:
    """A scale, or those of the places along an axis, in a shape that broadcasts to this rank."""
    sizes = [-1 if place == axis % rank else 1 for place in range(rank)]
    return scale.astype(np.float64).reshape(sizes if scale.size > 1 else [1] * rank)


def _scale_behind(node: onnx.NodeProto, tensors: _Tensors) -> Array | None:
    """The stored factor of the scale that a Mul behind a product multiplies by; None where there is none."""
    for kind in ("Cast", "Mul"):
        behind = tensors.readers.get(node.output[0], [])
        if len(behind) != 1 or behind[0].op_type != kind:
            return None
        before, node = node, behind[0]
    others = [name for name in node.input if name != before.output[0]]
    maker = tensors.makers.get(others[0]) if others else None
    factors = [tensors.values(name) for name in maker.input] if maker is not None and maker.op_type == "Mul" else []
    return next((one for one in factors if one is not None), None)


def _recurrent(node: onnx.NodeProto, tensors: _Tensors) -> Iterator[LayerWeight]:
    """The matrices of a recurrent layer for its input and for its state."""
    for slot, scale_slot in ((1, 8), (2, 10)):
        name = node.input[slot]
        if name not in tensors.stored:
            continue
        shape = tensors.shape(name)
        if node.op_type != "DynamicQuantizeLSTM":
            yield LayerWeight(name, node, shape, None, is_whole=False)
            continue
        scale, zero = tensors.values(node.input[scale_slot]), tensors.zero(node.input[scale_slot + 1 : scale_slot + 2])
        if zero is not None and scale is not None:
            # of each direction, or of each gate's output in it
            steps = scale.astype(np.float64).reshape(len(scale), 1, -1)
            yield LayerWeight(name, node, shape, None, zero, steps)
