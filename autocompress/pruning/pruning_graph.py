"""Couplings between a network's channels, found by torch-pruning, and the means to verify cuts.

Coupling: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. A cut is accepted only when the cut
network gives what the whole network gives once every layer that reads the cut channels has zeros for them. Shapes
alone would let a channel shuffle or a reshape pass, after which weights meet the wrong channels.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch_pruning.ops import OPTYPE

from autocompress.core.runtime import Example
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.errors import TechniqueError
from autocompress.pruning.dependency_graph import CannotCutError, traced, what

WHERE = "channel_pruning"
READERS = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
NORMS = {OPTYPE.LN: tp.prune_layernorm_out_channels, OPTYPE.GN: tp.prune_groupnorm_out_channels}
# operations that reorder channels; groups with one of these are tried after those without
MOVING = {OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.UNBIND, OPTYPE.SLICE, OPTYPE.EXPAND, OPTYPE.RESHAPE}


@dataclass(frozen=True, eq=False)
class Coupling:
    """Channels that can only be cut together.

    They form `blocks` equal parts, and each part must lose the same places.
    """

    name: str
    channels: int
    blocks: int
    layers: tuple[str, ...]
    items: Any

    @property
    def moves(self) -> bool:
        """True when an operation between its layers changes the order or number of channels."""
        return any(item.dep.target.type in MOVING for item in self.items)

    @property
    def attends(self) -> bool:
        """True when there are products between activations among its operations."""
        names = (str(item.dep.target.grad_fn) for item in self.items)
        return any("ScaledDotProduct" in name or "BmmBackward" in name for name in names)

    @property
    def padded(self) -> bool:
        """True when an operation between its layers pads the second dimension of images."""
        pads = (getattr(item.dep.target.grad_fn, "_saved_pad", ()) for item in self.items)
        return any(any(pad[4:6]) for pad in pads)


class PruningGraph:
    """The couplings of a module's channels, with methods to cut or silence them.

    The given module itself is traced and cut, so give a copy. Couplings can be used as long as this object exists.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        """Trace the module.

        Raises:
            TechniqueError: when torch-pruning cannot trace it.
        """
        self.module = module
        for parameter in module.parameters():
            # tracing follows gradients, frozen layers included
            parameter.requires_grad_(parameter.is_floating_point())
        try:
            self.graph = traced(module, example)
        except Exception as error:
            raise TechniqueError(
                f"the model cannot be traced for channels that hang together ({what(error)}).", where=WHERE
            ) from error
        weakref.finalize(self, self.graph.release)

    def couplings(self) -> tuple[list[Coupling], dict[str, str]]:
        """All couplings in the order of their first layers, and the reasons against other groups."""
        found: list[Coupling] = []
        left_alone: dict[str, str] = {}
        seen: set[nn.Module] = set()
        shared = _sharing(self.module)
        for name, part in self.module.named_modules():
            if part in seen or part not in self.graph.module2node or not is_root(part):
                continue
            try:
                coupling = self._coupling(name, part)
                seen.update(self.module.get_submodule(layer) for layer in coupling.layers)
                self._object(coupling, shared)
            except CannotCutError as reason:
                left_alone[name] = str(reason)
            else:
                found.append(coupling)
        return found, left_alone

    def _coupling(self, name: str, root: nn.Module) -> Coupling:
        channels = int(self.graph.get_out_channels(root))
        items = self.graph.group_of(root, range(channels))
        blocks, layers = [1], []
        for dep, _ in items:
            part = dep.target.module
            if not isinstance(part, nn.Module) or part not in self.graph._module2name:
                continue
            reads = dep.handler in READERS
            if not reads and isinstance(part, nn.modules.conv._ConvNd | nn.Linear | nn.Embedding):
                layers.append(self.graph._module2name[part])
            if dep.target.type is OPTYPE.GN:
                blocks.append(part.num_groups)
            elif dep.target.type is OPTYPE.CONV:
                blocks.append(part.groups)
        most = max(blocks)
        if any(most % count for count in blocks) or channels % most:
            raise CannotCutError("layers of different numbers of groups are coupled")
        return Coupling(name, channels, most, tuple(layers), items)

    def _object(self, coupling: Coupling, shared: Mapping[nn.Module, str]) -> None:
        """Raise CannotCutError where a coupling cannot be cut for reasons known without trying."""
        if coupling.channels < 2 * coupling.blocks:
            raise CannotCutError("it has no more channels than it must keep")
        for dep, _ in coupling.items:
            node = dep.target
            if isinstance(node.module, nn.MultiheadAttention):
                raise CannotCutError("it is the width of an attention layer")
            if isinstance(node.module, nn.RNNBase | nn.RNNCellBase):
                raise CannotCutError("it is the width of a recurrent layer")
            if dep.handler not in READERS and (node.type is OPTYPE.OUTPUT or node.grad_fn in self.graph.outputs):
                raise CannotCutError("its channels are the model's output")
            if isinstance(node.module, nn.Module) and is_parametrized(node.module):
                raise CannotCutError(f"the weights of layer {self.graph._module2name[node.module]} are computed")
            if node.module in shared:
                raise CannotCutError(f"layer {shared[node.module]} shares its weights with another")

    def cut(self, cuts: Mapping[str, Sequence[int]]) -> None:
        """Cut output channels, given by the name of their group's first layer, out of the module.

        Raises:
            CannotCutError: when more channels than these would be cut.
        """
        for name, indices in cuts.items():
            group = self.graph.group_of(self.module.get_submodule(name), indices)
            if sorted(group[0].idxs) != sorted(indices):
                raise CannotCutError("its channels are coupled with one another")
            if not self.graph.check_pruning_group(group):
                raise CannotCutError("a layer would be left without channels")
            self.graph.cut(group)

    def silenced(self, cuts: Mapping[str, Sequence[int]]) -> nn.Module:
        """A copy of the whole module in which these channels have no effect.

        Weights that read them are zero, and norms over channels leave them out.
        """
        twin = own_copy(self.module)
        read: dict[str, set[int]] = {}
        normed: dict[str, set[int]] = {}
        for name, indices in cuts.items():
            for dep, places in self.graph.group_of(self.module.get_submodule(name), indices):
                layer = self.graph._module2name.get(dep.target.module)
                if layer is not None and dep.handler in READERS:
                    read.setdefault(layer, set()).update(places)
                elif layer is not None and dep.target.type in NORMS:
                    normed.setdefault(layer, set()).update(places)
        for layer, places in read.items():
            _silence(twin.get_submodule(layer), sorted(places))
        for layer, places in normed.items():
            _pass_over(twin.get_submodule(layer), sorted(places))
        return twin


