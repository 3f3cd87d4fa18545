"""ONNX files: read with checks, and written without anything that the runtime does not need."""

from __future__ import annotations

import hashlib
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError

from autocompress.core.artifact import Artifact, TensorSpec, require_file
from autocompress.errors import ArtifactError, TechniqueError
from autocompress.runtimes.external_weights import (
    content_of,
    has_references,
    load_weights,
    move_weights,
    needs_own_file,
    refer_to,
    take_in,
    weight_files,
    without_folders,
)
from autocompress.system.workspace import write_atomically

# operators that a weight may pass through before the operator that uses it
PASSING = ("DequantizeLinear", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")
# prefix of the names of nodes that stay in float
IN_FLOAT = "in_float_"
# no digits: onnxruntime's quantizer names copies of a shared bias by adding a number, whether or not that name is taken
LETTERS = string.ascii_lowercase + string.ascii_uppercase
NUMBERED = re.compile(r"(.*?)[0-9]+")


def load_model(path: Path, *, with_weights: bool = True) -> onnx.ModelProto:
    """Load and check the model in an ONNX file, with the weights that lie beside it where they are needed.

    Raises:
        ArtifactError: when the file is missing, damaged or no ONNX model.
    """
    require_file(path)
    try:
        # without an explicit format the file's suffix would decide it
        model = onnx.load(path, format="protobuf", load_external_data=False)
        without_folders(model)
        beside = weight_files(model, path)
        # the checker looks for these files from the path of the graph
        onnx.checker.check_model(str(path) if beside else model)
        if beside and with_weights:
            load_weights(model, path.parent)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"is not a whole ONNX model ({reason}).", where=str(path), hint="Give an ONNX file, or export it again."
        ) from None
    if not model.graph.node and not model.graph.output:
        raise ArtifactError("is not an ONNX model: it has no graph.", where=str(path), hint="Give an ONNX file.")
    return model


def open_model(path: Path) -> onnx.ModelProto:
    """Load and check the model in an ONNX file; it refers to weights that lie beside it.

    Raises:
        ArtifactError: when the file is missing, damaged or no ONNX model.
    """
    model = load_model(path, with_weights=False)
    try:
        return refer_to(model, path.parent)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"is not a whole ONNX model ({error}).", where=str(path), hint="Export it again.") from None


def save_model(model: onnx.ModelProto, path: Path) -> Artifact:
    """Write the model to one file, whole or not at all, and describe it.

    Weights that are too many for one file go to a second one beside it, and are taken out of `model`, which then has no
    values for them. Otherwise those that it refers to are read into it.

    Raises:
        ArtifactError: when the graph alone is larger than the 2 GB that one ONNX file holds.
    """
    if needs_own_file(model):
        move_weights(model, path.parent)
    else:
        take_in(model)
    try:
        content = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ArtifactError(f"does not fit one ONNX file: {error}", where=str(path)) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda target: target.write_bytes(content))
    return describe(model, path)


def save_if_smaller(model: onnx.ModelProto, before: Artifact, folder: Path, name: str) -> Artifact:
    """Write a technique's result to a file of its own in `folder`, if it saved anything.

    Raises:
        TechniqueError: when the file is no smaller than the one it was made from.
    """
    path = folder / f"{name}-{before.hash[:8]}.onnx"
    made = save_model(model, path)
    if made.size_bytes >= before.size_bytes:
        raise TechniqueError(
            f"made the file no smaller ({made.size_bytes} bytes, {before.size_bytes} before).", where=name
        )
    return made


def describe(model: onnx.ModelProto, path: Path) -> Artifact:
    """Describe the model in a file as an artifact."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return Artifact(
        path.parent,
        path.name,
        (path.name, *(() if has_references(model) else weight_files(model, path))),
        "onnx",
        tuple(_spec(value) for value in model.graph.input if value.name not in stored),
        tuple(_spec(value) for value in model.graph.output),
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    dims = tensor.shape.dim
    # some exporters write -1 for a size that is free
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in dims]
    return TensorSpec(value.name, dtype, tuple(sizes), tuple(dim.dim_param for dim in dims))


def compact(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove everything that the runtime does not need.

    That is documentation, metadata, derived shapes, long names and repeated weights. In a small int8 model these make
    up a tenth of the file. Inputs and outputs keep their names. The result depends on the graph alone, so the same
    graph gives the same bytes.
    """
    graph = model.graph
    del model.metadata_props[:]
    model.doc_string = model.producer_version = model.domain = ""
    model.producer_name = "autocompress"
    graph.name, graph.doc_string = "model", ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    for node in graph.node:
        node.ClearField("name")
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    _name_free_dimensions(graph)
    _share_repeated_weights(graph)
    _shorten_names(graph)
    return model


