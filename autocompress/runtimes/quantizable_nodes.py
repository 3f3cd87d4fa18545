"""Nodes of an ONNX graph that a quantization acts on, and what is known of each from the file alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from autocompress.runtimes.node_names import layer_of
from autocompress.runtimes.onnx_file import is_in_float
from autocompress.runtimes.onnx_layers import FLOATS, layers_of

# operators that runtimes compute together with a convolution before them
FUSED = ("Add", "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish")
# operators of linear layers and embeddings, where they have stored weights
LINEAR_LAYERS = ("MatMul", "Gemm", "Gather")
# steps of eight bits, and the variance of rounding to whole steps
STEPS, ROUNDING = 255, 1 / 12


@dataclass(frozen=True)
class NodeFact:
    """A named node: its operator, the tensors it makes, the values in its stored weights.

    `fused` are tensors that operators behind it make, which runtimes compute together with it. `before` are the nearest
    nodes before it that were asked for. `noise` is the variance that rounding its weights to eight bits of one range
    adds, over their mean square; 0 without weights. It is only a guess at which nodes matter most.
    """

    name: str
    operator: str
    outputs: tuple[str, ...]
    fused: tuple[str, ...]
    before: tuple[str, ...]
    weights: int
    noise: float


def names_of_types(model: onnx.ModelProto, types: Collection[str], *, stored: bool) -> tuple[str, ...]:
    """Names of unmarked nodes of these types that compute in float; `stored`: with stored weights only."""
    graph = model.graph
    weighted = {layer.place for layer in layers_of(graph)}
    whole = _whole_numbers(model)
    return tuple(
        layer_of(node)
        for place, node in enumerate(graph.node)
        if node.op_type in types
        and layer_of(node)
        and not is_in_float(node)
        and not whole.intersection(node.output)
        and (place in weighted or not stored)
    )


def linear_places(graph: onnx.GraphProto) -> set[int]:
    """Indices of the linear layers and embeddings of a graph, and of nodes that turn their weights."""
    stored = {tensor.name for tensor in graph.initializer}
    turning = {
        place for place, node in enumerate(graph.node) if node.op_type == "Transpose" and node.input[0] in stored
    }
    return turning | {layer.place for layer in layers_of(graph) if layer.node.op_type in LINEAR_LAYERS}


def shared_tables(graph: onnx.GraphProto) -> set[str]:
    """Names of stored tensors that are looked up and read by other operators too.

    They need one scale, and the type of activations: onnxruntime's quantizer gives a lookup the scales of the other
    operator's channels, which do not fit what was looked up, and where the types differ the runtime dequantizes the
    whole table at each call (1.31).
    """
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type in FLOATS}
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    others = {name for node in graph.node for name in node.input if node.op_type != "Gather"}
    return stored & looked_up & others


def _whole_numbers(model: onnx.ModelProto) -> set[str]:
    """Tensors known to hold no floating numbers, such as shapes."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        return set()
    return {value.name for value in inferred.value_info if value.type.tensor_type.elem_type not in (0, *FLOATS)}


def node_facts(graph: onnx.GraphProto, names: Sequence[str]) -> list[NodeFact]:
    """The facts of the nodes with these names, in the order of the names."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    weights = {layer.place: [stored[name] for name in layer.weights] for layer in layers_of(graph)}
    edges = _Edges(graph, frozenset(names))
    found = {
        layer_of(node): _fact(node, weights.get(place, []), edges)
        for place, node in enumerate(graph.node)
        if layer_of(node) in names
    }
    return [found[name] for name in names]


class _Edges:
    """Who makes and who reads each tensor of a graph, as seen from nodes with certain names."""

    def __init__(self, graph: onnx.GraphProto, names: frozenset[str]) -> None:
        self._names = names
        self._makers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def fused(self, node: onnx.NodeProto) -> Iterator[str]:
        """The outputs of the sums and activations that alone read what the node makes."""
        while len(node.output) == 1 and len(own := self._readers.get(node.output[0], [])) == 1:
            (node,) = own
            if node.op_type not in FUSED:
                return
            yield from node.output

    def before(self, node: onnx.NodeProto) -> Sequence[str]:
        """The nearest named nodes before a node."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        waiting = list(node.input)
        while waiting:
            name = waiting.pop()
            maker = self._makers.get(name)
            if maker is None or name in seen:
                continue
            seen.add(name)
            if layer_of(maker) in self._names:
                found[layer_of(maker)] = None
            else:
                waiting += maker.input
        return list(found)


def _fact(node: onnx.NodeProto, weights: Sequence[TensorProto], edges: _Edges) -> NodeFact:
    arrays = [numpy_helper.to_array(tensor) for tensor in weights]
    # biases are kept in 32 bits
    matrices = [array for array in arrays if array.ndim > 1 and array.size]
    noises = [_noise(array.astype(np.float32, copy=False)) for array in matrices]
    return NodeFact(
        layer_of(node),
        node.op_type,
        tuple(node.output),
        tuple(edges.fused(node)),
        tuple(edges.before(node)),
        sum(array.size for array in matrices),
        max(noises, default=0.0),
    )


def _noise(array: np.ndarray) -> float:
    power = float(np.square(array).mean())
    step = 2 * float(np.abs(array).max()) / STEPS
    return ROUNDING * step * step / power if power > 0 else 0.0
