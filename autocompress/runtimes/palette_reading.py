"""Palettes that a file holds, as `palette_storage` writes them, found by their operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes.palette_storage import Palette
from autocompress.runtimes.radix import BYTES, Digits, digits_for, unpacked

# operators from words to the tensors' indices, in their order
UNPACKING = ("Div", "Mod", "Reshape", "Split")
WORDS = (onnx.TensorProto.UINT8, onnx.TensorProto.UINT16, onnx.TensorProto.INT32)
LOOKING_UP = ("Gather", "GatherElements")


@dataclass(frozen=True, eq=False)
class StoredPalette:
    """A palette by the name of the tensor that it stands for.

    `words` names the tensor that holds its indices among others, from word number `begin` on; `digits` are theirs.
    """

    tensor: str
    words: str
    begin: int
    digits: Digits
    palette: Palette


def stored_palettes(model: onnx.ModelProto) -> list[StoredPalette]:
    """The palettes that a model holds, in the order of the graph."""
    return [one for part in _parts(model.graph) for one in part.palettes]


def without_palettes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store all tensors as they are again; the model is changed."""
    graph = model.graph
    parts = list(_parts(graph))
    if not parts:
        return model
    gone = {place for part in parts for place in part.places}
    read = {name for place in gone for name in graph.node[place].input}
    nodes = [node for place, node in enumerate(graph.node) if place not in gone]
    # what nodes that stay read as well, such as a shape of the same numbers, is no part of a palette alone
    still_read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name not in read or tensor.name in still_read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    found = (one for part in parts for one in part.palettes)
    graph.initializer.extend(numpy_helper.from_array(one.palette.values(), one.tensor) for one in found)
    return model


@dataclass(frozen=True, eq=False)
class _Part:
    """Palettes that are unpacked together, and the places of the nodes that do so."""

    palettes: list[StoredPalette]
    places: list[int]


class _Graph:
    """The stored tensors and the readers of a graph's tensors."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self._readers: dict[str, list[int]] = {}
        for place, node in enumerate(self.nodes):
            for name in node.input:
                self._readers.setdefault(name, []).append(place)
        self._outputs = {value.name for value in graph.output}

    def only_reader(self, name: str, *kinds: str) -> int | None:
        """The place of the only node that reads a tensor, None where that is no node of these kinds."""
        found = self._readers.get(name, [])
        alone = len(found) == 1 and name not in self._outputs
        return found[0] if alone and self.nodes[found[0]].op_type in kinds else None

    def values(self, name: str) -> Array | None:
        """The values of a stored tensor, None for others."""
        return np.asarray(numpy_helper.to_array(self.stored[name])) if name in self.stored else None


def _parts(graph: onnx.GraphProto) -> Iterator[_Part]:
    known = _Graph(graph)
    for place, node in enumerate(known.nodes):
        if node.op_type == "Cast" and node.input[0] in known.stored:
            words = known.stored[node.input[0]]
            if words.data_type in WORDS and len(words.dims) == 2:
                part = _part(known, place)
                if part is not None:
                    yield part


def _part(graph: _Graph, start: int) -> _Part | None:
    """What is unpacked from the words that a Cast at this place reads, None where they are no palettes."""
    words = graph.values(graph.nodes[start].input[0])
    assert words is not None
    places = [start, *_added_up(graph, start, words.shape[1])]
    for kind in UNPACKING:
        following = graph.only_reader(graph.nodes[places[-1]].output[0], kind)
        if following is None:
            return None
        places.append(following)
    split = graph.nodes[places[-1]]
    base, sizes = graph.values(graph.nodes[places[-3]].input[1]), graph.values(split.input[1])
    if base is None or base.size != 1 or sizes is None or not 1 <= int(base) <= 256:
        return None
    digits = digits_for(int(base))
    if digits.word_bytes != words.itemsize * words.shape[1] or int(sizes.sum()) != len(words) * digits.digits:
        return None
    numbers = unpacked(words, digits, int(sizes.sum()))
    palettes, read = [], 0
    begins = np.cumsum(sizes) - sizes
    for output, begin, size in zip(split.output, begins.tolist(), sizes.tolist(), strict=True):
        found = _looked_up(graph, output, numbers[begin : begin + size].astype(np.uint8))
        if found is not None:
            tensor, palette, behind = found
            place = begin // digits.digits
            palettes.append(StoredPalette(tensor, graph.nodes[start].input[0], place, digits, palette))
            places += behind
        # what fills the last word of a tensor is read by nobody
        read += 1 if found is not None or size < digits.digits else 0
    return _Part(palettes, places) if palettes and read == len(split.output) else None


def _added_up(graph: _Graph, start: int, count: int) -> list[int]:
    """The places of the nodes that add the bytes of words up; none where words are stored whole."""
    split = graph.only_reader(graph.nodes[start].output[0], "Split") if count == BYTES else None
    if split is None or len(graph.nodes[split].output) != BYTES:
        return []
    found = [split]
    for name in graph.nodes[split].output[1:]:
        product = graph.only_reader(name, "Mul")
        found += [] if product is None else [product]
    sums = [graph.only_reader(graph.nodes[product].output[0], "Add") for product in found[1:]]
    last = graph.only_reader(graph.nodes[split].output[0], "Add")
    if len(found) < BYTES or sums[0] is None or sums[0] != sums[1] or last is None:
        return []
    return [*found, sums[0], last]


def _looked_up(graph: _Graph, name: str, indices: np.ndarray) -> tuple[str, Palette, list[int]] | None:
    """The tensor that indices of this name look up, its palette, the places of the nodes between."""
    places = []
    following = graph.only_reader(name, "Reshape", *LOOKING_UP)
    if following is not None and graph.nodes[following].op_type == "Reshape":
        places.append(following)
        following = graph.only_reader(graph.nodes[following].output[0], "GatherElements")
    if following is None:
        return None
    entries = graph.values(graph.nodes[following].input[0])
    places.append(following)
    last = graph.only_reader(graph.nodes[following].output[0], "Reshape")
    shape = None if last is None else graph.values(graph.nodes[last].input[1])
    if last is None or entries is None or shape is None:
        return None
    places.append(last)
    table = entries.reshape(-1, entries.shape[-1])
    palette = Palette(table, indices.reshape(len(table), -1), tuple(int(size) for size in shape))
    return graph.nodes[last].output[0], palette, places