def own_copy(module: nn.Module) -> nn.Module:
    """A copy of the module with weights of its own.

    Raises:
        TechniqueError: when the module cannot be copied.
    """
    try:
        return with_own_weights(with_shared_weights(module))
    except Exception as error:
        raise TechniqueError(f"the model cannot be copied ({what(error)}).", where=WHERE) from error


def is_root(part: nn.Module) -> bool:
    """True for layers that can name a group; depthwise ones are cut only with the layer before them."""
    if isinstance(part, nn.modules.conv._ConvNd):
        return part.groups != part.out_channels or part.out_channels == 1
    return isinstance(part, nn.Linear)


def _sharing(module: nn.Module) -> dict[nn.Module, str]:
    """Names of the layers that hold a parameter which another layer holds too."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for name, part in module.named_modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append((part, name))
    return {part: name for held in holders.values() if len(held) > 1 for part, name in held}


def _silence(layer: nn.Module, places: Sequence[int]) -> None:
    """Zero the weights that read these input channels of a convolution or linear layer."""
    weight = layer.get_parameter("weight").data
    if isinstance(layer, nn.modules.conv._ConvNd) and layer.transposed:
        weight[list(places)] = 0
    elif isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1:
        taken, given = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        for place in places:
            block, inside = divmod(place, taken)
            weight[block * given : (block + 1) * given, inside] = 0
    else:
        weight[:, list(places)] = 0


def _pass_over(norm: nn.Module, places: Sequence[int]) -> None:
    """Make a norm compute its statistics over the other channels only."""
    small = copy.deepcopy(norm)
    assert isinstance(norm, nn.GroupNorm | nn.LayerNorm)
    channels = norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.normalized_shape[-1]
    NORMS[tp.ops.module2type(norm)](small, list(places))
    kept = torch.tensor(sorted(set(range(channels)) - set(places)))

    def forward(values: torch.Tensor) -> torch.Tensor:
        # subclasses of layer norm for images have their channels second
        dim = -1 if type(norm) is nn.LayerNorm else 1
        kept_here = kept.to(values.device)
        normed: torch.Tensor = small(values.index_select(dim, kept_here))
        return torch.zeros_like(values).index_copy(dim, kept_here, normed)

    norm.forward = forward  # type: ignore[assignment,method-assign]  # a layer of our own copy
