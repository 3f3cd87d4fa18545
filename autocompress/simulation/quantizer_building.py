"""Makes the quantizers of a graph's QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch

from autocompress.core.source import Array
from autocompress.runtimes.float_nodes import DEQUANTIZE, QUANTIZE
from autocompress.simulation.dynamic_weights import LookedUp
from autocompress.simulation.fake_quantization import (
    ActivationQuantizer,
    BiasQuantizer,
    FakeQuantizer,
    Levels,
    StoredQuantizer,
)
from autocompress.simulation.graph_nodes import GraphNodes

# operators that whole numbers may pass through between the two nodes of a pair
MOVING = ("Reshape", "Transpose", "MaxPool", "Squeeze", "Unsqueeze", "Flatten")


def quantizers_of(graph: GraphNodes, arrays: Mapping[str, Array]) -> dict[int, FakeQuantizer]:
    """The quantizers by the indices of their nodes: one for a stored tensor, one for both nodes of a pair.

    Raises:
        TechniqueError: when scales are computed in the graph or are one for each block, or a DequantizeLinear node
            does not give back what a QuantizeLinear node made.
    """
    found: dict[int, FakeQuantizer] = {}
    for place, node in enumerate(graph.nodes):
        if node.op_type == QUANTIZE:
            found[place] = ActivationQuantizer(*_numbers(graph, place, arrays))
        elif node.op_type == DEQUANTIZE and node.input[0] in arrays:
            stored = arrays[node.input[0]]
            kind = BiasQuantizer if stored.dtype == np.int32 else StoredQuantizer
            found[place] = kind(*_numbers(graph, place, arrays), stored)
        elif node.op_type == DEQUANTIZE and _is_looked_up(graph, node, arrays):
            found[place] = LookedUp(*_numbers(graph, place, arrays))
        elif node.op_type == DEQUANTIZE:
            found[place] = _pair(graph, place, arrays, found)
    for node in graph.nodes:
        given = [quantizer_behind(graph, found, name) for name in node.input]
        bias = given[2] if len(given) > 2 else None
        if isinstance(bias, BiasQuantizer) and given[0] is not None and given[1] is not None:
            bias.follow(given[0], given[1])
    return found


def quantizer_behind(graph: GraphNodes, found: Mapping[int, FakeQuantizer], name: str) -> FakeQuantizer | None:
    """The quantizer of the DequantizeLinear node that gives a tensor; None where another node gives it."""
    place = graph.producer(name)
    return None if place is None or graph.nodes[place].op_type != DEQUANTIZE else found[place]


def _is_looked_up(graph: GraphNodes, node: onnx.NodeProto, arrays: Mapping[str, Array]) -> bool:
    """True where the whole numbers were looked up in a stored table."""
    maker = graph.producer(node.input[0])
    return maker is not None and graph.nodes[maker].op_type == "Gather" and graph.nodes[maker].input[0] in arrays


def _pair(
    graph: GraphNodes, place: int, arrays: Mapping[str, Array], found: Mapping[int, FakeQuantizer]
) -> FakeQuantizer:
    """The quantizer of the QuantizeLinear node whose whole numbers a node gives back."""
    maker = graph.producer(graph.nodes[place].input[0])
    while maker is not None and graph.nodes[maker].op_type in MOVING:
        maker = graph.producer(graph.nodes[maker].input[0])
    if maker is None or graph.nodes[maker].op_type != QUANTIZE:
        raise graph.error(place, "whole numbers that no QuantizeLinear made are not covered by the simulation.")
    scale, zero_point, _ = _numbers(graph, place, arrays)
    same = torch.equal(scale, found[maker].scale.detach()) and torch.equal(zero_point, found[maker].zero_point)
    if not same:
        raise graph.error(place, "has another scale than its QuantizeLinear, which the simulation does not cover.")
    return found[maker]


def _numbers(graph: GraphNodes, place: int, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, torch.Tensor, Levels]:
    """Scale, zero point and levels of a node."""
    node, call = graph.nodes[place], graph.calls[place]
    if node.input[1] not in arrays or call.get("block_size", 0):
        raise graph.error(place, "scales that are computed, or one for each block, are not covered by the simulation.")
    scale = arrays[node.input[1]]
    given = arrays.get(node.input[2]) if len(node.input) > 2 else None
    if given is not None:
        kind: np.dtype[Any] = given.dtype
    elif node.op_type == DEQUANTIZE and node.input[0] in arrays:
        kind = arrays[node.input[0]].dtype
    else:
        kind = onnx.helper.tensor_dtype_to_np_dtype(call.get("output_dtype", 0) or onnx.TensorProto.UINT8)
    zero_point = np.zeros(scale.shape) if given is None else given
    levels = Levels(*_bounds(kind), call.get("axis", 1) if scale.size > 1 else None)
    return torch.from_numpy(scale.astype(np.float32)), torch.from_numpy(zero_point.astype(np.float32)), levels


def _bounds(kind: np.dtype[Any]) -> tuple[float, float]:
    """The smallest and the largest whole number of a type; numpy has none of four bits."""
    if kind.name in ("int4", "uint4"):
        return (-8.0, 7.0) if kind.name == "int4" else (0.0, 15.0)
    limits = np.iinfo(kind)
    return float(limits.min), float(limits.max)
