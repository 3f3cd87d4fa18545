"""Patterns across a network's layers: attention modules, repeated modules, kinds of convolution."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from torch import nn

from autocompress.core.facts import Kind, LayerFact, Repeat

# names of the projections in the BERT, GPT, T5, ViT and Llama families
PROJECTION = re.compile(
    r"(q|k|v|query|key|value|qkv|kv|c_attn|in_proj|query_key_value|Wqkv|to_(q|k|v|kv|qkv)|(q|k|v|qkv|query|key|value)_(proj|lin))"
)
# onnxruntime has int8 kernels for these, static or dynamic
QUANTIZABLE = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION)


def attending_parts(layers: Sequence[LayerFact], calls: Collection[str], *, products: bool) -> dict[str, str]:
    """Modules that compute attention, by name, with how they do it.

    That is torch's module, torch's function, or a product of projections written by hand. `calls` are the modules that
    called `scaled_dot_product_attention`; `products` tells that activations were multiplied with each other at all.
    """
    found = {layer.name: "nn.MultiheadAttention" for layer in layers if layer.kind is Kind.ATTENTION}
    found |= {name: "scaled_dot_product_attention" for name in calls if name not in found}
    parents: dict[str, set[str]] = {}
    for layer in layers:
        parent, _, last = layer.name.rpartition(".")
        if layer.kind is Kind.LINEAR and PROJECTION.fullmatch(last):
            parents.setdefault(parent, set()).add(last)
    for parent in parents if products else ():
        known = any(_same_part(name, parent) for name in found)
        if not known:
            found[parent] = f"products of {', '.join(sorted(parents[parent]))}"
    return found


def _same_part(name: str, parent: str) -> bool:
    return name == parent or parent.startswith(f"{name}.") or name.startswith(f"{parent}.") or not name


def convolution_shares(layers: Iterable[LayerFact]) -> dict[str, float]:
    """Shares of the convolutions' MACs by kind: dense, grouped, depthwise; empty without convolutions."""
    work: dict[str, float] = {}
    for layer in layers:
        if layer.kind is Kind.CONVOLUTION and layer.detail:
            groups = layer.detail["groups"]
            kind = "dense" if groups == 1 else "depthwise" if groups == layer.detail["in"] else "grouped"
            work[kind] = work.get(kind, 0.0) + layer.macs
    total = sum(work.values())
    return {kind: value / total for kind, value in work.items()} if total else {}


def pointwise_share(layers: Iterable[LayerFact], total: float) -> float:
    """The share of all MACs in linear layers that take feature maps of height x width x channels."""
    macs = sum(layer.macs for layer in layers if layer.kind is Kind.LINEAR and len(layer.input_shape) == 3)
    return macs / total if total else 0.0


def quantizable_share(layers: Iterable[LayerFact], parameters: int) -> float:
    """The share of all parameters that lie in layers with int8 kernels."""
    inside = sum(layer.parameters for layer in layers if layer.kind in QUANTIZABLE)
    return min(1.0, inside / parameters) if parameters else 0.0


def repeats_of(module: nn.Module) -> tuple[Repeat, ...]:
    """Runs of sibling modules of one type with parameters of the same shapes, the largest first.

    Of nested runs the outermost count.
    """
    found: list[Repeat] = []
    for path, parent in module.named_modules():
        if not isinstance(parent, nn.Sequential | nn.ModuleList) or _covered(path, found):
            continue
        prefix = f"{path}." if path else ""
        for signature, run in groupby(parent.named_children(), key=lambda child: _signature(child[1])):
            names = tuple(f"{prefix}{name}" for name, _ in run)
            if len(names) > 1 and signature[1] and any(True for _ in module.get_submodule(names[0]).children()):
                each = sum(parameter.numel() for parameter in module.get_submodule(names[0]).parameters())
                found.append(Repeat(signature[0], names, each))
    return tuple(sorted(found, key=lambda repeat: -repeat.parameters * len(repeat.names)))


def _signature(part: nn.Module) -> tuple[str, tuple[tuple[int, ...], ...]]:
    return type(part).__name__, tuple(tuple(parameter.shape) for parameter in part.parameters())


def _covered(path: str, found: Iterable[Repeat]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for repeat in found for name in repeat.names)
