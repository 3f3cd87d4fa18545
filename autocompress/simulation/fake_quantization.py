"""Fake quantization of weights, biases and activations with the scales and zero points of a file.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018
(straight-through estimator); the gradient of a scale follows Esser et al., "Learned Step Size Quantization", ICLR 2020,
eq. 3, with the gradient scale of section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.core.source import Array

Tensor = torch.Tensor
# a learned scale stays above this share of the one that was read
LEAST_SHARE = 1 / 64


class _Rounding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def rounded(x: Tensor) -> Tensor:
    """Nearest whole numbers, halves to even as in onnxruntime; the gradient passes unchanged."""
    found: Tensor = _Rounding.apply(x)  # type: ignore[no-untyped-call] # torch's
    return found


@dataclass
class Levels:
    """Whole numbers from `low` to `high` that may be used; `axis` has a scale for each channel."""

    low: float
    high: float
    axis: int | None = None

    def spread(self, scale: Tensor, rank: int) -> Tensor:
        """A scale or zero point in a shape that broadcasts against a tensor of this rank."""
        if scale.numel() == 1 or self.axis is None:
            return scale.reshape(())
        return scale.reshape([-1 if place == self.axis % rank else 1 for place in range(rank)])


class FakeQuantizer(nn.Module):
    """Scale, zero point and levels; `enabled` says whether values are rounded at all, `rounding` how.

    `scale` is a parameter of float32, of one value or one for each channel; it takes a gradient where it is to be
    learned.
    """

    zero_point: Tensor
    least: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, levels: Levels) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.register_buffer("zero_point", zero_point)
        self.register_buffer("least", scale * LEAST_SHARE)
        self.levels = levels
        self.enabled = True
        self.rounding: Callable[[Tensor], Tensor] = rounded
        # of a single zero point the bounds are numbers, which is faster
        self._single = float(zero_point.reshape(-1)[0]) if len(set(zero_point.reshape(-1).tolist())) == 1 else None

    def current_scale(self) -> Tensor:
        """The scale as it is used and written to the file."""
        return torch.maximum(self.scale.detach(), self.least)

    def steps(self, rank: int, elements: int) -> Tensor:
        """The scale as values of this rank are divided by it; `elements` scales its gradient.

        Esser et al. have one scale for each tensor. Those of channels get its gradient in the proportion of their
        squares, so that each moves by a share of itself: scales of channels that are nearly zero would else leap.
        """
        scale = torch.maximum(self.scale, self.least)
        if scale.requires_grad:
            square = scale.detach().square()
            factor = square / square.mean() / math.sqrt(max(1.0, elements / scale.numel() * self.levels.high))
            # the difference is 0, so that the scale is exactly what is written
            scale = scale.detach() + factor * (scale - scale.detach())
        return self.levels.spread(scale, rank)

    def counted(self, x: Tensor, steps: Tensor) -> Tensor:
        """The whole numbers that stand for values, less the zero point, as floats."""
        whole, levels = self.rounding(x / steps), self.levels
        if self._single is not None:
            return whole.clamp(levels.low - self._single, levels.high - self._single)
        offset = levels.spread(self.zero_point, x.dim())
        return torch.minimum(torch.maximum(whole, levels.low - offset), levels.high - offset)


class ActivationQuantizer(FakeQuantizer):
    """A QuantizeLinear node and the DequantizeLinear nodes behind it.

    Where it is not enabled it still cuts values off below zero if its zero point is the lowest level, and above the
    highest one: onnxruntime's quantizer removes a Relu or Clip in front of it.
    """

    def quantize(self, x: Tensor) -> Tensor:
        """See `FakeQuantizer.counted`."""
        if self.enabled:
            return self.counted(x, self._steps(x))
        if self._single == self.levels.low:
            return x.clamp(0.0, float(self.scale) * (self.levels.high - self.levels.low))
        return x

    def dequantize(self, whole: Tensor) -> Tensor:
        """The values that whole numbers stand for."""
        return whole * self._steps(whole) if self.enabled else whole

    def _steps(self, x: Tensor) -> Tensor:
        # the elements of one item
        return self.steps(x.dim(), x.numel() // max(1, x.shape[0] if x.dim() else 1))


class StoredQuantizer(FakeQuantizer):
    """A weight behind a DequantizeLinear node, with a float parameter `value` that can be learned."""

    def __init__(self, scale: Tensor, zero_point: Tensor, levels: Levels, stored: Array) -> None:
        super().__init__(scale, zero_point, levels)
        self.stored = stored
        # in double precision, since int32 has more digits than float32
        whole = torch.from_numpy(stored.astype(np.float64)) - levels.spread(zero_point, stored.ndim)
        self.value = nn.Parameter((whole * levels.spread(scale, stored.ndim)).float())
        self._read, self._read_scale = self.value.detach().clone(), scale.clone()

    def forward(self) -> Tensor:
        """The values that the file computes with; the float parameter itself where it is not enabled."""
        if not self.enabled:
            return self.value
        steps = self.steps(self.value.dim(), self.value.numel())
        return self.counted(self.value, steps) * steps

    @torch.no_grad()
    def whole_numbers(self) -> Array:
        """The whole numbers that the file stores, in its type; those that were read where nothing was learned."""
        same = torch.equal(self.value.cpu(), self._read) and torch.equal(self.current_scale().cpu(), self._read_scale)
        if same and self.rounding is rounded:
            return self.stored
        rank = self.value.dim()
        whole = self.counted(self.value, self.steps(rank, 1)) + self.levels.spread(self.zero_point, rank)
        return whole.cpu().numpy().astype(self.stored.dtype)


class BiasQuantizer(StoredQuantizer):
    """A stored bias whose scale is the input's times the weight's, as integer arithmetic has it."""

    def __init__(self, scale: Tensor, zero_point: Tensor, levels: Levels, stored: Array) -> None:
        super().__init__(scale, zero_point, levels, stored)
        # in a tuple, so that their parameters are not listed twice
        self._factors: tuple[tuple[FakeQuantizer, Tensor], ...] = ()

    def follow(self, *factors: FakeQuantizer) -> None:
        """Change its scale as the product of these quantizers' scales changes from now on."""
        self._factors = tuple((factor, factor.current_scale().clone()) for factor in factors)

    def current_scale(self) -> Tensor:
        """The scale that was read, times what the scales that it follows have changed."""
        scale = self.scale.detach()
        for factor, before in self._factors:
            now, then = factor.current_scale(), before.to(scale.device)
            if not torch.equal(now, then):
                scale = scale * (now / then)
        return scale

    def steps(self, rank: int, elements: int) -> Tensor:
        """See `FakeQuantizer.steps`."""
        return self.levels.spread(self.current_scale(), rank)
