"""Palettes in an ONNX file: a table of the values of each tensor, and packed indices into it.

The indices of tensors with equally many values stand behind each other in one tensor of words (see `radix`). Standard
operators unpack them: runtimes compute what depends on stored values alone once, when they load the file, and a layer
behind it then reads its weight as if it were stored as it is. Indices could be stored as UINT4, which onnxruntime 1.20
cannot cast; a function in the file would spare the nodes, which OpenVINO does not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from autocompress.core.source import Array
from autocompress.errors import TechniqueError
from autocompress.runtimes.radix import BYTES, Digits, digits_for, packed

# numbers that are unpacked together: each takes some bytes meanwhile
MOST_NUMBERS = 2_000_000
# operators of this opset take axes and sizes as inputs
LEAST_OPSET = 13


@dataclass(frozen=True, eq=False)
class Palette:
    """A tensor of shape `shape` as `indices` into `entries` of shape `(groups, number of entries)`.

    `indices`, of shape `(groups, values of a group)`, run through the tensor in its order: a group is a range of its
    first axis.
    """

    entries: Array
    indices: NDArray[np.integer]
    shape: tuple[int, ...]

    def values(self) -> Array:
        """The tensor."""
        return np.take_along_axis(self.entries, self.indices.astype(np.int64), axis=1).reshape(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes of entries and indices in the file."""
        return self.entries.nbytes + digits_for(self.entries.shape[1]).bytes_of(self.indices.size)


def palette_of(values: Array, groups: int) -> Palette:
    """The palette of a tensor that has few values in each of so many ranges of its first axis."""
    parts = [np.unique(part, return_inverse=True) for part in values.reshape(groups, -1)]
    width = max(len(entries) for entries, _ in parts)
    table = np.stack([np.pad(entries, (0, width - len(entries)), "edge") for entries, _ in parts])
    return Palette(table, np.stack([indices.reshape(-1) for _, indices in parts]), values.shape)


def store(model: onnx.ModelProto, palettes: Mapping[str, Palette]) -> onnx.ModelProto:
    """Store tensors of the model as palettes, by name; the model is changed.

    Raises:
        TechniqueError: when the model's operators are of an opset before 13.
    """
    version = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if version < LEAST_OPSET:
        raise TechniqueError(f"the file's operators are of opset {version}; 13 is needed.", where="palettes")
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in palettes]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes: list[onnx.NodeProto] = []
    for number, (digits, names) in enumerate(_parts(palettes)):
        part = _Part(f"palettes{number}", digits, {name: palettes[name] for name in names})
        nodes += part.nodes()
        graph.initializer.extend(part.tensors())
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _parts(palettes: Mapping[str, Palette]) -> Iterator[tuple[Digits, list[str]]]:
    """The names of tensors that are unpacked together: of equally many entries, and not too large."""
    by_entries: dict[int, list[str]] = {}
    for name, palette in palettes.items():
        by_entries.setdefault(palette.entries.shape[1], []).append(name)
    for entries, names in by_entries.items():
        some: list[str] = []
        for name in names:
            if some and sum(palettes[one].indices.size for one in (*some, name)) > MOST_NUMBERS:
                yield digits_for(entries), some
                some = []
            some.append(name)
        yield digits_for(entries), some


class _Part:
    """Tensors that are unpacked together, with the nodes and stored tensors that this takes."""

    def __init__(self, name: str, digits: Digits, palettes: Mapping[str, Palette]) -> None:
        self._name, self._digits, self._palettes = name, digits, palettes
        self._tensors: dict[str, Array] = {}

    def tensors(self) -> Iterator[TensorProto]:
        """The stored tensors; `nodes` comes first."""
        return (numpy_helper.from_array(array, name) for name, array in self._tensors.items())

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes from words to tensors."""
        digits, name = self._digits, self._name
        sizes = [palette.indices.size for palette in self._palettes.values()]
        # each tensor begins with a word of its own, so that it can be told apart in the file
        filled = [-size % digits.digits for size in sizes]
        padded = zip(self._palettes.values(), filled, strict=True)
        numbers = np.concatenate([np.pad(palette.indices.reshape(-1), (0, rest)) for palette, rest in padded])
        words, word = packed(numbers, digits), f"{name}_word"
        nodes = [helper.make_node("Cast", [self._stored("words", words)], [word], to=TensorProto.INT32)]
        if digits.word_bytes == BYTES:
            nodes[0].output[0] = f"{name}_bytes"
            nodes += self._added_up(f"{name}_bytes", word)
        powers = np.int64(digits.base) ** np.arange(digits.digits, dtype=np.int64)
        base = self._stored("base", np.array(digits.base, dtype=np.int32))
        nodes += [
            helper.make_node("Div", [word, self._stored("powers", powers.astype(np.int32))], [f"{name}_div"]),
            helper.make_node("Mod", [f"{name}_div", base], [f"{name}_digits"]),
            helper.make_node("Reshape", [f"{name}_digits", self._stored("flat", np.array([-1]))], [f"{name}_numbers"]),
        ]
        cuts: list[tuple[str, int]] = []
        for one, size, rest in zip(self._palettes, sizes, filled, strict=True):
            cuts += [(f"{one}_numbers", size), *([(f"{one}_filled", rest)] if rest else [])]
        split = self._stored("sizes", np.array([size for _, size in cuts]))
        nodes.append(helper.make_node("Split", [f"{name}_numbers", split], [output for output, _ in cuts], axis=0))
        for one, palette in self._palettes.items():
            nodes += self._looked_up(one, palette)
        return nodes

    def _added_up(self, given: str, word: str) -> Sequence[onnx.NodeProto]:
        """The nodes from the three bytes of each word to the word; sums of whole numbers need not be exact."""
        name = self._name
        first, second, third = (f"{name}_byte{place}" for place in range(BYTES))
        factors = [self._stored(f"place{place}", np.array(256**place, dtype=np.int32)) for place in (1, 2)]
        return [
            helper.make_node(
                "Split", [given, self._stored("ones", np.ones(BYTES, np.int64))], [first, second, third], axis=1
            ),
            helper.make_node("Mul", [second, factors[0]], [f"{name}_second"]),
            helper.make_node("Mul", [third, factors[1]], [f"{name}_third"]),
            helper.make_node("Add", [f"{name}_second", f"{name}_third"], [f"{name}_upper"]),
            helper.make_node("Add", [first, f"{name}_upper"], [word]),
        ]

    def _looked_up(self, name: str, palette: Palette) -> Sequence[onnx.NodeProto]:
        """The nodes from a tensor's indices to the tensor."""
        groups = len(palette.entries)
        shape = self._stored(f"{name}_shape", np.array(palette.shape))
        entries = self._stored(f"{name}_entries", palette.entries[0] if groups == 1 else palette.entries)
        if groups == 1:
            numbers, nodes = f"{name}_numbers", []
            look_up = helper.make_node("Gather", [entries, numbers], [f"{name}_values"], axis=0)
        else:
            numbers, by_group = f"{name}_grouped", self._stored(f"{name}_groups", np.array([groups, -1]))
            nodes = [helper.make_node("Reshape", [f"{name}_numbers", by_group], [numbers])]
            look_up = helper.make_node("GatherElements", [entries, numbers], [f"{name}_values"], axis=1)
        return [*nodes, look_up, helper.make_node("Reshape", [f"{name}_values", shape], [name])]

    def _stored(self, part: str, array: Array) -> str:
        """The name of a stored tensor; that of a palette is its own, others are parts of this one's name."""
        name = part if part.rpartition("_")[0] in self._palettes else f"{self._name}_{part}"
        self._tensors[name] = array
        return name
