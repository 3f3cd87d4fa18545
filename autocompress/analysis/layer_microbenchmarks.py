"""Microbenchmarks of the model's dominant layers: small modules on which techniques are probed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from autocompress.core.facts import Facts, LayerFact

# larger layers would make the probe take longer than what it saves
MAX_LAYER_PARAMETERS = 10_000_000
# most copies of one microbenchmark; copies weight each microbenchmark by the work its kind of layer does in the model
MOST_COPIES = 4
THIN = 4
# linear layers of at least so many MACs or weights are benchmarked alone: their neighbours hardly add to their time
ALONE_MACS, ALONE_WEIGHTS = 50_000_000, 4_000_000
# most MACs and weights of all copies together: larger microbenchmarks would take longer than they save
MOST_MACS, MOST_WEIGHTS = 400_000_000, 15_000_000
CONVOLUTIONS: Mapping[str, type[nn.Conv1d | nn.Conv2d]] = {"Conv1d": nn.Conv1d, "Conv2d": nn.Conv2d}
RECURRENT: Mapping[str, Callable[..., nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
LINEAR = ("Linear", "Conv1D")
# activations that follow layers; gates are not among them
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    one.__name__: one for one in (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)
}


@dataclass(frozen=True)
class Microbenchmark:
    """A few layers like one of the model's, connected in sequence, that are timed instead of the model.

    `length` is their number, `copies` how many copies of it are timed together. `make(width)` builds the module; a
    `width` replaces the number of its inner channels.
    """

    layer: LayerFact
    length: int
    copies: int
    make: Callable[[int | None], nn.Module]


class Microbenchmarks(nn.Module):
    """A module of several microbenchmarks, each with an input of its own, named as in the example."""

    def __init__(self, microbenchmarks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.microbenchmarks = nn.ModuleDict(dict(microbenchmarks))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """One output per microbenchmark."""
        return {f"{name}_out": microbenchmark(inputs[name]) for name, microbenchmark in self.microbenchmarks.items()}


def microbenchmarks_of(facts: Facts) -> list[Microbenchmark]:
    """One microbenchmark for each kind of dominant layer that can be rebuilt.

    Its number of copies is in proportion to the work that this kind of layer does in the model.
    """
    found = []
    activation = activation_of(facts)
    for alike in facts.alike():
        layer = alike[0]
        made = _microbenchmark(layer, ACTIVATIONS[activation]) if _weights(layer) <= MAX_LAYER_PARAMETERS else None
        if made is not None:
            length, make = made
            found.append(
                (Microbenchmark(layer, length, 1, make), sum(one.macs for one in alike) / (length * layer.macs))
            )
    least = min((work for _, work in found), default=1.0)
    copies = [min(MOST_COPIES, max(1, round(work / least))) for _, work in found]
    microbenchmarks = [microbenchmark for microbenchmark, _ in found]
    while max(copies, default=1) > 1 and not _is_quick(microbenchmarks, copies):
        copies = [max(1, count - 1) for count in copies]
    return [
        replace(microbenchmark, copies=count) for microbenchmark, count in zip(microbenchmarks, copies, strict=True)
    ]


def activation_of(facts: Facts) -> str:
    """The model's most frequent activation, which microbenchmarks place between their layers.

    It matters because int8 may make an activation slower.
    """
    known = [name for name in facts.activations if name in ACTIVATIONS]
    return max(known, key=lambda name: facts.activations[name], default=nn.ReLU.__name__)


def _is_quick(microbenchmarks: Sequence[Microbenchmark], copies: Sequence[int]) -> bool:
    layers = [microbenchmark.length * count for microbenchmark, count in zip(microbenchmarks, copies, strict=True)]
    macs = sum(count * microbenchmark.layer.macs for count, microbenchmark in zip(layers, microbenchmarks, strict=True))
    weights = sum(
        count * _weights(microbenchmark.layer) for count, microbenchmark in zip(layers, microbenchmarks, strict=True)
    )
    return macs <= MOST_MACS and weights <= MOST_WEIGHTS


def _weights(layer: LayerFact) -> int:
    """The number of weights a layer computes with, including weights that it shares with another layer."""
    return max(layer.parameters, layer.detail["in"] * layer.detail["out"] if layer.type in LINEAR else 0)


def build(
    microbenchmarks: Sequence[Microbenchmark], width: int | None = None
) -> tuple[Microbenchmarks, dict[str, tuple[int, ...]]]:
    """Build one module of all microbenchmarks, and give the shapes of its inputs by name.

    The weights are the same every time. See `Microbenchmark.make` for `width`.
    """
    parts: dict[str, nn.Module] = {}
    inputs: dict[str, tuple[int, ...]] = {}
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        for place, microbenchmark in enumerate(microbenchmarks):
            for copy in range(microbenchmark.copies):
                parts[f"layer{place}_{copy}"] = microbenchmark.make(width)
                inputs[f"layer{place}_{copy}"] = microbenchmark.layer.input_shape
    return Microbenchmarks(parts).eval(), inputs


class _Residual(nn.Module):
    """Two convolutions with a residual addition around them.

    Some int8 types are fast in a plain sequence and slow around an addition.
    """

    def __init__(self, first: nn.Module, second: nn.Module, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.inside, self.after = activation(), activation()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The sum after its activation, in the shape of `values`."""
        result: torch.Tensor = self.after(values + self.second(self.inside(self.first(values))))
        return result


