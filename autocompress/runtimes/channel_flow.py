"""Where the channels of a layer's output go in an ONNX graph, up to the layers that read them.

The way is followed through operators that a positive factor per channel passes unchanged: dividing what a layer gives
by a factor and multiplying the weights that read it by the same factor then leaves the function as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from autocompress.core.source import Array
from autocompress.errors import TechniqueError
from autocompress.runtimes.channel_operators import BlockedError, ChannelMap, Values, passed
from autocompress.runtimes.graph_weights import Doubles, LinearWeight, StoredTensors, constants, linear_weights
from autocompress.runtimes.onnx_file import is_in_float, names_in_subgraphs

# operators with a factor, and some with an addend, for each channel: the axis of the channels
NORMALIZATIONS: Mapping[str, int] = {
    "LayerNormalization": -1,
    "RMSNormalization": -1,
    "SimplifiedLayerNormalization": -1,
    "BatchNormalization": 1,
    "InstanceNormalization": 1,
    "GroupNormalization": 1,
}


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads channels; `channels` is the channel map of its input `value`."""

    weight: LinearWeight
    value: str
    channels: ChannelMap

    def factors(self, scales: Doubles) -> Doubles:
        """The scale of each input channel of the layer; 1 for channels of other layers."""
        return at(scales, self.channels).reshape(-1)


@dataclass(frozen=True, eq=False)
class Ceiling:
    """A value that is cut off at 0 and at `bound`, as that of a ReLU6 is; `channels` is its channel map."""

    value: str
    channels: ChannelMap
    bound: float


@dataclass(frozen=True, eq=False)
class StoredInput:
    """A stored input of a node that is divided by the scales; `channels` fits its shape."""

    node: onnx.NodeProto
    position: int
    channels: ChannelMap


@dataclass(eq=False)
class Passage:
    """The way of one layer's output channels to all layers that read them.

    `weight` is that of the layer, None where it only scales: a normalization, or a product with a stored vector.
    """

    place: int
    size: int
    weight: LinearWeight | None
    stored: list[StoredInput] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)

    def scale_weights(self, tensors: StoredTensors, scales: Doubles) -> None:
        """Divide the weights before the way by these scales, one per channel, and multiply those that read it."""
        if self.weight is not None:
            self.weight.scale_outputs(tensors.values(self.weight.tensor), 1 / scales)
        for reader in self.readers:
            reader.weight.scale_inputs(tensors.values(reader.weight.tensor), reader.factors(scales))

    def scale_vectors(self, tensors: StoredTensors, scales: Doubles) -> None:
        """Divide the biases and the factors of normalizations on the way by these scales, one per channel."""
        for one in self.stored:
            values = tensors.values(one.node.input[one.position]) / at(scales, one.channels)
            tensors.own(one.node, one.position, values)


def at(scales: Doubles, channels: ChannelMap) -> Doubles:
    """The scale of each place of a channel map; 1 at places of other layers' channels."""
    return np.append(scales, 1.0)[channels]


def largest_by_channel(values: Array, channels: ChannelMap, size: int) -> Doubles:
    """The largest of a value's entries, at least 0, in each of `size` channels.

    Raises:
        TechniqueError: when the value has another shape than the map stands for.
    """
    other = tuple(axis for axis, wide in enumerate(channels.shape) if wide == 1)
    by_place = values.max(axis=other, keepdims=True, initial=0.0)
    if by_place.shape != channels.shape:
        raise TechniqueError("found channels along an axis whose size depends on the batch.")
    mine = channels >= 0
    found = np.zeros(size)
    np.maximum.at(found, channels[mine], by_place[mine])
    return found


