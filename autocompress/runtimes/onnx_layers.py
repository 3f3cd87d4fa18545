"""Layers of an ONNX graph: nodes that compute with stored weights, by the names that exporters left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from autocompress.core.layer_patterns import matches_pattern, parts_of
from autocompress.errors import ExportError
from autocompress.runtimes.onnx_export import scope_of
from autocompress.runtimes.onnx_file import PASSING

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# what exporters call the tensors of a layer, behind its name
PARTS = ("weight", "bias", "kernel", "gamma", "beta", "running_mean", "running_var", "W", "R", "B")


@dataclass(frozen=True)
class GraphLayer:
    """A node with the stored floating tensors that it computes with, behind casts and transposes too.

    `name` is the module's name where the exporter left it: in that of a weight, in the node's metadata or its name.
    """

    name: str
    place: int
    node: onnx.NodeProto
    weights: tuple[str, ...]


def layers_of(graph: onnx.GraphProto) -> list[GraphLayer]:
    """All nodes with stored floating tensors of more than one value, in the order of the graph."""
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type in FLOATS and _size(tensor) > 1}
    source = {name: name for name in stored}
    found = []
    for place, node in enumerate(graph.node):
        if node.op_type in PASSING and node.input and node.input[0] in source:
            source |= dict.fromkeys(node.output, source[node.input[0]])
            continue
        weights = tuple(dict.fromkeys(source[name] for name in node.input if name in source))
        if weights:
            found.append(GraphLayer(_name(node, weights, place), place, node, weights))
    return found


def names_in(graph: onnx.GraphProto) -> list[str]:
    """All names that patterns may fit: layers, modules around them, nodes, stored floating tensors."""
    layers = layers_of(graph)
    modules = [*(layer.name for layer in layers), *(scope_of(node) or _path(node.name) for node in graph.node)]
    around = (part for name in modules for part in parts_of(name))
    tensors = (name for layer in layers for name in layer.weights)
    return [name for name in dict.fromkeys((*around, *tensors, *(node.name for node in graph.node))) if name]


def places_of(graph: onnx.GraphProto, patterns: Sequence[str]) -> list[int]:
    """Indices of the nodes whose layer, name or weight fits one of the patterns; see `matches_pattern`.

    Raises:
        ExportError: when a pattern fits none of them, since what it named was folded into others.
    """
    by_place: dict[int, set[str]] = {}
    for place, node in enumerate(graph.node):
        by_place[place] = {name for name in (scope_of(node), _path(node.name), node.name) if name}
    for layer in layers_of(graph):
        by_place[layer.place] |= {layer.name, *layer.weights}
    for pattern in patterns:
        if not any(matches_pattern(name, [pattern]) for names in by_place.values() for name in names):
            raise ExportError(
                "cannot be told apart once constants are folded, so it cannot be kept in float.",
                where=f"model, {pattern!r}",
                hint="Name the node or the weight that computes it: `autocompress inspect` lists them.",
            )
    return [place for place, names in by_place.items() if any(matches_pattern(name, patterns) for name in names)]


def _name(node: onnx.NodeProto, weights: Sequence[str], place: int) -> str:
    return _owner(weights) or scope_of(node) or _path(node.name) or node.name or f"{node.op_type}_{place}"


def _owner(weights: Sequence[str]) -> str:
    """The layer's name in that of a weight: `encoder.0` in `encoder.0.weight`."""
    for weight in weights:
        owner, _, part = weight.rpartition(".")
        if owner and part in PARTS:
            return owner
    return ""


def _path(name: str) -> str:
    """The module's name in a node's, as torch's older exporter writes it: `a.b.c` in `/a/a.b/c/Conv`."""
    if not name.startswith("/"):
        return ""
    path = ""
    for part in name.strip("/").split("/")[:-1]:
        path = part if not path or part.startswith(f"{path}.") else f"{path}.{part}"
    return path


def _size(tensor: TensorProto) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size


def sizes_of(graph: onnx.GraphProto) -> Iterator[tuple[TensorProto, int]]:
    """The stored floating tensors with their numbers of values."""
    return ((tensor, _size(tensor)) for tensor in graph.initializer if tensor.data_type in FLOATS)