class _FirstOutput(nn.Module):
    """A recurrent layer that gives only its output sequence, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The output sequence of the layer."""
        result: torch.Tensor = self.layer(values)[0]
        return result


def _microbenchmark(
    layer: LayerFact, activation: type[nn.Module]
) -> tuple[int, Callable[[int | None], nn.Module]] | None:
    """The number of layers in a layer's microbenchmark, and a function that builds it.

    None for types of layers that are not rebuilt. The layers map the input width to the output width, back, and forward
    again, so that most tensors pass from layer to layer as in the model, and few from or to float.
    """
    if layer.type in CONVOLUTIONS and layer.input_shape:
        return _convolutions(layer, activation)
    if layer.type in LINEAR and layer.input_shape:
        wide, narrow = layer.detail["in"], layer.detail["out"]
        if layer.macs > ALONE_MACS or _weights(layer) > ALONE_WEIGHTS:
            return 1, lambda width: nn.Linear(wide, width or narrow)

        def linear(width: int | None) -> nn.Module:
            inner = width or narrow
            layers = (nn.Linear(wide, inner), activation(), nn.Linear(inner, wide), activation())
            return nn.Sequential(*layers, nn.Linear(wide, inner))

        return 3, linear
    recurrent = RECURRENT.get(layer.type)
    if recurrent is not None and len(layer.input_shape) == 2:
        size, state = layer.detail["in"], layer.detail["out"]
        layers = layer.detail["layers"]
        return 1, lambda width: _FirstOutput(recurrent(size, width or state, layers, batch_first=True))
    return None


def _convolutions(
    layer: LayerFact, activation: type[nn.Module]
) -> tuple[int, Callable[[int | None], nn.Module]] | None:
    type_, detail = CONVOLUTIONS[layer.type], layer.detail
    if len(layer.input_shape) != (2 if type_ is nn.Conv1d else 3):
        return None
    entering, leaving, kernel, stride = detail["in"], detail["out"], detail["kernel"], detail["stride"]

    def convolution(source: int, target: int, stride: int = 1) -> nn.Module:
        # too few channels for the groups are in one group
        groups = detail["groups"] if source % detail["groups"] == target % detail["groups"] == 0 else 1
        padding = "same" if stride == 1 else kernel // 2
        return type_(source, target, kernel, stride, padding, groups=groups)

    if stride > 1:

        def strided(width: int | None) -> nn.Module:
            inner = width or leaving
            return nn.Sequential(
                convolution(entering, inner, stride), activation(), convolution(inner, entering), activation()
            )

        return 2, strided
    if entering == leaving:

        def residual(width: int | None) -> nn.Module:
            inner = width or leaving
            return _Residual(convolution(entering, inner), convolution(inner, leaving), activation)

        return 2, residual

    def plain(width: int | None) -> nn.Module:
        inner = width or leaving
        layers = (convolution(entering, inner), activation(), convolution(inner, entering), activation())
        return nn.Sequential(*layers, convolution(entering, inner))

    return 3, plain
