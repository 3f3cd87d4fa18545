"""Copies of a user's module: with shared weights, with weights of its own, or in float32."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.data.module import call, first_line
from autocompress.errors import ModelError

# largest distance of the float32 copy's outputs from the original's, in roundings of the original's type and as a share
# of an output's largest value; roundings add up over the layers
ROUNDINGS = 16
# the float32 copy of a float64 module: float32 sums run in another order
LEAST_TOLERANCE = 2e-3


def with_shared_weights(module: nn.Module) -> nn.Module:
    """A copy of the module's structure that shares the original's parameters and buffers.

    Other tensors that hang on a gradient, such as biases that are looked up once and kept, are copied without it: torch
    copies no others.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    for part in module.modules():
        for tensor in _tensors_in(list(vars(part).values())):
            if id(tensor) not in memo and not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(module, memo)


def with_own_weights(module: nn.Module) -> nn.Module:
    """Replace every parameter and buffer by a copy, so that training changes no other module.

    Layers that shared a parameter share its copy. Returns the module itself.
    """
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                own = made.get(id(parameter))
                if own is None:
                    own = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                    made[id(parameter)] = own
                part._parameters[name] = own
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.detach().clone()
    return module


def dtype_of(module: nn.Module) -> torch.dtype:
    """The floating type that most of the module's weights have; float32 where none is floating."""
    counts: Counter[torch.dtype] = Counter()
    for weight in module.parameters():
        if weight.is_floating_point():
            counts[weight.dtype] += weight.numel()
    return max(counts, key=lambda dtype: counts[dtype]) if counts else torch.float32


def as_compressed(module: nn.Module, example: Example) -> tuple[nn.Module, str]:
    """The module that is compressed, and a sentence about its precision where it is not the given one.

    A module in another floating type than float32 is replaced by its float32 copy.

    Raises:
        ModelError: when it cannot be copied, the copy fails on the example, or it computes other values than the
            precision of the module's type explains.
    """
    dtype = dtype_of(module)
    if dtype is torch.float32:
        return module, ""
    name = str(dtype).removeprefix("torch.")
    hint = "Write forward() without a fixed type, or give the model in float32."
    copied = _in_float32(module)
    try:
        found = call(copied, example)
    except ModelError as error:
        raise ModelError(f"is in {name}, and its float32 copy {error.message}", where="model", hint=hint) from error
    sentence = f"the model is in {name}: its float32 copy is compressed, and budgets compare with that"
    try:
        wanted = call(module, example, dtype)
    except ModelError as error:
        return copied, f"{sentence}; the model itself could not be run beside it ({error.message})"
    shares = {key: _distance(values, found[key]) for key, values in wanted.items() if values.is_floating_point()}
    for output, share in shares.items():
        if not share <= max(LEAST_TOLERANCE, ROUNDINGS * torch.finfo(dtype).eps):
            raise ModelError(
                f"is in {name}, and output {output!r} of its float32 copy differs by {share:.2%} of the largest value.",
                where="model",
                hint=hint,
            )
    worst = max(shares.values(), default=0.0)
    return copied, f"{sentence}; outputs of the two differ by at most {worst:.2%} of an output's largest value"


def _in_float32(module: nn.Module) -> nn.Module:
    try:
        copied = with_own_weights(with_shared_weights(module)).float()
    except Exception as error:
        raise ModelError(
            f"cannot be copied to float32 ({first_line(error)}).", where="model", hint="Give the model in float32."
        ) from error
    for part in copied.modules():
        # tensors that are neither parameters nor buffers
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(part, name, value.detach().float())
    return copied


def _distance(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference as a share of the largest value."""
    if not wanted.numel():
        return 0.0
    gap = (wanted.double() - found.to(wanted.device).double()).abs().max()
    return float(gap) / max(float(wanted.abs().max()), 1e-6)


def _tensors_in(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Tensors in a value and in lists, tuples and dicts inside it; not those of modules."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for inner in value.values():
            yield from _tensors_in(inner, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors_in(inner, depth - 1)
