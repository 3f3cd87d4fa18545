"""Writes arrays into the graph of a file as stored inputs of its nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product

import onnx
from onnx import numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes.external_weights import duplicate
from autocompress.runtimes.onnx_file import LETTERS


def written(model: onnx.ModelProto, changes: Mapping[tuple[int, int], Array]) -> onnx.ModelProto:
    """A copy of the model in which these inputs, by node and number of the input, hold these arrays.

    A stored tensor that several inputs share stays shared where they agree; the others get tensors of their own.
    """
    result = duplicate(model)
    graph = result.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, node in enumerate(graph.node):
        for number, name in enumerate(node.input):
            if name in stored:
                readers[name].append((place, number))
    names = _new_names(graph)
    for name, inputs in readers.items():
        before = numpy_helper.to_array(stored[name])
        shaped = {one: _like(changes[one], before) for one in inputs if one in changes}
        groups: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
        for one in inputs:
            groups[shaped[one].tobytes() if one in shaped else before.tobytes()].append(one)
        if before.tobytes() not in groups:
            # the first group takes the place of what nobody reads any more
            taken = next(iter(groups.values()))
            stored[name].CopyFrom(numpy_helper.from_array(shaped[taken[0]], name))
            del groups[shaped[taken[0]].tobytes()]
        for content, group in groups.items():
            if content == before.tobytes():
                continue
            new = next(names)
            graph.initializer.append(numpy_helper.from_array(shaped[group[0]], new))
            for place, number in group:
                graph.node[place].input[number] = new
    return result


def _like(array: Array, before: Array) -> Array:
    return array.astype(before.dtype, copy=False).reshape(before.shape)


def _new_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that nothing in the graph has, without digits."""
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    length = 1
    while True:
        for letters in product(LETTERS, repeat=length):
            name = "learned_" + "".join(letters)
            if name not in taken:
                yield name
        length += 1
