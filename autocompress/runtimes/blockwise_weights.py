"""Weights in blocks of few bits, and the operators of onnxruntime that compute with them.

A row of a weight, all that one output is computed from, is cut into blocks of consecutive values with a scale each
(Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022). The layout is that of `MatMulNBits` and
`GatherBlockQuantized` in onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from autocompress.runtimes.onnx_file import attributes_of, is_in_float, names_in_subgraphs

DOMAIN = "com.microsoft"
# a smaller saving is not worth what it costs in accuracy: the last layer of a classifier
LEAST_BYTES_SAVED = 1024
FLOAT_BYTES = 4
# the smallest block that the operators know
LEAST_BLOCK = 16
Packed = NDArray[np.uint8]


@dataclass(frozen=True)
class Blocks:
    """How weights are cut and rounded: `bits` of 4 or 8 for a value, `size` values that share a scale.

    `symmetric` blocks have the middle of the range as their zero, others one of their own.
    """

    bits: int
    size: int
    symmetric: bool

    def within(self, columns: int) -> Blocks:
        """The same, but no larger than a row of so many values has use for."""
        return replace(self, size=min(self.size, max(LEAST_BLOCK, 2 ** (columns - 1).bit_length())))

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes of a weight of this shape with its scales and zeros."""
        blocks = -(-columns // self.size)
        zeros = 0 if self.symmetric else -(-blocks * self.bits // 8)
        return rows * (blocks * (self.size * self.bits // 8 + FLOAT_BYTES) + zeros)


@dataclass(frozen=True, eq=False)
class BlockwiseWeight:
    """A weight of shape `(rows, columns)` as `(rows, blocks, bytes of a block)`.

    `scales` has shape `(rows, blocks)`. `zeros` are packed along the blocks of a row, None where all are the middle.
    """

    values: Packed
    scales: NDArray[np.float32]
    zeros: Packed | None


def quantized(weight: NDArray[np.float32], blocks: Blocks) -> BlockwiseWeight:
    """Round a weight of shape `(rows, columns)` block by block to the nearest of 2 ** bits values.

    A symmetric block's value that is furthest from zero is kept exactly, at the end of the range that has one more
    value; other blocks use the whole range between their least and greatest value, with zero among them.
    """
    rows, columns = weight.shape
    count = -(-columns // blocks.size)
    padded = np.zeros((rows, count * blocks.size), dtype=np.float32)
    padded[:, :columns] = weight
    cut = padded.reshape(rows, count, blocks.size)
    low, high = np.minimum(cut.min(2), 0.0), np.maximum(cut.max(2), 0.0)
    levels = 2**blocks.bits
    middle = levels // 2
    if blocks.symmetric:
        scales = np.where(high > -low, high, low) / np.float32(-middle)
        zeros = np.full_like(scales, middle)
    else:
        scales = (high - low) / np.float32(levels - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = np.where(scales == 0, middle, np.rint(-low / scales)).clip(0, levels - 1)
    with np.errstate(divide="ignore"):
        inverse = np.where(scales == 0, 0, 1 / scales)
    codes = np.rint(cut * inverse[:, :, None] + zeros[:, :, None]).clip(0, levels - 1).astype(np.uint8)
    own = None if blocks.symmetric else _packed(zeros.astype(np.uint8), blocks.bits)
    return BlockwiseWeight(_packed(codes, blocks.bits), scales.astype(np.float32), own)


def _packed(codes: Packed, bits: int) -> Packed:
    """Codes of 4 bits two to a byte along the last axis, the first in its lower half; 8 bits as they are."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
    return np.asarray(codes[..., ::2] | (codes[..., 1::2] << 4), dtype=np.uint8)


def quantize_weights(model: onnx.ModelProto, most: Blocks, accuracy_level: int) -> int:
    """Replace products with stored weights, and lookups in tables, by operators on blocks of few bits.

    Gives the number of weights that were replaced. Blocks are as `most` says, smaller in short rows. The inputs of
    products are float32 inside with the accuracy level 0, and int8 with 4, with a scale for each block. A weight that
    is read in any other way stays, and so does one that would hardly get smaller, or that is read by a node that stays
    in float.
    """
    graph = model.graph
    stored = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT and len(one.dims) == 2}
    replaced: dict[int, list[onnx.NodeProto]] = {}
    chosen: set[str] = set()
    for name, by_rows in _readers(graph, stored).items():
        values = numpy_helper.to_array(stored[name])
        weight = values if by_rows[min(by_rows)] else values.T
        blocks = most.within(weight.shape[1])
        looked_up = any(graph.node[place].op_type == "Gather" for place in by_rows)
        if len(set(by_rows.values())) > 1 or not _pays(weight, blocks, looked_up=looked_up):
            continue
        chosen.add(name)
        names, unpack = _store(graph, name, quantized(weight, blocks), looked_up=looked_up)
        multiplied = [unpack[0].output[0] if unpack else names[0], *names[1:]]
        for place in sorted(by_rows):
            if graph.node[place].op_type == "Gather":
                replaced[place] = [_lookup(graph.node[place], names, blocks)]
            else:
                product = _product(graph.node[place], multiplied, weight.shape, blocks, accuracy_level)
                replaced[place], unpack = [*unpack, *product], []
    if chosen:
        _replace(graph, replaced, chosen)
        if not any(opset.domain == DOMAIN for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(chosen)


def _readers(graph: onnx.GraphProto, stored: Collection[str]) -> dict[str, dict[int, bool]]:
    """Stored weights that are read by products and lookups alone, with the places of these nodes.

    Each place has True where what the node computes or looks up by are the rows of the weight as it is stored.
    """
    turned = {node.output[0]: node.input[0] for node in graph.node if node.input and _turns(node, stored)}
    fixed = names_in_subgraphs(graph) | {value.name for value in (*graph.input, *graph.output)}
    others = {turned.get(name, name) for name in fixed}
    found: dict[str, dict[int, bool]] = {}
    for place, node in enumerate(graph.node):
        if node.output and node.output[0] in turned:
            continue
        for slot, name in enumerate(node.input):
            weight = turned.get(name, name)
            if weight not in stored:
                continue
            by_rows = _reads_by_rows(node, slot, turned=name in turned)
            if by_rows is None:
                others.add(weight)
            else:
                found.setdefault(weight, {})[place] = by_rows
    return {name: places for name, places in found.items() if name not in others}


def _turns(node: onnx.NodeProto, stored: Collection[str]) -> bool:
    perm = [list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"]
    swaps: bool = node.op_type == "Transpose" and perm in ([], [[1, 0]])
    return swaps and node.input[0] in stored and not is_in_float(node)


def _reads_by_rows(node: onnx.NodeProto, slot: int, *, turned: bool) -> bool | None:
    """How a node reads a weight of two dimensions; None where it must stay as it is."""
    given = attributes_of(node)
    if is_in_float(node):
        return None
    if node.op_type == "MatMul" and slot == 1:
        return turned
    if node.op_type == "Gemm" and slot == 1:
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)
        return bool(given.get("transB", 0)) != turned if plain else None
    if node.op_type == "Gather" and slot == 0 and not turned and given.get("axis", 0) == 0:
        return True
    return None


def _pays(weight: NDArray[np.float32], blocks: Blocks, *, looked_up: bool) -> bool:
    rows, columns = len(weight), len(weight[0])
    before, after = FLOAT_BYTES * rows * columns, blocks.stored_bytes(rows, columns)
    # a lookup gives whole blocks, so the last one has to be full
    if looked_up and columns % blocks.size:
        return False
    return before - after >= LEAST_BYTES_SAVED and after < before / 2


def _store(
    graph: onnx.GraphProto, name: str, made: BlockwiseWeight, *, looked_up: bool
) -> tuple[list[str], list[onnx.NodeProto]]:
    """Add the tensors of a weight; gives their names, and what has to run before they are multiplied with."""
    rows, count, width = made.values.shape
    tensors: dict[str, NDArray[Any]] = {f"{name}_blocks": made.values.reshape(rows, -1) if looked_up else made.values}
    tensors[f"{name}_scales"] = made.scales
    if made.zeros is not None:
        tensors[f"{name}_zeros"] = made.zeros
    graph.initializer.extend(numpy_helper.from_array(array, one) for one, array in tensors.items())
    names = list(tensors)
    if not looked_up:
        return names, []
    shape = numpy_helper.from_array(np.array([rows, count, width], dtype=np.int64), f"{name}_shape")
    graph.initializer.append(shape)
    return names, [helper.make_node("Reshape", [names[0], shape.name], [f"{name}_by_block"])]


def _lookup(node: onnx.NodeProto, inputs: Sequence[str], blocks: Blocks) -> onnx.NodeProto:
    values, *rest = inputs
    return helper.make_node(
        "GatherBlockQuantized",
        [values, node.input[1], *rest],
        list(node.output),
        name=node.name,
        domain=DOMAIN,
        gather_axis=0,
        quantize_axis=1,
        block_size=blocks.size,
        bits=blocks.bits,
    )


def _product(
    node: onnx.NodeProto, inputs: Sequence[str], shape: tuple[int, ...], blocks: Blocks, accuracy_level: int
) -> list[onnx.NodeProto]:
    """The product on blocks; that of a Gemm is followed by the sum with its bias."""
    bias = [name for name in node.input[2:] if name]
    result = f"{node.output[0]}_product" if bias else node.output[0]
    # some runtimes do not know the attribute, whose default is 0
    level: dict[str, Any] = {"accuracy_level": accuracy_level} if accuracy_level else {}
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], *inputs],
        [result],
        name=node.name,
        domain=DOMAIN,
        N=shape[0],
        K=shape[1],
        bits=blocks.bits,
        block_size=blocks.size,
        **level,
    )
    return [product, *(helper.make_node("Add", [result, name], list(node.output)) for name in bias)]


def _replace(
    graph: onnx.GraphProto, replaced: Mapping[int, Sequence[onnx.NodeProto]], weights: Collection[str]
) -> None:
    """Put nodes in the places of others, and drop these weights with what transposed them."""
    nodes = [
        new
        for place, node in enumerate(graph.node)
        for new in replaced.get(place, () if _turns(node, weights) else (node,))
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)
