"""Facts: properties of the model that planning needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from autocompress.core.output_kinds import OutputFact


class Family(StrEnum):
    """Kind of architecture, by the kind of layers that do most of its work."""

    CNN = "cnn"
    TRANSFORMER = "transformer"
    RNN = "rnn"
    MLP = "mlp"
    MIXED = "mixed"


class Kind(StrEnum):
    """Kind of work that a layer does."""

    CONVOLUTION = "convolution"
    LINEAR = "linear"
    ATTENTION = "attention"
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"
    NORM = "norm"
    OTHER = "other"


@dataclass(frozen=True)
class LayerFact:
    """One layer with its kind, shapes, MACs and parameters.

    `macs` are multiply-accumulates for one item; shapes are without the batch dimension. Parameters that several layers
    hold count for the first of them.
    """

    name: str
    type: str
    kind: Kind
    parameters: int
    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    detail: Mapping[str, int]


@dataclass(frozen=True)
class WeightFact:
    """How the values of a layer's largest weight tensor are distributed.

    `near_zero` is the share of weights below a hundredth of the largest; `outliers` the share of output channels with a
    weight beyond 6 standard deviations of all; `channel_spread` the widest channel's range over the median one's, which
    makes one scale for all channels costly (Nagel et al., "Data-free quantization", ICCV 2019). `rank` is the share of
    singular values that hold nine tenths of the squared sum, None where it was not computed: below the share at which
    two factors are smaller than their product, low rank pays.
    """

    mean: float
    std: float
    near_zero: float
    outliers: float
    channel_spread: float
    rank: float | None = None


@dataclass(frozen=True)
class Repeat:
    """Modules of one type and shape that follow each other: residual blocks of a stage, encoder layers."""

    type: str
    names: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class Facts:
    """Properties of a model: its layers, shares of work, kinds of modules, weights.

    `shares` maps convolution, linear, attention and recurrent to their share of all MACs, summing to 1 (or
    all zero for a model without any). `attention_macs` counts products between activations, which no layer
    holds weights for. `convolution` splits the MACs of convolutions into dense, grouped and depthwise shares.
    `activations` counts the types of layers that compute activation functions; plain functions are not seen.
    `attention` maps the names of modules that compute attention to how they do it. `quantizable` is the share of
    parameters in layers that have int8 kernels. `largest_activation` is in values per item. `weights` holds the
    distributions of weights, where they were computed. `preparation` holds a sentence for each thing in which what is
    compressed is not what was given. `is_file` says that the model is a file, which can neither be cut nor trained.
    `outputs` are the kinds of the floating outputs by name, and `recovery` says what training would learn from; empty
    without training data.
    """

    family: Family
    evidence: str
    parameters: int
    nonzero: int
    macs: int
    attention_macs: int
    shares: Mapping[Kind, float]
    layers: tuple[LayerFact, ...]
    convolution: Mapping[str, float] = field(default_factory=dict)
    attention: Mapping[str, str] = field(default_factory=dict)
    repeats: tuple[Repeat, ...] = ()
    quantizable: float = 0.0
    largest_activation: int = 0
    weights: Mapping[str, WeightFact] = field(default_factory=dict)
    activations: Mapping[str, int] = field(default_factory=dict)
    preparation: tuple[str, ...] = ()
    is_file: bool = False
    outputs: Mapping[str, OutputFact] = field(default_factory=dict)
    recovery: str = ""

    @property
    def comparison(self) -> tuple[str, ...]:
        """How outputs are compared and what recovery learns from, a line each, which the user may contradict."""
        return (*(fact.told(name) for name, fact in self.outputs.items()), *filter(None, [self.recovery]))

    def dominant(self, share: float = 0.8, most: int = 4) -> tuple[LayerFact, ...]:
        """Layers of distinct type and shape that together do `share` of the layers' MACs, at most `most`."""
        return tuple(alike[0] for alike in self.alike(share, most))

    def alike(self, share: float = 0.8, most: int = 4) -> list[list[LayerFact]]:
        """The dominant layers, each in a list with all layers of the same type and shape."""
        groups: dict[tuple[object, ...], list[LayerFact]] = {}
        for layer in self.layers:
            if layer.macs:
                signature = (layer.type, layer.input_shape, layer.output_shape, tuple(layer.detail.items()))
                groups.setdefault(signature, []).append(layer)
        ordered = sorted(groups.values(), key=lambda group: -sum(layer.macs for layer in group))
        total = sum(layer.macs for layer in self.layers)
        chosen: list[list[LayerFact]] = []
        covered = 0
        for group in ordered[:most]:
            chosen.append(group)
            covered += sum(layer.macs for layer in group)
            if covered >= share * total:
                break
        return chosen

    def to_json(self) -> dict[str, Any]:
        """The facts as a JSON object."""
        return {
            "family": str(self.family),
            "evidence": self.evidence,
            "parameters": self.parameters,
            "nonzero": self.nonzero,
            "macs": self.macs,
            "attention_macs": self.attention_macs,
            "shares": {str(kind): share for kind, share in self.shares.items()},
            "convolution": dict(self.convolution),
            "attention": dict(self.attention),
            "repeats": [asdict(repeat) for repeat in self.repeats],
            "quantizable": self.quantizable,
            "largest_activation": self.largest_activation,
            "activations": dict(self.activations),
            "preparation": list(self.preparation),
            "is_file": self.is_file,
            "outputs": {name: fact.to_json() for name, fact in self.outputs.items()},
            "recovery": self.recovery,
            "weights": {name: asdict(fact) for name, fact in self.weights.items()},
            "layers": [asdict(layer) for layer in self.layers],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Facts:
        """The facts that `to_json` wrote."""
        layers = (
            LayerFact(
                **{
                    **layer,
                    "kind": Kind(layer["kind"]),
                    "input_shape": tuple(layer["input_shape"]),
                    "output_shape": tuple(layer["output_shape"]),
                }
            )
            for layer in data["layers"]
        )
        return Facts(
            Family(data["family"]),
            str(data["evidence"]),
            int(data["parameters"]),
            int(data["nonzero"]),
            int(data["macs"]),
            int(data["attention_macs"]),
            {Kind(kind): share for kind, share in data["shares"].items()},
            tuple(layers),
            dict(data["convolution"]),
            dict(data["attention"]),
            tuple(Repeat(one["type"], tuple(one["names"]), one["parameters"]) for one in data["repeats"]),
            float(data["quantizable"]),
            int(data["largest_activation"]),
            {name: WeightFact(**fact) for name, fact in data["weights"].items()},
            dict(data["activations"]),
            tuple(map(str, data.get("preparation", ()))),
            bool(data.get("is_file", False)),
            {name: OutputFact.from_json(one) for name, one in data.get("outputs", {}).items()},
            str(data.get("recovery", "")),
        )
