"""Operators of the simulation that reduce axes, and those that order values along one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from autocompress.simulation.node_call import NodeCall, Operator, axes_of

Tensor = torch.Tensor


def _reduced(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def apply(call: NodeCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
        over = axes_of(call, axes)
        if not over and call.get("noop_with_empty_axes", 0):
            return x
        return function(x, over or list(range(x.dim())), bool(call.get("keepdims", 1)))

    return apply


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    # one axis after the other, since torch takes one at a time
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


def _arg(function: Callable[..., Tensor]) -> Operator:
    def apply(call: NodeCall, x: Tensor) -> Tensor:
        return function(x, call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))

    return apply


def _top_k(call: NodeCall, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    largest, in_order = bool(call.get("largest", 1)), bool(call.get("sorted", 1))
    found = torch.topk(x, int(count), call.get("axis", -1), largest, in_order)
    return found.values, found.indices


def _cum_sum(call: NodeCall, x: Tensor, axis: Tensor) -> Tensor:
    along = int(axis)
    turned = x.flip(along) if call.get("reverse", 0) else x
    total = turned.cumsum(along).to(x.dtype)
    total = total - turned if call.get("exclusive", 0) else total
    return total.flip(along) if call.get("reverse", 0) else total


REDUCTIONS: Mapping[str, Operator] = {
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": _reduced(_prod),
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keep)),
    "ReduceLogSumExp": _reduced(torch.logsumexp),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "TopK": _top_k,
    "CumSum": _cum_sum,
}
