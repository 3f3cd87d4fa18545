"""Operators of the simulation with weights: convolutions, linear layers, normalization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from autocompress.errors import TechniqueError
from autocompress.simulation.node_call import NodeCall, Operator
from autocompress.simulation.windows import padded, padding_of

Tensor = torch.Tensor
CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED: Mapping[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _conv(call: NodeCall, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    before, after = padding_of(call, x, weight.shape[2:], strides, dilations)
    if before == after:
        padding: Any = before
    else:
        x, padding = padded(x, before, after, 0.0), 0
    return CONVOLUTIONS[rank](x, weight, bias, strides, padding, dilations, call.get("group", 1))


def _conv_transpose(call: NodeCall, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    if call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or call.get("output_shape"):
        raise TechniqueError("ConvTranspose with padding by its output's shape is not covered by the simulation.")
    strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    pads, extra = call.get("pads", [0] * (2 * rank)), call.get("output_padding", [0] * rank)
    # what is padded differently at both ends is cut off the whole result
    whole = TRANSPOSED[rank](x, weight, bias, strides, 0, extra, call.get("group", 1), dilations)
    for place in range(rank):
        size = whole.shape[2 + place] - pads[place] - pads[rank + place]
        whole = whole.narrow(2 + place, pads[place], size)
    return whole


def _gemm(call: NodeCall, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    left = a.T if call.get("transA", 0) else a
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if alpha == beta == 1.0 and c is not None and c.dim() == 1 and call.get("transB", 0):
        return functional.linear(left, b, c)
    product = left @ (b.T if call.get("transB", 0) else b)
    product = product if alpha == 1.0 else product * alpha
    return product if c is None else product + (c if beta == 1.0 else c * beta)


def _batch_norm(call: NodeCall, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, call.get("epsilon", 1e-5))


def _layer_norm(call: NodeCall, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if call.outputs > 1:
        raise TechniqueError("LayerNormalization that gives its statistics is not covered by the simulation.")
    shape = list(x.shape[call.get("axis", -1) % x.dim() :])
    weight = scale.expand(shape)
    shift = None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, weight, shift, call.get("epsilon", 1e-5))


def _rms_norm(call: NodeCall, x: Tensor, scale: Tensor) -> Tensor:
    shape = list(x.shape[call.get("axis", -1) % x.dim() :])
    return functional.rms_norm(x, shape, scale.expand(shape), call.get("epsilon", 1e-5))


def _instance_norm(call: NodeCall, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, weight=scale, bias=bias, eps=call.get("epsilon", 1e-5))


def _group_norm(call: NodeCall, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = call.get("num_groups")
    if call.opset < 21:
        # one value for each group until version 21, for each channel since
        size = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(size), bias.repeat_interleave(size)
    return functional.group_norm(x, groups, scale, bias, call.get("epsilon", 1e-5))


def _lp_norm(call: NodeCall, x: Tensor) -> Tensor:
    return functional.normalize(x, p=call.get("p", 2), dim=call.get("axis", -1))


LAYERS: Mapping[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": lambda call, a, b: torch.matmul(a, b),
    "Einsum": lambda call, *inputs: torch.einsum(call.get("equation"), *inputs),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_norm,
}
