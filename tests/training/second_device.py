"""A stand-in for a GPU: tensors of a second device, which refuse to meet tensors of the CPU.

Values lie on the CPU. A tensor that is moved to `PLACE` becomes a `Second`, which says that it is there; operations
unwrap and wrap. As on a GPU, only numbers without dimensions may come from the CPU, and copies go between the two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# torch knows it as a device without kernels; nothing is computed there
PLACE = torch.device("meta")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Second(torch.Tensor):
    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Second:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=PLACE, requires_grad=held.requires_grad
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(function, args, kwargs or {})


def _wrapped(value: Any) -> Any:
    return Second(value) if isinstance(value, torch.Tensor) and not isinstance(value, Second) else value


def _held(value: Any) -> Any:
    if isinstance(value, Second):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) and value == PLACE else value


def dispatched(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    there = [value for value in given if isinstance(value, Second)]
    if there and function not in MOVES and any(v.dim() and not isinstance(v, Second) for v in given):
        raise RuntimeError(f"Expected all tensors to be on the same device, but {function} got two")
    place = kwargs.get("device")
    found = function(*tree_map(_held, args), **tree_map(_held, kwargs))
    first = args[0] if args and isinstance(args[0], torch.Tensor) else None
    if first is not None and isinstance(found, torch.Tensor) and found is _held(first):
        return first
    if function is torch.ops.aten.copy_.default:
        return first
    goes = place == PLACE if place is not None else bool(there)
    return tree_map(_wrapped, found) if goes else found


class SecondDevice(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatched(function, args, kwargs or {})
