"""Facts about an ONNX graph, from its operators and the shapes of one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch

from autocompress.analysis.inspection import WORK, family_of
from autocompress.analysis.patterns import convolution_shares, pointwise_share, quantizable_share
from autocompress.analysis.weights import with_distributions
from autocompress.core.facts import Facts, Kind, LayerFact
from autocompress.core.source import Array
from autocompress.runtimes.external_weights import values_of
from autocompress.runtimes.onnx_layers import GraphLayer, layers_of, sizes_of
from autocompress.runtimes.onnx_shapes import shapes_of

KINDS: Mapping[str, Kind] = {
    "Conv": Kind.CONVOLUTION, "ConvTranspose": Kind.CONVOLUTION, "Gemm": Kind.LINEAR, "MatMul": Kind.LINEAR,
    "FusedMatMul": Kind.LINEAR, "LSTM": Kind.RECURRENT, "GRU": Kind.RECURRENT, "RNN": Kind.RECURRENT,
    "Attention": Kind.ATTENTION, "Gather": Kind.EMBEDDING, "BatchNormalization": Kind.NORM,
    "LayerNormalization": Kind.NORM, "SkipLayerNormalization": Kind.NORM, "GroupNormalization": Kind.NORM,
    "InstanceNormalization": Kind.NORM, "RMSNormalization": Kind.NORM, "SimplifiedLayerNormalization": Kind.NORM,
}  # fmt: skip
# what PyTorch calls the layers and activations of these operators, by which microbenchmarks are built
TYPES: Mapping[str, str] = {"Gemm": "Linear", "MatMul": "Linear", "FusedMatMul": "Linear", "Gather": "Embedding"}
ACTIVATIONS: Mapping[str, str] = {
    "Relu": "ReLU", "Clip": "ReLU6", "LeakyRelu": "LeakyReLU", "Elu": "ELU", "Gelu": "GELU", "Swish": "SiLU",
    "Mish": "Mish", "HardSwish": "Hardswish", "HardSigmoid": "Hardsigmoid", "Sigmoid": "Sigmoid", "Tanh": "Tanh",
}  # fmt: skip
PRODUCTS = ("MatMul", "FusedMatMul")
# operators that attention weights pass through on their way to the product with the values
AFTER_SOFTMAX = ("Cast", "Dropout", "Where", "Identity", "Reshape", "Transpose", "Mul")
FUSED_ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")


@dataclass(frozen=True, eq=False)
class _Graph:
    """A graph with its layers and the shapes of its values for a batch of `batch` items."""

    model: onnx.ModelProto
    layers: Sequence[GraphLayer]
    shapes: Mapping[str, tuple[int, ...]]
    batch: int


def inspect_graph(model: onnx.ModelProto, feed: Mapping[str, Array], batch: int) -> Facts:
    """Facts about a graph: layers with shapes, parameters and MACs, shares of work, family, weights.

    `feed` are inputs of `batch` items. Layers are the nodes that compute with stored floating tensors, products of
    activations are counted beside them; what lies inside branches and loop bodies counts as parameters alone.

    Raises:
        ModelError: when the graph cannot be run on the feed.
    """
    layers = layers_of(model.graph)
    products = [node for node in model.graph.node if node.op_type in (*PRODUCTS, *FUSED_ATTENTION)]
    wanted = [name for node in (*(one.node for one in layers), *products) for name in (node.input[0], node.output[0])]
    wanted += [name for node in products for name in node.input[1:2]]
    graph = _Graph(model, layers, shapes_of(model, feed, wanted), batch)
    arrays = {tensor.name: values_of(tensor) for tensor, size in sizes_of(model.graph) if size > 1}
    found = _layer_facts(graph, arrays)
    attention = _activation_products(graph)
    work = {kind: float(sum(layer.macs for layer in found.values() if layer.kind is kind)) for kind in WORK}
    work[Kind.ATTENTION] += attention
    total = sum(work.values())
    shares = {kind: value / total if total else 0.0 for kind, value in work.items()}
    facts = list(found.values())
    attending = _attending(model.graph)
    family, evidence = family_of(shares, pointwise_share(facts, total), attending)
    parameters = sum(array.size for array in arrays.values())
    made = Facts(
        family,
        evidence,
        parameters,
        sum(int(np.count_nonzero(array)) for array in arrays.values()),
        int(total),
        attention,
        shares,
        tuple(facts),
        convolution_shares(facts),
        attending,
        (),
        quantizable_share(facts, parameters),
        max((_product(layer.output_shape) for layer in facts), default=0),
        activations=_activations(model.graph),
        is_file=True,
    )
    return with_distributions(made, _matrices(graph, arrays, found))


def _layer_facts(graph: _Graph, arrays: Mapping[str, Array]) -> dict[str, LayerFact]:
    """The layers by name; what only adds to a layer, such as its bias, counts as its parameters."""
    found: dict[str, LayerFact] = {}
    seen: set[str] = set()
    for layer in graph.layers:
        own = [name for name in layer.weights if name in arrays and name not in seen]
        seen.update(own)
        parameters = sum(arrays[name].size for name in own)
        kind = _kind(layer, arrays)
        if kind is Kind.OTHER and layer.name in found:
            found[layer.name] = replace(found[layer.name], parameters=found[layer.name].parameters + parameters)
            continue
        name = layer.name
        number = 1
        while name in found:
            name, number = f"{layer.name}.{number}", number + 1
        entering, leaving = graph.shapes.get(layer.node.input[0], ()), graph.shapes.get(layer.node.output[0], ())
        weight = _main_weight(layer, arrays)
        found[name] = LayerFact(
            name,
            _type(layer, weight),
            kind,
            parameters,
            _macs(layer, kind, weight, entering, leaving, arrays) // graph.batch,
            _per_item(layer, kind, entering),
            _per_item(layer, kind, leaving),
            _detail(layer, kind, weight),
        )
    return found


def _kind(layer: GraphLayer, arrays: Mapping[str, Array]) -> Kind:
    kind = KINDS.get(layer.node.op_type, Kind.OTHER)
    matrix = any(arrays[name].ndim > 1 for name in layer.weights if name in arrays)
    return kind if matrix or kind is Kind.NORM else Kind.OTHER


def _type(layer: GraphLayer, weight: Array | None) -> str:
    operator = layer.node.op_type
    if operator in ("Conv", "ConvTranspose") and weight is not None:
        return f"{operator}{weight.ndim - 2}d"
    return TYPES.get(operator, operator)


def _main_weight(layer: GraphLayer, arrays: Mapping[str, Array]) -> Array | None:
    matrices = [arrays[name] for name in layer.weights if name in arrays and arrays[name].ndim > 1]
    return max(matrices, key=lambda array: array.size, default=None)


def _macs(
    layer: GraphLayer,
    kind: Kind,
    weight: Array | None,
    entering: tuple[int, ...],
    leaving: tuple[int, ...],
    arrays: Mapping[str, Array],
) -> int:
    """MACs of all items of the batch."""
    if weight is None or not leaving:
        return 0
    if kind is Kind.CONVOLUTION:
        places = entering if layer.node.op_type == "ConvTranspose" else leaving
        return places[0] * _product(places[2:]) * weight.size
    if kind is Kind.LINEAR:
        return _product(leaving) * _contracted(layer, weight)
    if kind is Kind.RECURRENT:
        size = sum(arrays[name].size for name in layer.weights if name in arrays and arrays[name].ndim > 2)
        return _product(entering[:2]) * size
    if kind is Kind.ATTENTION:
        return _product(entering[:-1]) * weight.size
    return 0


def _contracted(layer: GraphLayer, weight: Array) -> int:
    """How many products are summed in each value of a linear layer."""
    if layer.node.op_type == "Gemm":
        return int(weight.shape[1] if _attribute(layer.node, "transB", 0) else weight.shape[0])
    return int(weight.shape[-2])


def _per_item(layer: GraphLayer, kind: Kind, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without the batch, which is the second axis of recurrent layers."""
    if kind is Kind.RECURRENT and not _attribute(layer.node, "layout", 0) and len(shape) >= 3:
        return (shape[0], *shape[-1:])
    return shape[1:]


