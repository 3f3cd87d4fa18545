"""Operators of the simulation on windows and positions: pooling, resizing; padding of windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional

from autocompress.errors import TechniqueError
from autocompress.simulation.node_call import NodeCall, Operator, integers

Tensor = torch.Tensor
MAX_POOLS: Mapping[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
AVERAGE_POOLS: Mapping[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def padding_of(
    call: NodeCall, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The padding before and after each dimension of positions, as `pads` or `auto_pad` ask for it."""
    rank, kind = len(kernel), call.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", "VALID"):
        pads = list(call.get("pads", [0] * (2 * rank))) if kind == "NOTSET" else [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    before, after = [], []
    for place in range(rank):
        size, stride = x.shape[2 + place], strides[place]
        total = max(0, (-(-size // stride) - 1) * stride + (kernel[place] - 1) * dilations[place] + 1 - size)
        less, more = total // 2, total - total // 2
        before.append(less if kind == "SAME_UPPER" else more)
        after.append(more if kind == "SAME_UPPER" else less)
    return before, after


def padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    """The tensor with a constant around its last dimensions."""
    return functional.pad(x, in_pairs(before, after), value=value)


def in_pairs(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """The sizes before and after each axis, the last axis first, as torch takes them."""
    return [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]


def _pool_settings(call: NodeCall, x: Tensor) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Kernel, strides, dilations and padding, with what `ceil_mode` adds to the padding at the end."""
    kernel = list(call.get("kernel_shape"))
    strides, dilations = call.get("strides", [1] * len(kernel)), call.get("dilations", [1] * len(kernel))
    before, after = padding_of(call, x, kernel, strides, dilations)
    if call.get("ceil_mode", 0):
        for place, size in enumerate(x.shape[2:]):
            reach = (kernel[place] - 1) * dilations[place] + 1
            room = size + before[place] + after[place] - reach
            # a window that would begin in the padding at the end is left out
            count = -(-room // strides[place])
            count -= count * strides[place] >= size + before[place]
            after[place] += max(0, count * strides[place] - room)
    return kernel, list(strides), list(dilations), before, after


def _max_pool(call: NodeCall, x: Tensor) -> Tensor:
    if call.outputs > 1:
        raise TechniqueError("MaxPool that gives indices is not covered by the simulation.")
    kernel, strides, dilations, before, after = _pool_settings(call, x)
    if any(before) or any(after):
        x = padded(x, before, after, -math.inf)
    return MAX_POOLS[len(kernel)](x, kernel, strides, 0, dilations)


def _average_pool(call: NodeCall, x: Tensor) -> Tensor:
    kernel, strides, dilations, before, after = _pool_settings(call, x)
    if any(size > 1 for size in dilations):
        raise TechniqueError("AveragePool with gaps in its windows is not covered by the simulation.")
    pool = AVERAGE_POOLS[len(kernel)]
    if not any(before) and not any(after):
        return pool(x, kernel, strides)
    counted = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    if call.get("count_include_pad", 0):
        # what rounding up added at the end never counts
        rank = len(kernel)
        pads = list(call.get("pads", [0] * (2 * rank)))
        stated = pads[rank:] if call.get("auto_pad", "NOTSET") == "NOTSET" else after
        counted = padded(counted, before, stated, 1.0)
        counted = padded(counted, [0] * rank, [a - s for a, s in zip(after, stated, strict=True)], 0.0)
    else:
        counted = padded(counted, before, after, 0.0)
    return pool(padded(x, before, after, 0.0), kernel, strides) / pool(counted, kernel, strides)


def _over_positions(function: Callable[[Tensor, list[int]], Tensor]) -> Operator:
    return lambda call, x: function(x, list(range(2, x.dim())))


def _resize(
    call: NodeCall, x: Tensor, region: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    given = sizes is not None and sizes.numel() > 0
    if given:
        target = integers(sizes)
    else:
        assert scales is not None
        target = [math.floor(size * scale) for size, scale in zip(x.shape, scales.tolist(), strict=True)]
    unusual = any(call.get(name) for name in ("axes", "antialias", "exclude_outside"))
    found = None if unusual or target[:2] != list(x.shape[:2]) else _interpolation(call, x, target[2:])
    if found is None:
        asked = ", ".join(f"{name}={value}" for name, value in sorted(call.attributes.items()))
        raise TechniqueError(f"Resize with {asked} is not covered by the simulation.")
    return functional.interpolate(x, target[2:], mode=found, align_corners=_corners(call, found))


def _interpolation(call: NodeCall, x: Tensor, target: Sequence[int]) -> str | None:
    """The mode of torch's `interpolate` that computes the same; None where it has none."""
    coordinates = call.get("coordinate_transformation_mode", "half_pixel")
    if call.get("mode", "nearest") == "nearest":
        whole = all(size % before == 0 for size, before in zip(target, x.shape[2:], strict=True))
        rounding = call.get("nearest_mode", "round_prefer_floor")
        # with a whole factor the centre of each element lies inside the one that the floor finds
        same = (coordinates, rounding) == ("asymmetric", "floor") or (whole and coordinates == "half_pixel")
        return "nearest" if same else None
    modes = {"linear": {1: "linear", 2: "bilinear", 3: "trilinear"}, "cubic": {2: "bicubic"}}
    plain = coordinates in ("align_corners", "half_pixel") or (coordinates == "pytorch_half_pixel" and 1 not in target)
    return modes[call.get("mode")].get(x.dim() - 2) if plain else None


def _corners(call: NodeCall, mode: str) -> bool | None:
    return None if mode == "nearest" else call.get("coordinate_transformation_mode") == "align_corners"


WINDOWS: Mapping[str, Operator] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _over_positions(lambda x, axes: x.mean(axes, keepdim=True)),
    "GlobalMaxPool": _over_positions(lambda x, axes: x.amax(axes, keepdim=True)),
    "Resize": _resize,
}