def passages(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> list[Passage]:
    """All ways along which scales can be moved, the last first; no two end at the same channels.

    `shapes` are those of all values in one call. Nodes that stay in float, and matrices that several nodes use, are
    left alone.
    """
    flow = _Flow(graph, shapes)
    found: list[Passage] = []
    taken: set[tuple[int, int]] = set()
    for place in reversed(range(len(graph.node))):
        passage = flow.from_node(place)
        if passage is None or not passage.readers:
            continue
        # the parts of a concatenation end at one layer, each at other channels
        ends = {
            (reader.weight.place, int(channel))
            for reader in passage.readers
            for channel in np.flatnonzero(reader.channels >= 0)
        }
        if not ends & taken:
            taken |= ends
            found.append(passage)
    return found


class _Flow:
    """Follows channels through one graph."""

    def __init__(self, graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._nodes = list(graph.node)
        self._values = Values(shapes, constants(graph))
        self._tensors = StoredTensors(graph)
        self._weights = {weight.place: weight for weight in linear_weights(graph)}
        self._users: dict[str, list[int]] = {}
        for place, node in enumerate(graph.node):
            for name in dict.fromkeys(node.input):
                self._users.setdefault(name, []).append(place)
        self._fixed = {value.name for value in graph.output} | names_in_subgraphs(graph)

    def from_node(self, place: int) -> Passage | None:
        """The way of a node's output channels; None where they cannot be scaled."""
        node = self._nodes[place]
        start = self._start(place)
        if start is None or is_in_float(node):
            return None
        axis, positions = start
        shape = self._values.shapes[node.output[0]]
        channels = np.arange(shape[axis]).reshape([-1 if one == axis % len(shape) else 1 for one in range(len(shape))])
        passage = Passage(place, shape[axis], self._weights.get(place))
        try:
            for position in positions:
                vector = channels if node.op_type == "Mul" else channels.reshape(-1)
                self._divide(passage, node, position, vector)
            self._follow(passage, node.output[0], channels)
        except BlockedError:
            return None
        return passage

    def _start(self, place: int) -> tuple[int, list[int]] | None:
        """The axis of a node's output channels and its stored inputs with one value for each of them."""
        node = self._nodes[place]
        if not node.output or not self._values.shapes.get(node.output[0]):
            return None
        if place in self._weights:
            weight = self._weights[place]
            alone = self._tensors.users(weight.tensor) == 1
            return (weight.channel_axis, [2] if len(node.input) > 2 and node.input[2] else []) if alone else None
        if node.op_type in NORMALIZATIONS and len(node.input) > 1:
            positions = [position for position in (1, 2) if len(node.input) > position and node.input[position]]
            return NORMALIZATIONS[node.op_type], positions
        return self._vector_product(node) if node.op_type == "Mul" else None

    def _vector_product(self, node: onnx.NodeProto) -> tuple[int, list[int]] | None:
        stored = [position for position, name in enumerate(node.input) if name in self._tensors]
        if len(stored) != 1:
            return None
        shape = self._tensors.shape(node.input[stored[0]])
        wide = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
        return (wide[0], stored) if len(wide) == 1 else None

    def _divide(self, passage: Passage, node: onnx.NodeProto, position: int, channels: ChannelMap) -> None:
        """Note that a stored input is divided by the scales, where it has room for one value per channel."""
        name = node.input[position]
        if name not in self._tensors:
            raise BlockedError
        shape = self._tensors.shape(name)
        places = max(channels.ndim, len(shape))
        wide = (1,) * (places - channels.ndim) + channels.shape
        room = (1,) * (places - len(shape)) + shape
        if any(one not in (1, size) for one, size in zip(wide, room, strict=True)):
            raise BlockedError
        channels = channels.reshape(wide[places - len(shape) :])
        passage.stored.append(StoredInput(node, position, channels))

    def _follow(self, passage: Passage, name: str, channels: ChannelMap) -> None:
        known = {name: channels}
        coming = self._after(name)
        while coming:
            # in the order of the graph, so that all inputs of a node that hold channels are known
            coming.remove(place := min(coming))
            node = self._nodes[place]
            positions = [position for position, one in enumerate(node.input) if one in known]
            if is_in_float(node) or len(positions) != 1 or not node.output:
                raise BlockedError
            position = positions[0]
            found = self._through(passage, place, position, known[node.input[position]])
            if found is not None:
                known[node.output[0]] = found
                coming |= self._after(node.output[0])

    def _after(self, name: str) -> set[int]:
        if name in self._fixed:
            raise BlockedError
        return set(self._users.get(name, ()))

    def _through(self, passage: Passage, place: int, position: int, channels: ChannelMap) -> ChannelMap | None:
        """The channel map of a node's output; None where the node is a layer that reads the channels."""
        node = self._nodes[place]
        if place in self._weights:
            self._read(passage, self._weights[place], position, channels)
            return None
        if node.op_type in ("Add", "Sub"):
            if len(node.input) != 2 or (node.op_type == "Sub" and position != 0):
                raise BlockedError
            self._divide(passage, node, 1 - position, channels)
            return channels
        if node.op_type == "Clip":
            self._cut_off(passage, node, position, channels)
            return channels
        return passed(node, position, channels, self._values)

    def _read(self, passage: Passage, weight: LinearWeight, position: int, channels: ChannelMap) -> None:
        axis = weight.channel_axis % channels.ndim
        if position != 0 or self._tensors.users(weight.tensor) > 1 or channels.size != channels.shape[axis]:
            raise BlockedError
        size = self._values.shapes[weight.node.input[0]][axis]
        full = np.broadcast_to(channels, [size if one == axis else 1 for one in range(channels.ndim)])
        passage.readers.append(Reader(weight, weight.node.input[0], full))

    def _cut_off(self, passage: Passage, node: onnx.NodeProto, position: int, channels: ChannelMap) -> None:
        names = [*node.input[1:], "", ""][:2]
        if position != 0 or any(name and name not in self._values.constants for name in names):
            raise BlockedError
        low, high = (
            float(self._values.constants[name].reshape(-1)[0]) if name else default
            for name, default in zip(names, (-np.inf, np.inf), strict=True)
        )
        if low not in (0.0, -np.inf) or not high > 0:
            raise BlockedError
        if np.isfinite(high):
            passage.ceilings.append(Ceiling(node.input[0], channels, high))