def _detail(layer: GraphLayer, kind: Kind, weight: Array | None) -> dict[str, int]:
    if weight is None:
        return {}
    node = layer.node
    if kind is Kind.CONVOLUTION:
        groups = int(_attribute(node, "group", 1))
        one, other = weight.shape[0], weight.shape[1] * groups
        transposed = node.op_type == "ConvTranspose"
        strides = _attribute(node, "strides", [1])
        return {
            "in": int(one if transposed else other),
            "out": int(other if transposed else one),
            "kernel": int(weight.shape[2]),
            "stride": int(strides[0]),
            "groups": groups,
        }
    if kind is Kind.LINEAR:
        inside = _contracted(layer, weight)
        return {"in": inside, "out": int(weight.size // _product(weight.shape[:-2]) // inside)}
    if kind is Kind.RECURRENT:
        # W is (directions, gates x states, inputs)
        return {"in": int(weight.shape[-1]), "out": int(_attribute(node, "hidden_size", 0)), "layers": 1}
    return {}


def _attribute(node: onnx.NodeProto, name: str, otherwise: Any) -> Any:
    found = next((one for one in node.attribute if one.name == name), None)
    return otherwise if found is None else onnx.helper.get_attribute_value(found)


def _activation_products(graph: _Graph) -> int:
    """MACs per item of products between activations, which no layer holds weights for."""
    weighted = {layer.place for layer in graph.layers}
    macs = 0
    for place, node in enumerate(graph.model.graph.node):
        first = graph.shapes.get(node.input[0] if node.input else "", ())
        last = graph.shapes.get(node.output[0] if node.output else "", ())
        if node.op_type in PRODUCTS and place not in weighted and first and last:
            macs += _product(last) * first[-1]
        elif node.op_type in FUSED_ATTENTION[1:] and len(node.input) > 1 and first:
            # scores of each query with all keys, and the values weighted by them
            keys = graph.shapes.get(node.input[1], first)
            macs += 2 * _product(first) * keys[-2]
    return macs // graph.batch


def _attending(graph: onnx.GraphProto) -> dict[str, str]:
    """Nodes that compute attention, by name, with how: one operator, or products around a softmax."""
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    found = {}
    for place, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{place}"
        if node.op_type in FUSED_ATTENTION:
            found[name] = f"operator {node.op_type}"
        elif node.op_type in PRODUCTS and not stored.intersection(node.input) and _softmaxed(node.input[0], makers):
            found[name] = "products around a softmax"
    return found


def _softmaxed(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    for _ in range(8):
        node = makers.get(name)
        if node is None or node.op_type == "Softmax":
            return node is not None
        if node.op_type not in AFTER_SOFTMAX:
            return False
        # the values of a Where come after its condition
        name = next((one for one in reversed(node.input) if one in makers), "")
    return False


def _activations(graph: onnx.GraphProto) -> dict[str, int]:
    return dict(Counter(ACTIVATIONS[node.op_type] for node in graph.node if node.op_type in ACTIVATIONS))


def _matrices(graph: _Graph, arrays: Mapping[str, Array], found: Mapping[str, LayerFact]) -> dict[str, torch.Tensor]:
    """The largest weight of each layer with work, output channels first."""
    tensors = {}
    for layer in graph.layers:
        weight = _main_weight(layer, arrays)
        fact = found.get(layer.name)
        if weight is None or fact is None or fact.kind not in WORK or layer.name in tensors:
            continue
        if fact.kind is Kind.RECURRENT:
            weight = weight.reshape(-1, weight.shape[-1])
        elif fact.kind is Kind.LINEAR and not _attribute(layer.node, "transB", 0):
            weight = weight.reshape(-1, weight.shape[-1]).T
        # those in a file are writable, and only mapped into memory
        taken = np.asarray(weight, np.float32) if weight.flags.writeable else np.array(weight, np.float32)
        tensors[layer.name] = torch.from_numpy(taken)
    return tensors


def _product(sizes: Iterable[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
