"""Where the values of an ONNX file's tensors lie in its bytes, without loading the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autocompress.download.protobuf_wire import Field, fields, varints

MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_ATTRIBUTE = 5
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH = 5, 6
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 8, 9
TENSOR_DOUBLES = 10
FLOAT, DOUBLE = 1, 11
# graphs inside of graphs (branches, loops); what is deeper stays as it is
MOST_DEPTH = 8


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's values at bytes `begin` to `end`, of ONNX's data type `kind`."""

    name: str
    kind: int
    shape: tuple[int, ...]
    begin: int
    end: int


def stored_tensors(content: bytes) -> list[StoredTensor]:
    """The tensors with values in a file, in their order there; none where it is no ONNX file."""
    try:
        found = [
            tensor
            for field in fields(content, 0, len(content))
            if field.number == MODEL_GRAPH
            for tensor in _of_graph(content, field, 0)
        ]
    except ValueError:
        return []
    return sorted(found, key=lambda tensor: tensor.begin)


def _of_graph(content: bytes, graph: Field, depth: int) -> Iterator[StoredTensor]:
    for field in fields(content, graph.begin, graph.end):
        if field.number == GRAPH_INITIALIZER:
            yield from _tensor(content, field)
        elif field.number == GRAPH_NODE and depth < MOST_DEPTH:
            yield from _of_node(content, field, depth)


def _of_node(content: bytes, node: Field, depth: int) -> Iterator[StoredTensor]:
    for attribute in fields(content, node.begin, node.end):
        if attribute.number != NODE_ATTRIBUTE:
            continue
        for field in fields(content, attribute.begin, attribute.end):
            # numbers that an attribute may have as a varint too have no length
            if field.number == ATTRIBUTE_TENSOR:
                yield from _tensor(content, field)
            elif field.number == ATTRIBUTE_GRAPH:
                yield from _of_graph(content, field, depth + 1)


def _tensor(content: bytes, tensor: Field) -> Iterator[StoredTensor]:
    name, kind = "", 0
    shape: list[int] = []
    values: list[tuple[int, Field]] = []
    for field in fields(content, tensor.begin, tensor.end):
        if field.number == TENSOR_DIMS:
            # one after another, or packed as one field
            shape += varints(content, field.begin, field.end)
        elif field.number == TENSOR_TYPE:
            kind = field.value
        elif field.number == TENSOR_NAME:
            name = content[field.begin : field.end].decode("utf-8", "replace")
        elif field.number in (TENSOR_RAW, TENSOR_FLOATS, TENSOR_DOUBLES):
            values.append((field.number, field))
    for number, field in values:
        stored_as = {TENSOR_FLOATS: FLOAT, TENSOR_DOUBLES: DOUBLE}.get(number, kind)
        yield StoredTensor(name, stored_as, tuple(shape), field.begin, field.end)
