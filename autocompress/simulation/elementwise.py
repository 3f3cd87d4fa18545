"""Operators of the simulation that act on each element: arithmetic, comparisons, activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import onnx
import torch
from torch.nn import functional

from autocompress.simulation.node_call import NodeCall, Operator

Tensor = torch.Tensor


def _plain(function: Callable[..., Tensor]) -> Operator:
    """An operator without attributes."""
    return lambda call, *inputs: function(*inputs)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator on any number of inputs."""
    return lambda call, *inputs: reduce(function, inputs)


def _div(call: NodeCall, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _pow(call: NodeCall, base: Tensor, exponent: Tensor) -> Tensor:
    # the result has the type of the base
    return torch.pow(base, exponent.to(base.dtype))


def _mod(call: NodeCall, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if call.get("fmod", 0) else torch.remainder(a, b)


def _mean(call: NodeCall, *inputs: Tensor) -> Tensor:
    total: Tensor = reduce(torch.add, inputs)
    return total / len(inputs)


def _clip(call: NodeCall, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    # before version 11 the bounds are attributes
    for bound, function in ((low, torch.maximum), (high, torch.minimum)):
        x = x if bound is None else function(x, bound.to(x.dtype))
    least, most = call.get("min"), call.get("max")
    return x if least is None and most is None else x.clamp(least, most)


def _where(call: NodeCall, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


def _is_inf(call: NodeCall, x: Tensor) -> Tensor:
    above = torch.isposinf(x) if call.get("detect_positive", 1) else torch.zeros_like(x, dtype=torch.bool)
    return above | torch.isneginf(x) if call.get("detect_negative", 1) else above


def _hard_sigmoid(call: NodeCall, x: Tensor) -> Tensor:
    found: Tensor = (x * call.get("alpha", 0.2) + call.get("beta", 0.5)).clamp(0, 1)
    return found


def _prelu(call: NodeCall, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _gelu(call: NodeCall, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=call.get("approximate", "none"))


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    def apply(call: NodeCall, x: Tensor) -> Tensor:
        axis = call.get("axis", -1 if call.opset >= 13 else 1)
        if call.opset >= 13:
            return function(x, axis)
        # older versions take all dimensions from the axis on as one
        flat = x.flatten(axis % x.dim()) if x.dim() else x
        return function(flat, -1).reshape(x.shape)

    return apply


def _cast(call: NodeCall, x: Tensor) -> Tensor:
    return x.to(torch_type(call.get("to")))


def _cast_like(call: NodeCall, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def torch_type(element: int) -> torch.dtype:
    """The torch type of an ONNX element type."""
    name = str(onnx.helper.tensor_dtype_to_np_dtype(element))
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


ELEMENTWISE: Mapping[str, Operator] = {
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _div,
    "Pow": _pow,
    "Mod": _mod,
    "Sum": _folded(torch.add),
    "Max": _folded(torch.maximum),
    "Min": _folded(torch.minimum),
    "Mean": _mean,
    "Neg": _plain(torch.neg),
    "Abs": _plain(torch.abs),
    "Sign": _plain(torch.sign),
    "Sqrt": _plain(torch.sqrt),
    "Reciprocal": _plain(torch.reciprocal),
    "Exp": _plain(torch.exp),
    "Log": _plain(torch.log),
    "Erf": _plain(torch.erf),
    "Sin": _plain(torch.sin),
    "Cos": _plain(torch.cos),
    "Floor": _plain(torch.floor),
    "Ceil": _plain(torch.ceil),
    "Round": _plain(torch.round),
    "IsNaN": _plain(torch.isnan),
    "IsInf": _is_inf,
    "Not": _plain(torch.logical_not),
    "And": _plain(torch.logical_and),
    "Or": _plain(torch.logical_or),
    "Xor": _plain(torch.logical_xor),
    "Equal": _plain(torch.eq),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "Where": _where,
    "Clip": _clip,
    "Relu": _plain(torch.relu),
    "LeakyRelu": lambda call, x: functional.leaky_relu(x, call.get("alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": lambda call, x: functional.elu(x, call.get("alpha", 1.0)),
    "Sigmoid": _plain(torch.sigmoid),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(functional.hardswish),
    "Swish": lambda call, x: x * torch.sigmoid(call.get("alpha", 1.0) * x),
    "Mish": _plain(functional.mish),
    "Softplus": _plain(functional.softplus),
    "Softsign": _plain(functional.softsign),
    "Tanh": _plain(torch.tanh),
    "Gelu": _gelu,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": lambda call, x: x,
    "Dropout": lambda call, x, *rest: x,
}
