"""Operators of dynamic int8: activations quantized by their own range, products of whole numbers.

A range is that of the whole tensor, as in the runtime, so that it depends on what else is in a batch. The gradient
passes through rounding as if it were not there (Bengio et al., "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation", 2013); scales of activations have none.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.simulation.fake_quantization import rounded
from autocompress.simulation.node_call import NodeCall, Operator

Tensor = torch.Tensor
DYNAMIC_QUANTIZE, PRODUCT = "DynamicQuantizeLinear", "MatMulInteger"
# levels of activations, which are uint8
HIGHEST = 255.0


def dynamically_quantized(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whole numbers as floats, their scale and zero point."""
    fixed = x.detach()
    low, high = fixed.amin().clamp(max=0.0), fixed.amax().clamp(min=0.0)
    scale = (high - low) / HIGHEST
    # all values are 0
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero_point = (-low / scale).round().clamp(0.0, HIGHEST)
    return (rounded(x / scale) + zero_point).clamp(0.0, HIGHEST), scale, zero_point


def _product(call: NodeCall, a: Tensor, b: Tensor, *zero_points: Tensor | None) -> Tensor:
    """The product of whole numbers, as floats: sums of up to 500 products are exact."""
    left, right = (
        given.float() if zero is None else given.float() - zero.float()
        for given, zero in zip((a, b), [*zero_points, None, None][:2], strict=True)
    )
    return torch.matmul(left, right)


def product_of(x: Tensor, weight: Tensor | None, scale: Tensor | None, zero_point: Tensor | None) -> Tensor:
    """The product of values, which get a range of their own, with whole numbers times a scale."""
    assert weight is not None
    assert scale is not None
    whole, steps, zero = dynamically_quantized(x)
    zeros = 0.0 if zero_point is None else zero_point.float()
    return torch.matmul(whole - zero, weight.float() - zeros) * (steps * scale)


DYNAMIC: Mapping[str, Operator] = {
    DYNAMIC_QUANTIZE: lambda call, x: dynamically_quantized(x),
    PRODUCT: _product,
}
