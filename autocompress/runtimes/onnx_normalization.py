"""The form of a user's ONNX graph that techniques work on: constants folded, weights in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from autocompress.runtimes.external_weights import has_references, referring_to_same, with_folders
from autocompress.runtimes.onnx_file import subgraphs_of
from autocompress.runtimes.onnx_layers import sizes_of
from autocompress.system.quiet import quiet

# the first version in which quantization may have one scale per channel
LEAST_OPSET = 13
NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
NAMES: Mapping[int, str] = {
    TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT: "float32",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Form:
    """A graph that computes what the given one does, with a sentence for each thing that was done to it."""

    model: onnx.ModelProto
    sentences: tuple[str, ...] = ()


def forms(model: onnx.ModelProto) -> Iterator[Form]:
    """Forms of a graph for techniques to begin with, the best first, the graph as it is last.

    Whether one computes the same is for the caller to try.
    """
    sentences: list[str] = []
    if has_references(model):
        # what is converted by C++ or in place would be read as a whole
        yield from _folded(_stored(model) or model, ())
        yield Form(model)
        return
    base = _stored(model) or model
    weights = main_type(base)
    if weights in NARROW:
        base = _in_float32(base, weights)
        sentences.append(f"its weights are in {NAMES[weights]}: techniques begin with a copy in float32")
    opset = opset_of(base)
    newer = _newer(base) if opset < LEAST_OPSET else None
    if newer is not None:
        said = f"its operators are those of opset {opset}: techniques begin with a copy in opset {LEAST_OPSET}"
        yield from _folded(newer, (*sentences, said))
    yield from _folded(base, tuple(sentences))
    yield Form(model)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), LEAST_OPSET)


def main_type(model: onnx.ModelProto) -> int:
    """The floating type that most of the stored values have; float32 where there are none."""
    counts: Counter[int] = Counter()
    for tensor, size in sizes_of(model.graph):
        counts[tensor.data_type] += size
    return counts.most_common(1)[0][0] if counts else TensorProto.FLOAT


def _folded(model: onnx.ModelProto, sentences: tuple[str, ...]) -> Iterator[Form]:
    """The graph optimized as exports are, then as it is."""
    # imported here: it takes half a second, which programs that only load files, such as the gate, need not wait for
    import onnx_ir
    from onnxscript.optimizer import optimize

    with quiet("onnxscript", "onnx_ir"):
        try:
            if has_references(model):
                graph = with_folders(onnx_ir.from_proto(model), model)
                folded = referring_to_same(onnx_ir.to_proto(optimize(graph)), model)
            else:
                folded = optimize(model)
        except Exception:  # noqa: BLE001 - an optimizer that cannot read a graph is no reason to refuse the file
            folded = None
    if folded is not None:
        yield Form(folded, sentences)
    yield Form(model, sentences)


def _stored(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph with functions inlined and constants stored, none an input; None where that fails."""
    # imported here: see `_folded`
    import onnx_ir
    from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveInitializersFromInputsPass

    with quiet("onnx_ir"):
        try:
            graph = with_folders(onnx_ir.from_proto(model), model)
            RemoveInitializersFromInputsPass()(graph)
            InlinePass()(graph)
            LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
            return referring_to_same(onnx_ir.to_proto(graph), model)
        except Exception:  # noqa: BLE001 - the graph is used as it is
            return None


def _newer(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The graph with the operators of `LEAST_OPSET`, None where the converter cannot do it."""
    try:
        return onnx.version_converter.convert_version(model, LEAST_OPSET)
    except Exception:  # noqa: BLE001 - the converter raises types of its own
        return None


def _in_float32(model: onnx.ModelProto, weights: int) -> onnx.ModelProto:
    """A copy that computes in float32; inputs and outputs keep their types."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    stored = {tensor.name for tensor in graph.initializer}
    _retype(graph, weights)
    first, last, renamed = [], [], {}
    for value in graph.input:
        if value.name not in stored and value.type.tensor_type.elem_type == weights:
            renamed[value.name] = f"{value.name}.float32"
            first.append(helper.make_node("Cast", [value.name], [renamed[value.name]], to=TensorProto.FLOAT))
    for value in graph.output:
        if value.type.tensor_type.elem_type == weights:
            inner = renamed.get(value.name, f"{value.name}.float32")
            renamed[value.name] = inner
            last.append(helper.make_node("Cast", [inner], [value.name], to=weights))
    _rename(graph, renamed)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*first, *nodes, *last])
    return made


def _retype(graph: onnx.GraphProto, weights: int) -> None:
    for tensor in graph.initializer:
        _as_float32(tensor, weights)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == weights:
                attribute.i = TensorProto.FLOAT
            if attribute.type == AttributeProto.TENSOR:
                _as_float32(attribute.t, weights)
        for inner in subgraphs_of(node):
            _retype(inner, weights)
            for value in (*inner.input, *inner.output):
                if value.type.tensor_type.elem_type == weights:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT
    # they follow from the rest
    del graph.value_info[:]


def _as_float32(tensor: TensorProto, weights: int) -> None:
    if tensor.data_type == weights:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _rename(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    """Rename values where nodes read or write them, in branches and loop bodies too."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)
        for inner in subgraphs_of(node):
            _rename(inner, renamed)
