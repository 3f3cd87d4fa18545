"""Blocks that a network runs without: found by shape, skipped or dropped by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.runtime import Example
from autocompress.data.module import call, unfused_encoder_layers
from autocompress.errors import ModelError, TechniqueError


class Skip(nn.Module):
    """Stands in for a block and returns its first input, in a tuple where the block gave a tuple."""

    def __init__(self, *, gives_tuple: bool) -> None:
        super().__init__()
        self.gives_tuple = gives_tuple

    def forward(self, values: torch.Tensor, *_: Any, **__: Any) -> Any:
        """`values` unchanged."""
        return (values,) if self.gives_tuple else values


def droppable_blocks(module: nn.Module, example: Example) -> dict[str, bool]:
    """Names of blocks that the network runs without, and whether they return their result in a tuple."""
    return not_needed(module, example, candidate_blocks(module, example))


def not_needed(module: nn.Module, example: Example, candidates: dict[str, bool]) -> dict[str, bool]:
    """The candidates without which the network still runs."""
    one = example.with_batch(1)
    return {name: kind for name, kind in candidates.items() if _runs_without(module, name, candidates, one)}


def _runs_without(module: nn.Module, name: str, blocks: dict[str, bool], example: Example) -> bool:
    try:
        with skipping(module, [name], blocks), unfused_encoder_layers():
            call(module, example)
    except ModelError:
        return False
    return True


def candidate_blocks(module: nn.Module, example: Example) -> dict[str, bool]:
    """Names of blocks whose output has their input's shape, and whether they return it in a tuple.

    A block has layers of its own and siblings of its class (residual blocks of a stage, encoder layers); of
    nested candidates the outermost counts.
    """
    found: dict[str, bool] = {}
    handles = []
    parents = {
        name: parent for name, parent in module.named_modules() if isinstance(parent, nn.Sequential | nn.ModuleList)
    }
    for path, parent in parents.items():
        types = [type(child) for child in parent.children()]
        for name, child in parent.named_children():
            has_layers = any(True for _ in child.children()) and any(True for _ in child.parameters())
            if has_layers and types.count(type(child)) > 1:
                full = f"{path}.{name}" if path else name
                handles.append(child.register_forward_hook(_recorder(full, found)))
    try:
        with unfused_encoder_layers():
            call(module, example)
    finally:
        for handle in handles:
            handle.remove()
    # a stage that happens to keep its shape is no block where it contains blocks
    stages = {
        name
        for name in found
        if isinstance(module.get_submodule(name), nn.Sequential)
        and any(other.startswith(f"{name}.") for other in found)
    }
    blocks = {name: kind for name, kind in found.items() if name not in stages}
    return {name: kind for name, kind in blocks.items() if not any(name.startswith(f"{other}.") for other in blocks)}


def is_ignored(module: nn.Module, block: str, ignore: Sequence[str]) -> bool:
    """True when the block, or a layer in it, is among those to leave alone; see `matches_pattern`."""
    if not ignore or not any(name == block for name, _ in module.named_modules()):
        return False
    inside = (f"{block}.{name}" if name else block for name, _ in module.get_submodule(block).named_modules())
    return any(matches_pattern(name, ignore) for name in inside)


def _recorder(name: str, found: dict[str, bool]) -> Any:
    def record(_module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        gives_tuple = isinstance(outputs, tuple)
        first = outputs[0] if gives_tuple else outputs
        tensors = isinstance(first, torch.Tensor) and bool(inputs) and isinstance(inputs[0], torch.Tensor)
        if tensors and first.shape == inputs[0].shape and first.dtype == inputs[0].dtype:
            found[name] = gives_tuple

    return record


@contextmanager
def skipping(module: nn.Module, blocks: Sequence[str], kinds: dict[str, bool]) -> Iterator[None]:
    """The module with these blocks skipped inside the `with` block, restored afterwards."""
    taken = [(name, module.get_submodule(name)) for name in blocks]
    try:
        for name, _ in taken:
            _put(module, name, Skip(gives_tuple=kinds[name]))
        yield
    finally:
        for name, block in taken:
            _put(module, name, block)


def drop_blocks(module: nn.Module, blocks: Sequence[str], kinds: dict[str, bool]) -> None:
    """Remove blocks permanently.

    Raises:
        TechniqueError: when a block is not one that can be dropped.
    """
    for name in blocks:
        if name not in kinds:
            raise TechniqueError(f"{name!r} is no block that can be dropped.", where="block_dropping")
        _put(module, name, Skip(gives_tuple=kinds[name]))


def _put(module: nn.Module, name: str, part: nn.Module) -> None:
    path, _, last = name.rpartition(".")
    module.get_submodule(path)._modules[last] = part
