"""Copies of a user's module: with shared weights, with weights of its own, or in float32 on the CPU."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.data.module import call, changing_buffers, first_line
from autocompress.data.transformer_encoders import dropping_padding, keep_padding
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


def with_own_weights(module: nn.Module, place: torch.device | None = None) -> nn.Module:
    """Replace every parameter and buffer by a copy, so that training changes no other module.

    Layers that shared a parameter share its copy. The copies are at `place`, by default where the originals are.
    Returns the module itself.
    """
    made: dict[int, nn.Parameter] = {}

    def own_of(tensor: torch.Tensor) -> torch.Tensor:
        # the strides stay as they are
        return tensor.detach().clone() if place is None else tensor.detach().to(place, copy=True)

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                own = made.get(id(parameter))
                if own is None:
                    own = nn.Parameter(own_of(parameter), parameter.requires_grad)
                    made[id(parameter)] = own
                part._parameters[name] = own
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = own_of(buffer)
    return module


def dtype_of(module: nn.Module) -> torch.dtype:
    """The floating type that most of the module's weights have; float32 where none is floating."""
    counts: Counter[torch.dtype] = Counter()
    for weight in module.parameters():
        if weight.is_floating_point():
            counts[weight.dtype] += weight.numel()
    return max(counts, key=lambda dtype: counts[dtype]) if counts else torch.float32


def as_compressed(module: nn.Module, example: Example) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that is compressed, and a sentence about each thing in which it is not the given one.

    A module in another floating type than float32, or that is not on the CPU, is replaced by its copy in float32 on the
    CPU: files are measured there, and training moves copies of its own to a GPU. Buffers that change from call to call
    are named.

    Raises:
        ModelError: when it cannot be copied, the copy fails on the example, or it computes other values than the
            precision of the module's type explains.
    """
    dtype = dtype_of(module)
    places = {str(tensor.device) for tensor in (*module.parameters(), *module.buffers()) if tensor.device.type != "cpu"}
    said = []
    if dtype is not torch.float32 or places:
        module, sentence = _compared_copy(module, example, dtype, sorted(places))
        said.append(sentence)
    encoders = dropping_padding(module, example)
    if encoders:
        module = with_shared_weights(module)
        keep_padding(module, encoders)
        said.append(
            f"nn.TransformerEncoder ({', '.join(encoders)}) computes padded places like all others "
            "(enable_nested_tensor=False), where the model itself gives 0 for them"
        )
    changing = changing_buffers(module, example)
    if changing:
        said.append(
            f"forward() changes {', '.join(changing)} in evaluation mode too: the file computes each call from "
            f"{'its' if len(changing) == 1 else 'their'} present value{'' if len(changing) == 1 else 's'}"
        )
    return module, tuple(said)


def _compared_copy(module: nn.Module, example: Example, dtype: torch.dtype, places: list[str]) -> tuple[nn.Module, str]:
    """The copy in float32 on the CPU, and a sentence that says how far the two differ.

    Raises:
        ModelError: see `as_compressed`.
    """
    name = str(dtype).removeprefix("torch.")
    given = " ".join(
        ([f"in {name}"] if dtype is not torch.float32 else []) + ([f"on {' and '.join(places)}"] * bool(places))
    )
    kind = " ".join((["float32"] if dtype is not torch.float32 else []) + ["copy"] + (["on the CPU"] * bool(places)))
    ways = (["type"] if dtype is not torch.float32 else []) + (["device"] * bool(places))
    hint = f"Write forward() without a fixed {' or '.join(ways)}, or give the model in float32 on the CPU."
    copied = _in_float32(module, kind)
    try:
        found = call(copied, example)
    except ModelError as error:
        raise ModelError(f"is {given}, and its {kind} {error.message}", where="model", hint=hint) from error
    sentence = f"the model is {given}: its {kind} is compressed, and budgets compare with that"
    try:
        wanted = call(module, example, dtype)
    except ModelError as error:
        return copied, f"{sentence}; the model itself could not be run beside it ({error.message})"
    shares = {key: _distance(values, found[key]) for key, values in wanted.items() if values.is_floating_point()}
    # GPUs multiply float32 in TF32 where they are allowed to, which has the rounding of float16
    rounding = max(torch.finfo(dtype).eps, torch.finfo(torch.float16).eps if places else 0.0)
    for output, share in shares.items():
        if not share <= max(LEAST_TOLERANCE, ROUNDINGS * rounding):
            raise ModelError(
                f"is {given}, and output {output!r} of its {kind} differs by {share:.2%} of the largest value.",
                where="model",
                hint=hint,
            )
    worst = max(shares.values(), default=0.0)
    return copied, f"{sentence}; outputs of the two differ by at most {worst:.2%} of an output's largest value"


def _in_float32(module: nn.Module, kind: str) -> nn.Module:
    try:
        copied = with_own_weights(with_shared_weights(module), torch.device("cpu")).float()
    except Exception as error:
        raise ModelError(
            f"has no {kind}: it cannot be copied ({first_line(error)}).",
            where="model",
            hint="Give the model in float32 on the CPU.",
        ) from error
    for part in copied.modules():
        # tensors that are neither parameters nor buffers
        for name, value in list(vars(part).items()):
            if isinstance(value, torch.Tensor):
                setattr(part, name, value.detach().to("cpu", torch.float32 if value.is_floating_point() else None))
    return copied


def _distance(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference as a share of the largest value."""
    if not wanted.numel():
        return 0.0
    gap = (wanted.cpu().double() - found.double()).abs().max()
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
