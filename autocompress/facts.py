"""Facts: what the model is, as far as planning needs to know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Family(StrEnum):
    """Kind of architecture, by where its work is."""

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
    """One layer. `macs` are multiply-accumulates for one item; shapes are without the batch dimension."""

    name: str
    type: str
    kind: Kind
    parameters: int
    macs: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    detail: Mapping[str, int]


@dataclass(frozen=True)
class Facts:
    """What the model is.

    `shares` maps convolution, linear, attention and recurrent to their share of all MACs, summing to 1 (or
    all zero for a model without any). `attention_macs` counts products between activations, which no layer
    holds weights for.
    """

    family: Family
    evidence: str
    parameters: int
    nonzero: int
    macs: int
    attention_macs: int
    shares: Mapping[Kind, float]
    layers: tuple[LayerFact, ...]

    def dominant(self, share: float = 0.8, most: int = 4) -> tuple[LayerFact, ...]:
        """Layers of distinct type and shape that together do `share` of the layers' MACs, at most `most`."""
        groups: dict[tuple[object, ...], list[LayerFact]] = {}
        for layer in self.layers:
            if layer.macs:
                signature = (layer.type, layer.input_shape, layer.output_shape, tuple(layer.detail.items()))
                groups.setdefault(signature, []).append(layer)
        ordered = sorted(groups.values(), key=lambda group: -sum(layer.macs for layer in group))
        total = sum(layer.macs for layer in self.layers)
        chosen: list[LayerFact] = []
        covered = 0
        for group in ordered[:most]:
            chosen.append(group[0])
            covered += sum(layer.macs for layer in group)
            if covered >= share * total:
                break
        return tuple(chosen)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "family": str(self.family),
            "evidence": self.evidence,
            "parameters": self.parameters,
            "nonzero": self.nonzero,
            "macs": self.macs,
            "attention_macs": self.attention_macs,
            "shares": {str(kind): share for kind, share in self.shares.items()},
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
        )
