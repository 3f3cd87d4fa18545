"""Operators that a positive factor per channel passes unchanged, and where each leaves the channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from autocompress.core.source import Array
from autocompress.runtimes.onnx_file import attributes_of

# the channel that lies at each place along the axes that hold channels, -1 for one of another layer; an axis of size 1
# stands for any size, and all its places hold the same channels
ChannelMap = NDArray[np.int64]


class BlockedError(Exception):
    """A factor per channel cannot pass."""


@dataclass(frozen=True, eq=False)
class Values:
    """What is known of a graph's values: the shapes in one call, and the small stored tensors."""

    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Array]

    def numbers(self, node: onnx.NodeProto, attribute: str, position: int) -> list[int] | None:
        """Whole numbers that a node takes as an attribute, or as a stored input; None without."""
        given = attributes_of(node).get(attribute)
        if isinstance(given, list | tuple):
            return [int(one) for one in given]
        if len(node.input) <= position or not node.input[position]:
            return None
        if node.input[position] not in self.constants:
            raise BlockedError
        return [int(one) for one in self.constants[node.input[position]].reshape(-1)]


Passing = Callable[[onnx.NodeProto, int, ChannelMap, Values], ChannelMap]


def passed(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    """The channel map of a node's output, of whose inputs that at `position` has the map `channels`.

    Raises:
        BlockedError: when the operator is not known to let factors pass.
    """
    if node.op_type not in PASSING:
        raise BlockedError
    return PASSING[node.op_type](node, position, channels, values)


def with_single_axes(channels: ChannelMap) -> ChannelMap:
    """The map with size 1 for all axes along which nothing changes."""
    for axis in range(channels.ndim):
        first = channels.take([0], axis=axis)
        if np.array_equal(np.broadcast_to(first, channels.shape), channels):
            channels = first
    return channels


def _require_single(channels: ChannelMap, axes: list[int]) -> None:
    if any(channels.shape[axis] != 1 for axis in axes):
        raise BlockedError


def _same(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    if position != 0:
        raise BlockedError
    return channels


def _over_space(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    """Poolings and resizing, which treat every channel alike."""
    if position != 0:
        raise BlockedError
    _require_single(channels, list(range(2, channels.ndim)))
    return channels


def _padded(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    # zeros stay zeros, other constants do not
    filling = node.input[2] if len(node.input) > 2 else ""
    zero = not filling or (filling in values.constants and not np.any(values.constants[filling]))
    if position != 0 or len(node.input) > 3 or not zero or attributes_of(node).get("value", 0.0) != 0.0:
        raise BlockedError
    pads = np.reshape(values.numbers(node, "pads", 1) or [], (2, -1))
    if pads.shape[1] != channels.ndim:
        raise BlockedError
    _require_single(channels, np.flatnonzero(pads.any(axis=0)).tolist())
    return channels


def _reduced(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    axes = values.numbers(node, "axes", 1) if position == 0 else None
    if axes is None:
        raise BlockedError
    axes = [axis % channels.ndim for axis in axes]
    _require_single(channels, axes)
    return channels if attributes_of(node).get("keepdims", 1) else np.squeeze(channels, tuple(axes))


def _reshaped(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    """The order of the values is kept, so the map is reshaped as they are."""
    before, after = values.shapes.get(node.input[0]), values.shapes.get(node.output[0])
    if position != 0 or before is None or after is None:
        raise BlockedError
    return with_single_axes(np.broadcast_to(channels, before).reshape(after))


def _transposed(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    order = values.numbers(node, "perm", len(node.input))
    return np.transpose(channels, order)


def _taken(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    """One or several places along an axis that holds no channels, such as the first token."""
    axis = attributes_of(node).get("axis", 0)
    after = values.shapes.get(node.output[0])
    if position != 0 or not isinstance(axis, int) or after is None:
        raise BlockedError
    axis %= channels.ndim
    _require_single(channels, [axis])
    added = len(after) - channels.ndim + 1
    return channels.reshape(channels.shape[:axis] + (1,) * added + channels.shape[axis + 1 :])


def _joined(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    axis = attributes_of(node).get("axis")
    shapes = [values.shapes.get(name) for name in node.input]
    if not isinstance(axis, int) or any(shape is None or len(shape) != channels.ndim for shape in shapes):
        raise BlockedError
    sizes = [shape[axis] for shape in shapes if shape is not None]
    parts = [
        np.broadcast_to(channels if place == position else np.int64(-1), _with_size(channels.shape, axis, size))
        for place, size in enumerate(sizes)
    ]
    return with_single_axes(np.concatenate(parts, axis=axis))


def _with_size(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    axis %= len(shape)
    return (*shape[:axis], size, *shape[axis + 1 :])


def _multiplied(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    """Products with any other value, and quotients by one."""
    after = values.shapes.get(node.output[0])
    if after is None or (node.op_type == "Div" and position != 0):
        raise BlockedError
    return channels.reshape((1,) * (len(after) - channels.ndim) + channels.shape)


def _mixed(node: onnx.NodeProto, position: int, channels: ChannelMap, values: Values) -> ChannelMap:
    """A matrix product with sums over an axis without channels, such as attention times values."""
    after = values.shapes.get(node.output[0])
    if after is None or channels.ndim < 2:
        raise BlockedError
    _require_single(channels, [-1 if position == 0 else -2])
    return channels.reshape((1,) * (len(after) - channels.ndim) + channels.shape)


# where the channels are after each operator
PASSING: Mapping[str, Passing] = {
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Identity", "Dropout", "Abs"), _same),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Resize"), _over_space),
    "Pad": _padded,
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _reduced),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshaped),
    "Transpose": _transposed,
    "Gather": _taken,
    "Concat": _joined,
    **dict.fromkeys(("Mul", "Div"), _multiplied),
    "MatMul": _mixed,
}
