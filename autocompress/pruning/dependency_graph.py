"""torch-pruning's dependency graph, traced from a user's module and bounded against endless searches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch_pruning._helpers import GroupItem, _HybridIndex
from torch_pruning.dependency import Dependency, Group
from torch_pruning.dependency.index_mapping import update_index_mapping
from torch_pruning.ops import OPTYPE

from autocompress.core.runtime import Example
from autocompress.data.module import call_by, first_line, place_of, unfused_encoder_layers

STEPS_PER_DEPENDENCY = 50


class CannotCutError(Exception):
    """The reason why a group cannot be cut, worded as the end of a sentence."""


class _Bounded(list[Any]):
    """The index mappings of one dependency, which stop a search that does not end.

    Around a reshape that torch-pruning misinterprets, indices multiply without end (swin_t). No real group has more
    indices than the widest tensor of weights, or more steps than a fixed number per dependency.
    """

    def __init__(self, mappings: Iterable[Any], graph: DependencyGraph) -> None:
        super().__init__(mappings)
        self.graph = graph

    def __iter__(self) -> Iterator[Any]:
        self.graph.steps_left -= 1
        if self.graph.steps_left < 0:
            raise CannotCutError("its channels are coupled in circles")
        for mapping in super().__iter__():
            yield mapping and self._bounded(mapping)

    def _bounded(self, mapping: Any) -> Any:
        def apply(indices: list[Any]) -> list[Any]:
            if len(indices) > self.graph.widest:
                raise CannotCutError("its channels are coupled in circles")
            return mapping(indices)  # type: ignore[no-any-return]  # torch-pruning's

        return apply


class DependencyGraph(tp.DependencyGraph):  # type: ignore[misc]  # torch-pruning has no types
    """torch-pruning's graph of a module, extended by shapes and outputs recorded while tracing."""

    def __init__(self, *, maps_reshapes: bool) -> None:
        self.maps_reshapes = maps_reshapes
        super().__init__()
        self.outputs: set[Any] = set()
        self.spatial: dict[nn.Module, tuple[int, ...]] = {}
        self.widest = 0
        self.steps_left = 0
        self.changed = False

    @property
    def _2d_4d(self) -> bool:
        # a reshape is a flattening only where linear layers take one vector an item; torch-pruning looks for that
        # too, but misses linear layers on (n, h, w, c)
        return bool(self._flat) and self.maps_reshapes

    @_2d_4d.setter
    def _2d_4d(self, value: bool) -> None:
        self._flat = value

    def trace(self, module: nn.Module, example: Example) -> None:
        """Build the graph from one forward pass."""
        place = place_of(module)
        tensors = {name: tensor.to(place) for name, tensor in example.tensors().items()}
        handles = [
            part.register_forward_hook(self._look)
            for part in module.modules()
            if isinstance(part, nn.modules.conv._ConvNd | nn.Linear)
        ]
        try:
            # the autograd graph is followed, never run backwards: without the hooks it would save the activations of
            # every layer for as long as it exists
            with torch.enable_grad(), unfused_encoder_layers(), saved_tensors_hooks(lambda tensor: None, _not_kept):
                self.build_dependency(
                    module,
                    tensors,
                    forward_fn=lambda net, values: call_by(net, values, example),
                    output_transform=self._traced_outputs,
                    verbose=False,
                )
        finally:
            for handle in handles:
                handle.remove()
        self.widest = max((max(p.shape, default=1) for p in module.parameters()), default=1)
        for node in self.module2node.values():
            for dependency in node.dependencies:
                dependency.index_mapping = _Bounded(dependency.index_mapping, self)

    def release(self) -> None:
        """Release modules and tensors by emptying the nodes.

        Nodes refer to each other, and would keep modules and tensors in memory until garbage is collected.
        """
        for node in self.module2node.values():
            node.module = node.grad_fn = None
            for others in (node.inputs, node.outputs, node.dependencies):
                others.clear()

    def _build_dependency(self, module2node: Any) -> None:
        for node in module2node.values():
            if node.type is OPTYPE.CONCAT:
                # torch-pruning would guess the sizes from neighbouring layers, and fails behind a split
                node.module.concat_sizes = _concat_sizes(node.grad_fn)
        super()._build_dependency(module2node)

    def _look(self, part: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        self.spatial[part] = () if isinstance(part, nn.Linear) else tuple(output.shape[2:])
        if isinstance(part, nn.Linear) and output.ndim > 2:
            self.maps_reshapes = False

    def _traced_outputs(self, outputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        traced = [tensor for tensor in outputs.values() if tensor.grad_fn is not None]
        if not traced:
            raise CannotCutError("no gradient reaches its weights from its outputs")
        self.outputs = {tensor.grad_fn for tensor in traced}
        return traced

    def group_of(self, root: nn.Module, indices: Sequence[int]) -> Any:
        """The group of everything that is cut together with these output channels of a layer.

        Raises:
            CannotCutError: when the search fails or does not end.
        """
        self.steps_left = STEPS_PER_DEPENDENCY * sum(len(node.dependencies) for node in self.module2node.values())
        try:
            return self._followed(root, indices)
        except CannotCutError:
            raise
        except Exception as error:
            # an operation splits or reorders channels in a way that torch-pruning has no mapping for
            raise CannotCutError(f"its channels cannot be followed ({what(error)})") from error

    def cut(self, group: Any) -> None:
        """Cut the channels of a group out of the module."""
        self.changed = True
        group.prune(record_history=False)

    def _followed(self, root: nn.Module, indices: Sequence[int]) -> Any:
        """A faster version of torch-pruning's `get_pruning_group`, with the same result.

        `get_pruning_group` computes anew each time how every operation of the network maps channels, which takes longer
        than the rest and changes only with cuts; and it searches lists for places where this looks them up.
        """
        if self.changed:
            update_index_mapping(self)
            self.changed = False
        cut = self.get_pruner_of_module(root).prune_out_channels
        first = Dependency(cut, cut, source=self.module2node[root], target=self.module2node[root])
        start = [_HybridIndex(idx=index, root_idx=index) for index in indices]
        reached = {(first.target, cut): (first, [start])}
        visited = set()
        waiting = [(first, start)]
        while waiting:
            came, here = waiting.pop()
            visited.add(came.target)
            for dependency in came.target.dependencies:
                there = _mapped(dependency, here) if dependency.is_triggered_by(came.handler) else []
                if not there:
                    continue
                _, known = reached.setdefault((dependency.target, dependency.handler), (dependency, []))
                if dependency.target not in visited or there not in known:
                    known.append(there)
                    waiting.append((dependency, there))
        group = Group()
        group._DG = self
        group._group = [_item(dependency, ways) for dependency, ways in reached.values()]
        return group


def _mapped(dependency: Any, indices: list[Any]) -> list[Any]:
    for mapping in dependency.index_mapping:
        indices = mapping(indices) if mapping else indices
    return indices


def _item(dependency: Any, ways: Iterable[Sequence[Any]]) -> Any:
    """The group item of a dependency, with all indices by which it was reached, each of them once."""
    roots: dict[int, int | None] = {}
    for index in itertools.chain.from_iterable(ways):
        roots.setdefault(index.idx, index.root_idx)
    return group_item(dependency, roots)


def group_item(dependency: Any, roots: Mapping[int, int | None]) -> Any:
    """A group item: the indices cut through a dependency, each with its index in the first layer."""
    item = GroupItem(dependency, list(roots))
    item.root_idxs = list(roots.values())
    return item


def _not_kept(_: None) -> torch.Tensor:
    raise CannotCutError("torch-pruning asked for values that were not kept")


def _concat_sizes(grad_fn: Any) -> list[int] | None:
    """Sizes of the inputs of a concatenation, None where one of them has no gradient that tells."""
    dim = getattr(grad_fn, "_saved_dim", None)
    if dim is None or any(source is None for source, _ in grad_fn.next_functions):
        return None
    # autograd stores a negative dimension as an unsigned number
    dim = dim - 2**64 if dim >= 2**63 else dim
    return [int(source._input_metadata[place].shape[dim]) for source, place in grad_fn.next_functions]


def traced(module: nn.Module, example: Example) -> DependencyGraph:
    """Trace the graph of a module, whose parameters must require gradients."""
    try:
        graph = DependencyGraph(maps_reshapes=True)
        graph.trace(module, example)
    except ZeroDivisionError:
        # torch-pruning took a reshape inside the network (channel shuffle) for a flattening
        graph = DependencyGraph(maps_reshapes=False)
        graph.trace(module, example)
    return graph


def what(error: BaseException) -> str:
    """A few words on what went wrong."""
    return str(error) if isinstance(error, CannotCutError) else f"{type(error).__name__}: {first_line(error)}"
