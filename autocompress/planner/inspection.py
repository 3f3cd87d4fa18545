"""Facts read off a module by running it once with hooks; it need not be traceable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from autocompress.facts import Facts, Family, Kind, LayerFact
from autocompress.module import call, unfused_encoder_layers
from autocompress.runtime import Example

KINDS: tuple[tuple[tuple[type[nn.Module], ...], Kind], ...] = (
    ((nn.modules.conv._ConvNd,), Kind.CONVOLUTION),
    ((nn.Linear, nn.Bilinear), Kind.LINEAR),
    ((nn.RNNBase, nn.RNNCellBase), Kind.RECURRENT),
    ((nn.MultiheadAttention,), Kind.ATTENTION),
    ((nn.Embedding, nn.EmbeddingBag), Kind.EMBEDDING),
    ((nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), Kind.NORM),
)
WORK = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT)


def inspect_module(module: nn.Module, example: Example) -> Facts:
    """What the module is: layers with shapes, parameters and MACs per item, shares of work, family.

    MACs of layers follow from their shapes; products between activations (attention) are counted from the
    operations that run (torch.utils.flop_counter), less those of the layers.

    Raises:
        ModelError: when the module fails on the example.
    """
    example = example.with_batch(1)
    layers: list[LayerFact] = []
    handles = [
        part.register_forward_hook(_recorder(name, _kind(part), layers), with_kwargs=True)
        for name, part in module.named_modules()
        if _kind(part) is not Kind.OTHER or (not list(part.children()) and list(part.parameters(recurse=False)))
    ]
    counter = FlopCounterMode(display=False)
    try:
        # the fused kernels of attention do not show in the count
        with unfused_encoder_layers(), sdpa_kernel(SDPBackend.MATH), counter:
            call(module, example)
    finally:
        for handle in handles:
            handle.remove()
    weights = list(module.parameters())
    attention = _attention_macs(counter, layers)
    work = {kind: float(sum(layer.macs for layer in layers if layer.kind is kind)) for kind in WORK}
    work[Kind.ATTENTION] += attention
    total = sum(work.values())
    shares = {kind: value / total if total else 0.0 for kind, value in work.items()}
    family, evidence = _family(shares, layers)
    return Facts(
        family,
        evidence,
        sum(weight.numel() for weight in weights),
        sum(int(torch.count_nonzero(weight)) for weight in weights),
        int(total),
        attention,
        shares,
        tuple(layers),
    )


def _kind(part: nn.Module) -> Kind:
    return next((kind for types, kind in KINDS if isinstance(part, types)), Kind.OTHER)


def _recorder(name: str, kind: Kind, layers: list[LayerFact]) -> Callable[..., None]:
    def record(part: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], outputs: Any) -> None:
        source = next((v for v in (*inputs, *named.values()) if isinstance(v, torch.Tensor)), None)
        result = next((v for v in _tensors(outputs)), None)
        in_shape = tuple(source.shape[1:]) if source is not None else ()
        out_shape = tuple(result.shape[1:]) if result is not None else ()
        parameters = sum(parameter.numel() for parameter in part.parameters())
        macs = _macs(part, kind, in_shape, out_shape, result)
        layers.append(LayerFact(name, type(part).__name__, kind, parameters, macs, in_shape, out_shape, _detail(part)))

    return record


def _tensors(outputs: Any) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [value for value in outputs if isinstance(value, torch.Tensor)] if isinstance(outputs, tuple | list) else []


def _macs(
    part: nn.Module, kind: Kind, in_shape: tuple[int, ...], out_shape: tuple[int, ...], result: torch.Tensor | None
) -> int:
    if result is None:
        return 0
    if isinstance(part, nn.modules.conv._ConvNd):
        transposed = part.transposed
        places = _product(in_shape[1:]) if transposed else _product(out_shape[1:])
        return places * part.weight.numel()
    if isinstance(part, nn.Linear):
        return _product(out_shape[:-1]) * part.weight.numel()
    if isinstance(part, nn.RNNBase):
        steps = in_shape[0] if part.batch_first or len(in_shape) == 1 else int(result.shape[0])
        return steps * sum(w.numel() for n, w in part.named_parameters() if n.startswith("weight"))
    if isinstance(part, nn.MultiheadAttention):
        tokens = out_shape[0] if part.batch_first else int(result.shape[0])
        return tokens * sum(w.numel() for n, w in part.named_parameters() if n.endswith("weight"))
    if kind is Kind.RECURRENT:
        return sum(w.numel() for n, w in part.named_parameters() if n.startswith("weight"))
    return 0


def _product(sizes: tuple[int, ...]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _detail(part: nn.Module) -> dict[str, int]:
    if isinstance(part, nn.modules.conv._ConvNd):
        return {
            "in": part.in_channels,
            "out": part.out_channels,
            "kernel": part.kernel_size[0],
            "stride": part.stride[0],
            "groups": part.groups,
        }
    if isinstance(part, nn.Linear):
        return {"in": part.in_features, "out": part.out_features}
    if isinstance(part, nn.RNNBase):
        return {"in": part.input_size, "out": part.hidden_size, "layers": part.num_layers}
    return {}


def _attention_macs(counter: FlopCounterMode, layers: Sequence[LayerFact]) -> int:
    """Products between activations: batched matrix products that no linear layer made, per item."""
    counts = counter.get_flop_counts()
    flops = _batched_products(counts.get("Global", {}))
    for name in {layer.name for layer in layers if layer.kind is Kind.LINEAR}:
        # torch multiplies a frozen layer's weights with a transposed input item by item
        flops -= sum(_batched_products(ops) for path, ops in counts.items() if path.partition(".")[2] == name)
    return flops // 2


def _batched_products(operations: Mapping[Any, int]) -> int:
    return sum(count for operation, count in operations.items() if "bmm" in str(operation))


def _family(shares: Mapping[Kind, float], layers: list[LayerFact]) -> tuple[Family, str]:
    parts = ", ".join(f"{share:.0%} {kind}" for kind, share in shares.items() if share >= 0.005)
    evidence = f"work: {parts}" if parts else "no layer with multiply-accumulates"
    attends = shares[Kind.ATTENTION] > 0 or any(layer.kind is Kind.ATTENTION for layer in layers)
    if shares[Kind.RECURRENT] >= 0.3:
        return Family.RNN, evidence
    if attends and shares[Kind.CONVOLUTION] < 0.3:
        return Family.TRANSFORMER, evidence
    if shares[Kind.CONVOLUTION] >= 0.6 and not attends:
        return Family.CNN, evidence
    if shares[Kind.LINEAR] >= 0.9 and not attends:
        return Family.MLP, evidence
    return Family.MIXED, evidence
