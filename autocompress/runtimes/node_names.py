"""Names of an ONNX graph's nodes: those of the layers that they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from autocompress.core.artifact import Artifact
from autocompress.runtimes.onnx_export import scope_of
from autocompress.runtimes.onnx_file import IN_FLOAT, describe, load_model
from autocompress.runtimes.onnx_layers import layers_of
from autocompress.system.workspace import write_atomically

# what stands between the mark of a node that stays in float and its name
AFTER_MARK = ":"


def node_names(graph: onnx.GraphProto, around: str = "") -> list[str]:
    """A name of its own for each node, without spaces.

    It is that of its layer where it computes with the layer's weights; other nodes have their operator's name behind
    that of the layer around them. `around` is what weights are called by a wrapper around the model.
    """
    weighted = {layer.place: layer.name.removeprefix(around) for layer in layers_of(graph)}
    plain = [weighted.get(place) or _beside(node) for place, node in enumerate(graph.node)]
    plain = ["_".join(name.split()) for name in plain]
    count, seen = Counter(plain), Counter[str]()
    names: list[str] = []
    for name in plain:
        seen[name] += 1
        numbered = count[name] > 1 and seen[name] > 1
        names.append(f"{name}.{seen[name]}" if numbered else name)
    # a layer may have the name that a number made
    return names if len(set(names)) == len(names) else [f"{name}.{place}" for place, name in enumerate(names)]


def _beside(node: onnx.NodeProto) -> str:
    scope = scope_of(node)
    return f"{scope}.{node.op_type}" if scope else node.op_type


def with_names(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Give the nodes these names, behind the marks of those that stay in float."""
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = f"{node.name}{AFTER_MARK}{name}" if IN_FLOAT in node.name else name
    return model


def layer_of(node: onnx.NodeProto) -> str:
    """The name that `with_names` gave to a node, also where an optimizer added to it; empty without one."""
    return node.name.partition(AFTER_MARK)[2] if IN_FLOAT in node.name else node.name


def nodes_named(graph: onnx.GraphProto) -> Mapping[str, onnx.NodeProto]:
    """The nodes by the names that `with_names` gave them."""
    return {layer_of(node): node for node in graph.node if layer_of(node)}


def without_names(artifact: Artifact, destination: Path) -> Artifact:
    """A copy of a file whose nodes have no names, which costs some bytes for each.

    The marks of nodes that stay in float are kept.
    """
    model = load_model(artifact.path, with_weights=False)
    for node in model.graph.node:
        mark = node.name.partition(AFTER_MARK)[0] if IN_FLOAT in node.name else ""
        node.ClearField("name")
        if mark:
            node.name = mark
    if artifact.root != destination.parent:
        artifact.copy_to(destination)
    content = model.SerializeToString(deterministic=True)
    write_atomically(destination, lambda target: target.write_bytes(content))
    return describe(model, destination)
