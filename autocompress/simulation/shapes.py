"""Operators of the simulation that arrange elements: shapes, slices, gathering; integers stay exact."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional

from autocompress.errors import TechniqueError
from autocompress.simulation.node_call import NodeCall, Operator, axes_of, integers
from autocompress.simulation.windows import in_pairs, padded

Tensor = torch.Tensor
PAD_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _constant(call: NodeCall) -> Tensor:
    for name, value in call.attributes.items():
        if name == "value":
            return torch.from_numpy(numpy_helper.to_array(value).copy())
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise TechniqueError("a Constant of this kind is not covered by the simulation.")


def _constant_of_shape(call: NodeCall, shape: Tensor) -> Tensor:
    value = call.get("value")
    filling = torch.zeros(1) if value is None else torch.from_numpy(numpy_helper.to_array(value).copy())
    return filling.to(shape.device).reshape(()).expand(integers(shape)).clone()


def _shape(call: NodeCall, x: Tensor) -> Tensor:
    sizes = list(x.shape)[call.get("start", 0) : call.get("end")]
    return torch.tensor(sizes, dtype=torch.int64, device=x.device)


def _reshape(call: NodeCall, x: Tensor, shape: Tensor) -> Tensor:
    sizes = integers(shape)
    if not call.get("allowzero", 0):
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(call: NodeCall, x: Tensor) -> Tensor:
    axis = call.get("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, -1)


def _squeeze(call: NodeCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = axes_of(call, axes)
    return x.squeeze(tuple(over)) if over else x.squeeze()


def _unsqueeze(call: NodeCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = axes_of(call, axes)
    rank = x.dim() + len(over)
    for axis in sorted(axis % rank for axis in over):
        x = x.unsqueeze(axis)
    return x


def _transpose(call: NodeCall, x: Tensor) -> Tensor:
    return x.permute(call.get("perm", list(range(x.dim()))[::-1]))


def _concat(call: NodeCall, *inputs: Tensor) -> Tensor:
    return torch.cat(inputs, call.get("axis"))


def _split(call: NodeCall, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = call.get("axis", 0)
    given = integers(sizes) or list(call.get("split", ()))
    if not given:
        # equal parts, the last one smaller
        part = -(-x.shape[axis] // call.outputs)
        given = [part] * (call.outputs - 1)
        given.append(x.shape[axis] - sum(given))
    return torch.split(x, given, axis)


def _slice(
    call: NodeCall,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first = integers(starts) if starts is not None else list(call.get("starts"))
    last = integers(ends) if ends is not None else list(call.get("ends"))
    over = axes_of(call, axes) or list(range(len(first)))
    for start, end, axis, step in zip(first, last, over, integers(steps) or [1] * len(first), strict=True):
        begin, stop, stride = slice(start, end, step).indices(x.shape[axis])
        if step < 0 and end < -x.shape[axis]:
            stop = -1
        if step == 1:
            x = x.narrow(axis, begin, max(0, stop - begin))
        else:
            x = x.index_select(axis, torch.arange(begin, stop, stride, device=x.device))
    return x


def _gather(call: NodeCall, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0) % x.dim()
    index = indices.long()
    index = torch.where(index < 0, index + x.shape[axis], index)
    found = x.index_select(axis, index.reshape(-1))
    return found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_elements(call: NodeCall, x: Tensor, indices: Tensor) -> Tensor:
    axis = call.get("axis", 0)
    index = indices.long()
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))


def _gather_nd(call: NodeCall, x: Tensor, indices: Tensor) -> Tensor:
    batch = call.get("batch_dims", 0)
    if batch == 0:
        return x[tuple(indices.long().unbind(-1))]
    rows = indices.shape[:batch].numel()
    flat, places = x.reshape(rows, *x.shape[batch:]), indices.reshape(rows, *indices.shape[batch:]).long()
    found = torch.stack([one[tuple(place.unbind(-1))] for one, place in zip(flat, places, strict=True)])
    return found.reshape(*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :])


def _scatter_nd(call: NodeCall, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    kind = call.get("reduction", "none")
    if kind not in ("none", "add"):
        raise TechniqueError(f"ScatterND that reduces by {kind!r} is not covered by the simulation.")
    return x.index_put(tuple(indices.long().unbind(-1)), updates, accumulate=kind == "add")


def _expand(call: NodeCall, x: Tensor, shape: Tensor) -> Tensor:
    # sizes of 1 in the shape leave those of the tensor
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(integers(shape))))


def _pad(
    call: NodeCall, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    given = integers(pads) if pads is not None else list(call.get("pads"))
    over = [axis % x.dim() for axis in integers(axes)] or list(range(x.dim()))
    before, after = [0] * x.dim(), [0] * x.dim()
    for place, axis in enumerate(over):
        before[axis], after[axis] = given[place], given[place + len(over)]
    kind = call.get("mode", "constant")
    filling = float(value) if value is not None else float(call.get("value", 0.0))
    if kind != "constant":
        # torch's other modes take all positions behind batch and channels, and nothing else
        first = min(2, x.dim() - 1)
        if any(before[:first]) or any(after[:first]):
            raise TechniqueError(f"Pad of batch or channels by {kind!r} is not covered by the simulation.")
        return functional.pad(x, in_pairs(before[first:], after[first:]), mode=PAD_MODES[kind])
    return padded(x, before, after, filling)


def _range(call: NodeCall, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype, device=start.device)


def _one_hot(call: NodeCall, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    size = int(depth)
    hot = functional.one_hot(indices.long() % size, size).movedim(-1, call.get("axis", -1))
    return torch.where(hot.bool(), values[1], values[0])


def _trilu(call: NodeCall, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    offset = 0 if diagonal is None else int(diagonal)
    return torch.triu(x, offset) if call.get("upper", 1) else torch.tril(x, offset)


def _depth_to_space(call: NodeCall, x: Tensor) -> Tensor:
    size = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, size)
    n, c, h, w = x.shape
    parts = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // size**2, h * size, w * size)


SHAPES: Mapping[str, Operator] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    "Size": lambda call, x: torch.tensor(x.numel(), dtype=torch.int64, device=x.device),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "Expand": _expand,
    "Tile": lambda call, x, repeats: x.repeat(integers(repeats)),
    "Pad": _pad,
    "Range": _range,
    "OneHot": _one_hot,
    "NonZero": lambda call, x: torch.nonzero(x).T,
    "Trilu": _trilu,
    "DepthToSpace": _depth_to_space,
}
