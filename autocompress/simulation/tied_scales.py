"""Scales that have to stay equal: around operators that move whole numbers and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.runtimes.float_nodes import QUANTIZE
from autocompress.simulation.fake_quantization import ActivationQuantizer, FakeQuantizer
from autocompress.simulation.graph_nodes import GraphNodes
from autocompress.simulation.quantizer_building import quantizer_behind


def tie_scales(graph: GraphNodes, quantizers: Mapping[int, FakeQuantizer]) -> None:
    """Let the quantizers before and behind such an operator share the parameter of their scale.

    The runtime runs an operator such as MaxPool or Concat on whole numbers only while their scales are equal. They are
    told by the quantizer that made the file: it gave both sides the same scale and zero point.
    """
    for place, node in enumerate(graph.nodes):
        maker = graph.producer(node.input[0]) if node.op_type == QUANTIZE else None
        if maker is None:
            continue
        behind = quantizers[place]
        for name in graph.nodes[maker].input:
            before = quantizer_behind(graph, quantizers, name)
            if isinstance(before, ActivationQuantizer) and _equal(before, behind):
                behind.scale = before.scale
                break


def _equal(one: FakeQuantizer, other: FakeQuantizer) -> bool:
    same = torch.equal(one.scale.detach(), other.scale.detach()) and torch.equal(one.zero_point, other.zero_point)
    return same and one is not other