def mark_float(model: onnx.ModelProto, places: Sequence[int]) -> onnx.ModelProto:
    """Mark the nodes at these indices to be left in float by quantization; costs some bytes for each."""
    for number, place in enumerate(places):
        # two nodes of one name are an error in onnxruntime
        model.graph.node[place].name = f"{IN_FLOAT}{number}"
    return model


def is_in_float(node: onnx.NodeProto) -> bool:
    """True for a marked node, and for nodes that an optimizer derived from one."""
    return IN_FLOAT in node.name


def weight_labels(model: onnx.ModelProto) -> dict[str, str]:
    """Descriptions of the stored tensors: where they are used and their shape, `Conv 7 of 21, 64x64x3x3`.

    They include the tensor's own name where the file keeps names (see `compact`).
    """
    graph = model.graph
    count = Counter(node.op_type for node in graph.node)
    seen: Counter[str] = Counter()
    users: dict[str, str] = {}
    # in reverse order, so that the operator that uses a tensor is known before nodes that unpack or reshape it
    for node in reversed(graph.node):
        place = count[node.op_type] - seen[node.op_type]
        seen[node.op_type] += 1
        own = f"{node.op_type} {place} of {count[node.op_type]}"
        passed_on = users.get(node.output[0], own) if node.op_type in PASSING and node.output else own
        for name in node.input:
            users[name] = passed_on
    nameless = model.producer_name == "autocompress"
    labels = {}
    for tensor in graph.initializer:
        shape = "x".join(map(str, tensor.dims)) or "one number"
        parts = ([] if nameless else [tensor.name]) + [users.get(tensor.name, "not used"), shape]
        labels[tensor.name] = ", ".join(parts)
    return labels


def _name_free_dimensions(graph: onnx.GraphProto) -> None:
    inputs = [value.type.tensor_type.shape.dim for value in graph.input]
    # the batch may be another dimension than the first of an output, such as the states of a recurrent layer
    batch = {dims[0].dim_param for dims in inputs if len(dims) and dims[0].dim_param}
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and (axis == 0 or dim.dim_param in batch):
                dim.dim_param = "batch"


def _share_repeated_weights(graph: onnx.GraphProto) -> None:
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    # input defaults, and values that branches and loop bodies refer to, are found by name and must keep it
    fixed = {value.name for value in (*graph.input, *graph.output)} | names_in_subgraphs(graph)
    for tensor in graph.initializer:
        tensor.ClearField("doc_string")
        del tensor.metadata_props[:]
        # a digest instead of the values, which may take gigabytes
        key = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(content_of(tensor)).digest())
        if key in first and tensor.name not in fixed:
            renamed[tensor.name] = first[key]
        else:
            first.setdefault(key, tensor.name)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name in renamed:
            del graph.initializer[place]
    rename(graph, renamed)


def _shorten_names(graph: onnx.GraphProto) -> None:
    fixed = {value.name for value in (*graph.input, *graph.output)}
    fixed |= names_in_subgraphs(graph)
    numbered = {found[1] for name in fixed if (found := NUMBERED.fullmatch(name))}
    short = (name for name in _short_names() if name not in fixed | numbered)
    renamed = {tensor.name: next(short) for tensor in graph.initializer if tensor.name not in fixed}
    for node in graph.node:
        for name in node.output:
            if name and name not in fixed:
                renamed[name] = next(short)
    rename(graph, renamed)


def rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Rename stored values, and the inputs and outputs of nodes that refer to them."""
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = renamed.get(name, name)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes that a node has, by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def subgraphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The branches and loop bodies of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def names_in_subgraphs(graph: onnx.GraphProto) -> set[str]:
    """All names that branches and loop bodies use, those of the graph around them included."""
    return {name for node in graph.node for sub in subgraphs_of(node) for name in _names_inside(sub)}


def _names_inside(graph: onnx.GraphProto) -> Iterator[str]:
    # names of the outer graph that a branch or loop body may refer to must not change
    for node in graph.node:
        yield from node.input
        yield from node.output
        for sub in subgraphs_of(node):
            yield from _names_inside(sub)
    for named in (*graph.input, *graph.output, *graph.initializer):
        yield named.name


def _short_names() -> Iterator[str]:
    number = 0
    while True:
        name, rest = "", number
        while True:
            rest, letter = divmod(rest, len(LETTERS))
            name = LETTERS[letter] + name
            if rest == 0:
                break
        yield name
        number += 1
