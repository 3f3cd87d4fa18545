"""ONNX files that users give as models, read with checks; nothing in them is run as code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from autocompress.core.artifact import DTYPES, require_file
from autocompress.errors import ArtifactError, ModelError
from autocompress.runtimes.external_weights import bytes_of, fits_one_file, refer_to, tensors_of, without_folders
from autocompress.runtimes.onnx_file import subgraphs_of

STANDARD = ("", "ai.onnx")
# operators that compute with, or make, integers in place of floats; in onnxruntime's domain by the first part of a name
QUANTIZED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
)  # fmt: skip
QUANTIZED_OF_MICROSOFT = (
    "QLinear", "QGemm", "QAttention", "QEmbed", "QOrdered", "QMoE", "Quantize", "Dequantize", "DynamicQuantize",
    "MatMulInteger", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "GatherBlockQuantized",
)  # fmt: skip


def read_source(path: Path) -> onnx.ModelProto:
    """The model in a user's file, with the weights that it keeps in files beside it.

    It refers to weights that are too many for one file.

    Raises:
        ArtifactError: when the file is missing, no whole ONNX model, or names weights outside of its folder.
        ModelError: when it is already quantized, an input is no tensor of numbers, or it is larger than one file can be
            and not in float32.
    """
    require_file(path)
    try:
        # without an explicit format the file's suffix would decide it
        model = onnx.load(path, format="protobuf", load_external_data=False)
        if not model.graph.node and not model.graph.output:
            raise ArtifactError("is not an ONNX model: it has no graph.", where=str(path), hint="Give an ONNX file.")
        without_folders(model)
        _load_weights(model, path)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"is not a whole ONNX model ({reason}).", where=str(path), hint="Give an ONNX file, or export it again."
        ) from None
    _require_float(model, path)
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in stored:
            _require_tensor(value, "input", path)
    return model


def holds_its_weights(path: Path) -> bool:
    """True when a file keeps no weights in other files."""
    model = onnx.load(path, format="protobuf", load_external_data=False)
    return not any(uses_external_data(tensor) for tensor in tensors_of(model))


def with_outputs(model: onnx.ModelProto, chosen: Sequence[str], path: Path) -> onnx.ModelProto:
    """The model with the chosen outputs alone, in this order; all where none is chosen.

    A name stands for all outputs below it, as `state` for `state.h`.

    Raises:
        ModelError: when one is not there, or is no tensor of numbers.
    """
    graph = model.graph
    values = {value.name: value for value in graph.output}
    kept = dict.fromkeys(values)
    if chosen:
        kept = {}
        for choice in chosen:
            under = [name for name in values if name == choice or name.startswith(f"{choice}.")]
            if not under:
                raise ModelError(f"has no output {choice!r}.", where=str(path), hint=f"It has {', '.join(values)}.")
            kept |= dict.fromkeys(under)
    for name in kept:
        _require_tensor(values[name], "output", path)
    if list(kept) == list(values):
        return model
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.output[:]
    cut.graph.output.extend(values[name] for name in kept)
    _remove_unused(cut.graph)
    return cut


def _load_weights(model: onnx.ModelProto, path: Path) -> None:
    """Load and check weights from files in the model's folder alone; large models refer to them."""
    folder = path.resolve().parent
    files = set()
    for tensor in tensors_of(model):
        if not uses_external_data(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise ArtifactError(
                f"keeps the weight {tensor.name!r} in {location!r}, which is not in its folder.",
                where=str(path),
                hint="Put the file with the weights beside it and export it again; no other file is read.",
            )
        if not file.is_file():
            raise ArtifactError(
                f"keeps weights in {location!r}, which is not there.",
                where=str(path),
                hint="Put that file beside it: the two belong together.",
            )
        files.add(file)
    if not fits_one_file(path.stat().st_size + sum(file.stat().st_size for file in files)):
        # the checker looks for these files from the path of the graph
        onnx.checker.check_model(str(path))
        _require_float32(refer_to(model, folder), path)
    else:
        load_external_data_for_model(model, str(folder))
        onnx.checker.check_model(model)


def _require_float32(model: onnx.ModelProto, path: Path) -> None:
    counts: Counter[int] = Counter()
    for tensor in model.graph.initializer:
        counts[tensor.data_type] += bytes_of(tensor)
    main = counts.most_common(1)[0][0] if counts else TensorProto.FLOAT
    if main in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        raise ModelError(
            f"has {sum(counts.values()) / 1e9:.1f} GB of weights in {TensorProto.DataType.Name(main).lower()}, and "
            "where one file does not hold them only weights in float32 can be compressed.",
            where=str(path),
            hint="Export it in float32, or give the PyTorch module.",
        )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs_of(node):
            yield from _nodes(inner)


def _require_float(model: onnx.ModelProto, path: Path) -> None:
    found: Counter[str] = Counter()
    for node in (*_nodes(model.graph), *(node for function in model.functions for node in function.node)):
        microsoft = node.domain == "com.microsoft" and node.op_type.startswith(QUANTIZED_OF_MICROSOFT)
        if microsoft or (node.domain in STANDARD and node.op_type in QUANTIZED):
            found[node.op_type] += 1
    if found:
        named = ", ".join(f"{count} {operator}" for operator, count in found.most_common(3))
        raise ModelError(
            f"is already quantized ({named}), so nothing is left to try on it.",
            where=str(path),
            hint="Give the float model; `autocompress check` judges this file as it is.",
        )


def _require_tensor(value: onnx.ValueInfoProto, role: str, path: Path) -> None:
    kind = value.type.WhichOneof("value") or "tensor_type"
    choose = "Choose others with outputs= (--output)." if role == "output" else ""
    if kind != "tensor_type":
        what = kind.removesuffix("_type").replace("_", " ")
        raise ModelError(f"{role} {value.name!r} is a {what}, not a tensor.", where=str(path), hint=choose)
    number = value.type.tensor_type.elem_type
    dtype = TensorProto.DataType.Name(number).lower()
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    if dtype not in DTYPES:
        raise ModelError(
            f"{role} {value.name!r} holds {dtype} values, which are not supported.",
            where=str(path),
            hint=choose or f"Known are {', '.join(DTYPES)}.",
        )
    if role == "input" and not value.type.tensor_type.HasField("shape"):
        raise ModelError(
            f"input {value.name!r} has no shape, not even the number of its dimensions.",
            where=str(path),
            hint="Export it with shapes; sizes may be free.",
        )


def _remove_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and stored values that no output needs; inputs stay."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_read_by(node))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(nodes)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]
    made = {name for node in graph.node for name in node.output}
    for place in reversed(range(len(graph.value_info))):
        if graph.value_info[place].name not in made:
            del graph.value_info[place]


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for inner in subgraphs_of(node):
        for one in inner.node:
            yield from _read_by(one)
        yield from (value.name for value in inner.output)
