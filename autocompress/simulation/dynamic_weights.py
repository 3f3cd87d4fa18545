"""Weights of dynamic int8 as the simulation learns them, and tables that are looked up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from autocompress.core.source import Array
from autocompress.simulation.fake_quantization import FakeQuantizer, Levels, StoredQuantizer
from autocompress.simulation.graph_nodes import GraphNodes
from autocompress.simulation.integer_operators import PRODUCT
from autocompress.simulation.integer_recurrent import KIND as LSTM

Tensor = torch.Tensor


class DynamicWeight(StoredQuantizer):
    """The weight of a product of whole numbers, whose scale multiplies the product behind it."""

    def whole(self) -> Tensor:
        """Its whole numbers, in floats; not rounded where it is not enabled."""
        rank = self.value.dim()
        steps = self.steps(rank, self.value.numel())
        counted = self.counted(self.value, steps) if self.enabled else self.value / steps
        return counted + self.levels.spread(self.zero_point, rank)

    def scales(self) -> Tensor:
        """The scale that the product is multiplied by, in the shape that is stored."""
        return self.steps(self.value.dim(), self.value.numel()).reshape(self.scale.shape)


@dataclass(frozen=True)
class WeightInput:
    """An input of a node that a dynamic weight gives: its whole numbers, or its scale."""

    weight: DynamicWeight
    is_scale: bool

    def value(self) -> Tensor:
        """What the node computes with."""
        return self.weight.scales() if self.is_scale else self.weight.whole()

    def stored(self) -> Array:
        """What the file stores."""
        return self.weight.current_scale().cpu().numpy() if self.is_scale else self.weight.whole_numbers()


class LookedUp(FakeQuantizer):
    """A DequantizeLinear node behind a lookup in a stored table; nothing of it is learned."""

    def dequantize(self, whole: Tensor) -> Tensor:
        """The values that whole numbers stand for."""
        zero_point = self.levels.spread(self.zero_point, whole.dim())
        return (whole.float() - zero_point) * self.levels.spread(self.scale.detach(), whole.dim())


def weight_inputs(graph: GraphNodes, arrays: Mapping[str, Array]) -> dict[tuple[int, int], WeightInput]:
    """The inputs that dynamic weights give, by node and number of the input.

    Found are stored weights of products whose scale is known from the graph: a Mul behind the product multiplies by
    the product of the activation's scale and the weight's; and those of an LSTM of one direction.
    """
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(graph.nodes):
        for name in node.input:
            readers.setdefault(name, []).append(place)
    weights: dict[tuple[str, str], DynamicWeight] = {}
    found: dict[tuple[int, int], WeightInput] = {}
    for place, number, zero, scale in _places(graph, readers, arrays):
        node = graph.nodes[place]
        names = node.input[number], graph.nodes[scale[0]].input[scale[1]]
        zeros = arrays.get(node.input[zero]) if len(node.input) > zero else None
        weight = weights.setdefault(names, _weight(arrays[names[0]], arrays[names[1]], zeros))
        found[place, number] = WeightInput(weight, is_scale=False)
        found[scale] = WeightInput(weight, is_scale=True)
    return found


def _places(
    graph: GraphNodes, readers: Mapping[str, list[int]], arrays: Mapping[str, Array]
) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
    """Nodes with the numbers of their inputs for a weight and its zero point, and where its scale is read."""
    for place, node in enumerate(graph.nodes):
        if node.op_type == PRODUCT:
            scale = _scale_of(graph, place, readers, arrays)
            if scale is not None:
                yield place, 1, 3, scale
        elif node.op_type == LSTM and all(node.input[number] in arrays for number in (1, 2, 8, 10)):
            for number, behind in ((1, 8), (2, 10)):
                # scales of two directions would need an axis each
                if len(arrays[node.input[number]]) == 1:
                    yield place, number, behind + 1, (place, behind)


def _scale_of(
    graph: GraphNodes, place: int, readers: Mapping[str, list[int]], arrays: Mapping[str, Array]
) -> tuple[int, int] | None:
    """The node, and the number of its input, that reads the scale of the weight of a product."""
    node = graph.nodes[place]
    if node.input[1] not in arrays:
        return None
    for operator in ("Cast", "Mul"):
        behind = readers.get(node.output[0], [])
        if len(behind) != 1 or graph.nodes[behind[0]].op_type != operator:
            return None
        before, node = node, graph.nodes[behind[0]]
    (other,) = [name for name in node.input if name != before.output[0]] or [""]
    maker = graph.producer(other)
    if maker is None or graph.nodes[maker].op_type != "Mul":
        return None
    stored = [number for number, name in enumerate(graph.nodes[maker].input) if name in arrays]
    # the product of scales may be shared by layers only where their weights are the same
    return (maker, stored[0]) if len(stored) == 1 and len(readers[other]) == 1 else None


def _weight(stored: Array, scale: Array, zeros: Array | None) -> DynamicWeight:
    limits = np.iinfo(stored.dtype)
    zero_point = np.zeros(scale.shape) if zeros is None else zeros
    axis = stored.ndim - 1 if scale.size > 1 else None
    steps, whole = (torch.from_numpy(np.array(one, dtype=np.float32)) for one in (scale, zero_point))
    return DynamicWeight(steps, whole, Levels(float(limits.min), float(limits.max), axis), stored)
