"""What an operator of the simulation knows of its node: attributes, version, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
import torch

from autocompress.runtimes.onnx_file import attributes_of

# called with the node and a tensor for each of its inputs, None for those that are left out
Operator = Callable[..., Any]


@dataclass(frozen=True)
class NodeCall:
    """A node as its operator sees it; `opset` is the version, `outputs` the number of outputs."""

    attributes: Mapping[str, Any]
    opset: int
    outputs: int

    @staticmethod
    def of(node: onnx.NodeProto, opset: int) -> NodeCall:
        """The call of a node."""
        found = attributes_of(node).items()
        plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in found}
        return NodeCall(plain, opset, len(node.output))

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default where it is not given."""
        return self.attributes.get(name, default)


def integers(tensor: torch.Tensor | None) -> list[int]:
    """The values of a tensor of integers in one dimension; none where there is no tensor."""
    return [] if tensor is None else [int(value) for value in tensor.reshape(-1).tolist()]


def axes_of(call: NodeCall, axes: torch.Tensor | None) -> list[int]:
    """The axes of a node: an attribute in older versions of an operator, an input in newer ones."""
    return integers(axes) if axes is not None else list(call.get("axes", ()))
