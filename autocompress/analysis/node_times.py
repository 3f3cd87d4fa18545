"""The time of single nodes in float and quantized, from the runtime's operator profile."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from autocompress.runtimes.quantizable_nodes import NodeFact

Profiled = Sequence[tuple[str, str, float]]
# what the runtime calls these operators once they compute in int8
QUANTIZED: Mapping[str, tuple[str, ...]] = {
    "Conv": ("QLinearConv", "ConvInteger"),
    "ConvTranspose": ("QLinearConvTranspose",),
    "MatMul": ("QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulInteger"),
    "Gemm": ("QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
    "LSTM": ("DynamicQuantizeLSTM",),
    **{
        name: (f"QLinear{name}",)
        for name in (
            *("Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax"),
            *("AveragePool", "GlobalAveragePool", "Concat", "Where"),
        )
    },
}
# what the runtime adds to the name of a node or of its output when it changes its layout or fuses it
ADDED = re.compile(r"(_nchwc|/.*|_fused|_matmul)?")


def float_shares(nodes: Sequence[NodeFact], profiled: Profiled) -> dict[str, float]:
    """The share of the float file's time by node name, for those that the profile tells apart.

    The runtime names a node as it was, or after a tensor that it makes.
    """
    found: dict[str, float] = {}
    for node in nodes:
        kinds = [one for one in profiled if node.operator in one[1]]
        own = _named_after((node.name, *node.outputs), kinds) or _named_after(node.fused, kinds)
        if own:
            found[node.name] = sum(own)
    return found


def _named_after(names: Sequence[str], profiled: Profiled) -> list[float]:
    return [
        share
        for found, _, share in profiled
        for known in names
        if found.startswith(known) and ADDED.fullmatch(found[len(known) :])
    ]


def quantized_shares(nodes: Sequence[NodeFact], profiled: Profiled) -> dict[str, float]:
    """The share of the quantized file's time by node name, matched by the order of operators of a type.

    The file that ships has no names. Where there are not as many operators of a type as nodes, none of them is told.
    """
    found: dict[str, float] = {}
    for operator in dict.fromkeys(node.operator for node in nodes):
        in_order = [node for node in nodes if node.operator == operator]
        for kind in QUANTIZED.get(operator, ()):
            timed = sorted((one for one in profiled if one[1] == kind), key=lambda one: _numbers(one[0]))
            if len(timed) == len(in_order):
                found |= {node.name: share for node, (_, _, share) in zip(in_order, timed, strict=True)}
    return found


def _numbers(name: str) -> tuple[tuple[int, ...], str]:
    """The numbers in a name, which follow the graph's order."""
    return tuple(int(part) for part in re.findall(r"\d+", name)), name
