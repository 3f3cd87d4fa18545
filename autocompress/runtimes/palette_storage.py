"""Palettes in an ONNX file: a table of the values of a tensor, and packed indices into it.

Each number of entries in use has a function in the file, made of standard operators, that unpacks a tensor. Runtimes
put the function's nodes in place of its call, and compute what depends on stored values alone once, when they load the
file: a layer behind it then reads its weight as if it were stored as it is. Indices of fewer than eight bits could be
stored as UINT4, which onnxruntime 1.20 cannot cast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes.radix import Digits, digits_for, packed, unpacked

DOMAIN = "palettes"
# opset of the operators in the functions
LEAST_OPSET = 18


@dataclass(frozen=True, eq=False)
class Palette:
    """A tensor of shape `shape` as `indices` into a table `entries` of shape `(groups, number of entries)`.

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
    """Store tensors of the model as palettes, by name; the model is changed."""
    graph = model.graph
    kept = [tensor for tensor in graph.initializer if tensor.name not in palettes]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    calls = []
    for name, palette in palettes.items():
        digits = digits_for(palette.entries.shape[1])
        parts = {
            f"{name}_indices": packed(palette.indices, digits),
            f"{name}_entries": palette.entries,
            f"{name}_shape": np.array(palette.shape, dtype=np.int64),
        }
        graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
        calls.append(helper.make_node(_function_name(digits), list(parts), [name], domain=DOMAIN))
    nodes = [*calls, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    _declare(model)
    return model


def stored(model: onnx.ModelProto) -> Iterator[tuple[str, str, Palette]]:
    """Palettes in the model: the names of the tensor and of its packed indices, and the palette."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            words, entries, shape = (np.asarray(numpy_helper.to_array(tensors[name])) for name in node.input)
            sizes = tuple(int(size) for size in shape)
            numbers = unpacked(words, digits_for(entries.shape[1]), int(np.prod(sizes)))
            indices = numbers.reshape(len(entries), -1).astype(np.uint8)
            yield node.output[0], node.input[0], Palette(entries, indices, sizes)


def without_palettes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store all tensors as they are again; the model is changed."""
    graph = model.graph
    found = list(stored(model))
    if not found:
        return model
    parts = {name for node in graph.node if node.domain == DOMAIN for name in node.input}
    nodes = [node for node in graph.node if node.domain != DOMAIN]
    # what nodes that stay read as well, such as a shape of the same numbers, is no part of a palette alone
    parts -= {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name not in parts]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(palette.values(), name) for name, _, palette in found)
    _declare(model)
    return model


def _declare(model: onnx.ModelProto) -> None:
    """Hold the functions that are called, and no others, and the versions of operators that they need."""
    called = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    functions = [one for one in model.functions if one.domain != DOMAIN]
    opsets = [one for one in model.opset_import if one.domain != DOMAIN]
    standard = next(one for one in opsets if one.domain in ("", "ai.onnx"))
    del model.functions[:], model.opset_import[:]
    model.functions.extend(functions)
    model.opset_import.extend(opsets)
    if called:
        bases = sorted(int(name.removeprefix("unpack")) for name in called)
        model.functions.extend(_function(digits_for(base), max(standard.version, LEAST_OPSET)) for base in bases)
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _function_name(digits: Digits) -> str:
    return f"unpack{digits.base}"


def _function(digits: Digits, opset: int) -> onnx.FunctionProto:
    """The function from words of shape `(words, word_bytes)`, entries and a shape to the tensor.

    Names in it have a letter each, since the file holds them.
    """
    long = digits.word_bytes > 3
    whole, kind = (np.int64, TensorProto.INT64) if long else (np.int32, TensorProto.INT32)
    powers = np.int64(digits.base) ** np.arange(digits.digits, dtype=np.int64)
    words, entries, shape, result = "w", "e", "s", "r"
    nodes = [helper.make_node("Cast", [words], ["a"], to=kind)]
    word = "a"
    if digits.word_bytes > 1:
        places = np.int64(256) ** np.arange(digits.word_bytes, dtype=np.int64)
        nodes += [_constant("b", places[:, None].astype(whole)), helper.make_node("MatMul", ["a", "b"], ["c"])]
        word = "c"
    zero, rest, powers_name, base = "z", "m", "p", "d"
    nodes += [
        _constant(powers_name, powers.astype(whole)),
        _constant(base, np.array(digits.base, dtype=whole)),
        _constant(zero, np.array([0], dtype=np.int64)),
        _constant(rest, np.array([-1], dtype=np.int64)),
        helper.make_node("Div", [word, powers_name], ["f"]),
        helper.make_node("Mod", ["f", base], ["g"]),
        helper.make_node("Reshape", ["g", rest], ["h"]),
        # the last word may be filled up
        helper.make_node("ReduceProd", [shape], ["i"], keepdims=1),
        helper.make_node("Slice", ["h", zero, "i"], ["j"]),
        helper.make_node("Shape", [entries], ["k"], start=0, end=1),
        helper.make_node("Concat", ["k", rest], ["l"], axis=0),
        helper.make_node("Reshape", ["j", "l"], ["n"]),
        helper.make_node("GatherElements", [entries, "n"], ["v"], axis=1),
        helper.make_node("Reshape", ["v", shape], [result]),
    ]
    inputs = [words, entries, shape]
    return helper.make_function(
        DOMAIN, _function_name(digits), inputs, [result], nodes, [helper.make_opsetid("", opset)]
    )


def _constant(name: str, value: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
