"""Facts about a module, collected by running it once with hooks; it need not be traceable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from autocompress.analysis.patterns import (
    attending_parts,
    convolution_shares,
    pointwise_share,
    quantizable_share,
    repeats_of,
)
from autocompress.core.facts import Facts, Family, Kind, LayerFact
from autocompress.core.runtime import Example
from autocompress.data.module import call, unfused_encoder_layers

KINDS: tuple[tuple[tuple[type[nn.Module], ...], Kind], ...] = (
    ((nn.modules.conv._ConvNd,), Kind.CONVOLUTION),
    ((nn.Linear, nn.Bilinear), Kind.LINEAR),
    ((nn.RNNBase, nn.RNNCellBase), Kind.RECURRENT),
    ((nn.MultiheadAttention,), Kind.ATTENTION),
    ((nn.Embedding, nn.EmbeddingBag), Kind.EMBEDDING),
    ((nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), Kind.NORM),
)
# functions that take a weight as their second argument; nn.MultiheadAttention is counted as a whole
WEIGHTED = (nn.functional.linear, nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid,
    nn.Tanh,
)  # fmt: skip
WORK = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT)


def inspect_module(module: nn.Module, example: Example) -> Facts:
    """Facts about a module: layers with shapes, parameters and MACs per item, shares of work, family.

    MACs of layers follow from their shapes; products between activations (attention) are counted from the
    operations that run (torch.utils.flop_counter), less those of the layers. A layer that is called several times does
    the work of all its calls. `with_weights` adds how the weights are distributed.

    Raises:
        ModelError: when the module fails on the example.
    """
    example = example.with_batch(1)
    found: dict[str, LayerFact] = {}
    path: list[str] = []
    handles = [
        part.register_forward_hook(_recorder(name, _kind(part), found), with_kwargs=True)
        for name, part in module.named_modules()
        if _kind(part) is not Kind.OTHER or (not list(part.children()) and list(part.parameters(recurse=False)))
    ]
    handles += [
        handle
        for name, part in module.named_modules()
        for handle in (
            part.register_forward_pre_hook(_entering(name, path)),
            part.register_forward_hook(_leaving(path), always_call=True),
        )
    ]
    counter = FlopCounterMode(display=False)
    functions = _Functions(module, path, found)
    try:
        # the fused kernels of attention do not show in the count
        with unfused_encoder_layers(), sdpa_kernel(SDPBackend.MATH), functions, counter:
            call(module, example)
    finally:
        for handle in handles:
            handle.remove()
    layers = _without_shared(module, found.values())
    weights = list(module.parameters())
    attention = _attention_macs(counter, layers)
    work = {kind: float(sum(layer.macs for layer in layers if layer.kind is kind)) for kind in WORK}
    work[Kind.ATTENTION] += attention
    total = sum(work.values())
    shares = {kind: value / total if total else 0.0 for kind, value in work.items()}
    attending = attending_parts(layers, functions.attending, products=attention > 0)
    family, evidence = family_of(shares, pointwise_share(layers, total), attending)
    parameters = sum(weight.numel() for weight in weights)
    return Facts(
        family,
        evidence,
        parameters,
        sum(int(torch.count_nonzero(weight)) for weight in weights),
        int(total),
        attention,
        shares,
        tuple(layers),
        convolution_shares(layers),
        attending,
        repeats_of(module),
        quantizable_share(layers, parameters),
        max((_product(layer.output_shape) for layer in layers), default=0),
        activations=dict(Counter(type(part).__name__ for part in module.modules() if isinstance(part, ACTIVATIONS))),
    )


class _Functions(TorchFunctionMode):
    """Records functions called with the weights of layers that are not called themselves.

    Also records the modules that call attention functions. `path` is the stack of the modules being executed, the
    innermost last.
    """

    def __init__(self, module: nn.Module, path: Sequence[str], found: dict[str, LayerFact]) -> None:
        super().__init__()
        self._path, self._found = path, found
        self._owners = {id(weight): (name, part) for name, part in module.named_modules() for weight in _own(part)}
        self.attending: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        here = self._path[-1] if self._path else ""
        if func is nn.functional.scaled_dot_product_attention:
            self.attending[here] = None
        elif func in WEIGHTED and len(args) > 1 and id(args[1]) in self._owners:
            name, part = self._owners[id(args[1])]
            if name != here and not here.startswith(f"{name}."):
                self._add(name, part, args[0], args[1], result)
        return result

    def _add(
        self, name: str, part: nn.Module, source: torch.Tensor, weight: torch.Tensor, result: torch.Tensor
    ) -> None:
        macs = result.numel() // weight.shape[0] * weight.numel()
        kind = Kind.LINEAR if _kind(part) is Kind.OTHER else _kind(part)
        shapes = tuple(source.shape[1:]), tuple(result.shape[1:])
        _count(self._found, name, part, kind, macs, shapes)


def _count(
    found: dict[str, LayerFact],
    name: str,
    part: nn.Module,
    kind: Kind,
    macs: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """Add one call of a layer to the counts; the shapes of its first call are kept."""
    if name in found:
        found[name] = replace(found[name], macs=found[name].macs + macs)
        return
    parameters = sum(parameter.numel() for parameter in part.parameters())
    found[name] = LayerFact(name, type(part).__name__, kind, parameters, macs, *shapes, _detail(part))


def _without_shared(module: nn.Module, layers: Iterable[LayerFact]) -> list[LayerFact]:
    """The layers, with parameters that several of them share counted for the first of these only."""
    seen: set[int] = set()
    found = []
    for layer in layers:
        own = {id(weight): weight.numel() for weight in module.get_submodule(layer.name).parameters()}
        found.append(replace(layer, parameters=sum(size for key, size in own.items() if key not in seen)))
        seen |= own.keys()
    return found


def _own(part: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in part.parameters(recurse=False) if weight.dim() > 1]


def _entering(name: str, path: list[str]) -> Callable[..., None]:
    return lambda part, inputs: path.append(name)


def _leaving(path: list[str]) -> Callable[..., None]:
    def leave(part: nn.Module, inputs: Any, outputs: Any) -> None:
        path.pop()

    return leave


def _is_transposed_linear(part: nn.Module) -> bool:
    # transformers' linear layer of the GPT-2 family, whose weight is transposed
    return type(part).__name__ == "Conv1D" and isinstance(getattr(part, "nf", None), int)


def _kind(part: nn.Module) -> Kind:
    if _is_transposed_linear(part):
        return Kind.LINEAR
    return next((kind for types, kind in KINDS if isinstance(part, types)), Kind.OTHER)


def _recorder(name: str, kind: Kind, found: dict[str, LayerFact]) -> Callable[..., None]:
    def record(part: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], outputs: Any) -> None:
        source = next((v for v in (*inputs, *named.values()) if isinstance(v, torch.Tensor)), None)
        result = next((v for v in _tensors(outputs)), None)
        in_shape = tuple(source.shape[1:]) if source is not None else ()
        out_shape = tuple(result.shape[1:]) if result is not None else ()
        _count(found, name, part, kind, _macs(part, kind, in_shape, out_shape, result), (in_shape, out_shape))

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
    if kind is Kind.LINEAR and _own(part):
        return _product(out_shape[:-1]) * max(weight.numel() for weight in _own(part))
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
    if _is_transposed_linear(part):
        inside, outside = next(iter(part.parameters())).shape
        return {"in": int(inside), "out": int(outside)}
    if isinstance(part, nn.RNNBase):
        return {"in": part.input_size, "out": part.hidden_size, "layers": part.num_layers}
    return {}


def _attention_macs(counter: FlopCounterMode, layers: Sequence[LayerFact]) -> int:
    """MACs per item of products between activations: batched matrix products made by no linear layer."""
    counts = counter.get_flop_counts()
    flops = _batched_products(counts.get("Global", {}))
    for name in {layer.name for layer in layers if layer.kind is Kind.LINEAR}:
        # torch multiplies a frozen layer's weights with a transposed input item by item
        flops -= sum(_batched_products(ops) for path, ops in counts.items() if path.partition(".")[2] == name)
    return flops // 2


def _batched_products(operations: Mapping[Any, int]) -> int:
    return sum(count for operation, count in operations.items() if "bmm" in str(operation))


def family_of(shares: Mapping[Kind, float], pointwise: float, attending: Mapping[str, str]) -> tuple[Family, str]:
    """The kind of architecture, with the shares of work that it rests on; see `Facts` for the arguments."""
    parts = [f"{share:.0%} {kind}" for kind, share in shares.items() if share >= 0.005]
    evidence = f"work: {', '.join(parts)}" if parts else "no layer with multiply-accumulates"
    ways = Counter(attending.values())
    if ways:
        evidence += f"; attention: {', '.join(f'{count} x {way}' for way, count in ways.items())}"
    attends = shares[Kind.ATTENTION] > 0 or bool(attending)
    if shares[Kind.RECURRENT] >= 0.3:
        return Family.RNN, evidence
    if attends and shares[Kind.CONVOLUTION] < 0.3:
        return Family.TRANSFORMER, evidence
    if pointwise >= 0.005 and not attends:
        evidence += f"; {pointwise:.0%} in linear layers on feature maps, which are convolutions of 1x1"
    if shares[Kind.CONVOLUTION] + pointwise >= 0.6 and not attends:
        return Family.CNN, evidence
    if shares[Kind.LINEAR] >= 0.9 and not attends:
        return Family.MLP, evidence
    return Family.MIXED, evidence
