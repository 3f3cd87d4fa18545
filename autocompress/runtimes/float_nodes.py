"""Nodes of an ONNX graph that quantization leaves in float, and what they read beside quantized ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx

from autocompress.errors import TechniqueError
from autocompress.runtimes.node_names import nodes_named
from autocompress.runtimes.onnx_file import is_in_float, names_in_subgraphs

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# operators that the runtime computes in int8 between two pairs of these; their float output does not exist then
COMPUTED_IN_INT8 = frozenset(
    (
        *("Conv", "MatMul", "Gemm", "Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "AveragePool"),
        *("GlobalAveragePool", "Concat", "Where", "Relu", "Clip", "MaxPool", "Reshape", "Transpose", "Squeeze"),
        *("Unsqueeze", "Flatten", "Slice", "Gather", "GatherElements", "Split", "Resize", "Pad", "TopK", "ArgMax"),
    )
)
# what the names of values and nodes get that keep a float node from being fused
UNFUSED = "_in_float"
MOST_NAMED = 5


def places_in_float(graph: onnx.GraphProto, names: Sequence[str], where: str) -> list[int]:
    """Indices of the nodes that are marked to stay in float, and of those with these names.

    Raises:
        TechniqueError: when no node has one of the names.
    """
    known = nodes_named(graph)
    for name in names:
        if name not in known:
            some = ", ".join(list(known)[:MOST_NAMED]) or "no names"
            raise TechniqueError(
                f"cannot leave {name!r} in float: no node of the file has that name.",
                where=where,
                hint=f"It has {some}{' ...' if len(known) > MOST_NAMED else ''}.",
            )
    chosen = {known[name].output[0] for name in names}
    return [place for place, node in enumerate(graph.node) if is_in_float(node) or chosen.intersection(node.output)]


def leave_in_float(quantized: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]) -> None:
    """Make nodes that the quantizer left out compute in float, by their inputs and without fusions.

    `names` are the names that these nodes have in the float graph and in the quantized one.
    """
    _read_float(quantized.graph, original.graph, names)
    _keep_from_fusing(quantized.graph, names)


def _read_float(graph: onnx.GraphProto, original: onnx.GraphProto, names: Collection[str]) -> None:
    """Let nodes that stay in float read float tensors wherever these are computed anyhow.

    The quantizer lets every reader of a tensor read the dequantized one as soon as one of them needs it. A tensor that
    an int8 operator makes remains so: the float tensor does not exist, and asking for it would make that operator
    compute in float.
    """
    makers = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in original.initializer}
    kept = {node.name: node for node in graph.node if node.name in names}
    present = {tensor.name for tensor in graph.initializer}
    for before in original.node:
        node = kept.get(before.name)
        if node is None:
            continue
        for place, wanted in enumerate(before.input):
            if node.input[place] == wanted:
                continue
            if wanted in stored and wanted not in present:
                graph.initializer.append(stored[wanted])
                present.add(wanted)
            source = wanted if wanted in stored else _float_source(node.input[place], makers, names)
            node.input[place] = source or node.input[place]
    _remove_unread(graph)


def _keep_from_fusing(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Put an operator that changes nothing behind float nodes whose output is quantized.

    onnxruntime fuses every operator between a pair at its input and one at its output into an int8 kernel, and
    quantizes the float weights of convolutions there itself, with one scale for all channels. Of operators that change
    nothing, its optimizer keeps this one, and computes it inside a float convolution without extra time.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    dequantized = {name for node in graph.node if node.op_type == DEQUANTIZE for name in node.output}
    constant = {tensor.name for tensor in graph.initializer} | {""}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        computed = [name for name in node.input if name not in constant]
        # one input in float is enough to keep it from being fused
        if node.name not in names or not dequantized.issuperset(computed):
            continue
        for output, name in enumerate(node.output):
            if not _is_quantized(name, readers):
                continue
            inner = f"{name}{UNFUSED}"
            node.output[output] = inner
            same = onnx.helper.make_node("LeakyRelu", [inner], [name], f"{node.name}{UNFUSED}{output}", alpha=1.0)
            graph.node.insert(place + 1, same)


def _is_quantized(name: str, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    """True where a value is quantized, at once or behind an activation that quantization takes in."""
    return any(
        reader.op_type == QUANTIZE
        or (reader.op_type in ("Relu", "Clip") and any(_is_quantized(out, readers) for out in reader.output))
        for reader in readers.get(name, [])
    )


def _float_source(name: str, makers: Mapping[str, onnx.NodeProto], names: Collection[str]) -> str:
    """The float tensor that a dequantized one is made from, empty where an int8 operator makes it."""
    dequantize = makers.get(name)
    if dequantize is None or dequantize.op_type != DEQUANTIZE:
        return ""
    quantize = makers.get(dequantize.input[0])
    if quantize is None or quantize.op_type != QUANTIZE:
        return ""
    source = quantize.input[0]
    maker = makers.get(source)
    in_int8 = (
        maker is not None
        and maker.name not in names
        and maker.op_type in COMPUTED_IN_INT8
        and any(makers[read].op_type == DEQUANTIZE for read in maker.input if read in makers)
    )
    return "" if in_int8 else source


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Remove pairs that nothing reads any more, with their scales and quantized weights."""
    outputs = {value.name for value in graph.output}
    while unread := list(_unread(graph, outputs)):
        for node in unread:
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | outputs | names_in_subgraphs(graph)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in read:
            del graph.initializer[place]


def _unread(graph: onnx.GraphProto, outputs: Collection[str]) -> Iterator[onnx.NodeProto]:
    read = {name for node in graph.node for name in node.input} | names_in_subgraphs(graph)
    for node in graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE) and not {*read, *outputs}.intersection(node.output):
            yield node
