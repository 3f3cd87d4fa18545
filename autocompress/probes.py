"""Probes: what micro-measurements on the device say about which techniques pay for this model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autocompress.plan import Setting


@dataclass(frozen=True)
class Probe:
    """One technique with one choice of settings, measured on the model's dominant layers.

    `ratio` is its latency over the float latency (below 1 it pays), with one-sided bounds `low` and `high`;
    `size_ratio` the same for bytes. `failure` says why there is no figure.
    """

    technique: str
    settings: Mapping[str, Setting]
    ratio: float | None
    low: float | None = None
    high: float | None = None
    size_ratio: float | None = None
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "technique": self.technique,
            "settings": dict(self.settings),
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "size_ratio": self.size_ratio,
            "failure": self.failure,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Probe:
        """The probe that `to_json` wrote."""
        return Probe(**data)


@dataclass(frozen=True)
class BlockProbe:
    """A block that can go, and the divergence of the outputs once it and all listed before it are gone."""

    name: str
    divergence: float


@dataclass(frozen=True)
class TrainingProbe:
    """How a recovery is trained: steps of each round, and what one step costs on this machine."""

    rounds: tuple[int, ...]
    batch: int
    learning_rate: float
    optimizer: str
    seconds_per_step: float


@dataclass(frozen=True)
class Probes:
    """All probes of one model on one device. `layers` names the layers that they were taken from.

    `blocks` are in the order in which they can go; `training` is None without training data, or before it was
    asked.
    """

    probes: tuple[Probe, ...] = ()
    layers: tuple[str, ...] = ()
    int8_dot_product: bool | None = None
    blocks: tuple[BlockProbe, ...] = ()
    training: TrainingProbe | None = None

    def of(self, technique: str) -> tuple[Probe, ...]:
        """The technique's probes that have a figure, fastest first."""
        mine = [probe for probe in self.probes if probe.technique == technique and probe.ratio is not None]
        return tuple(sorted(mine, key=lambda probe: probe.ratio or 0.0))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "probes": [probe.to_json() for probe in self.probes],
            "layers": list(self.layers),
            "int8_dot_product": self.int8_dot_product,
            "blocks": [asdict(block) for block in self.blocks],
            "training": asdict(self.training) if self.training else None,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Probes:
        """The probes that `to_json` wrote."""
        return Probes(
            tuple(Probe.from_json(probe) for probe in data["probes"]),
            tuple(data["layers"]),
            data["int8_dot_product"],
            tuple(BlockProbe(**block) for block in data["blocks"]),
            _training(data["training"]),
        )


def _training(data: Mapping[str, Any] | None) -> TrainingProbe | None:
    return None if data is None else TrainingProbe(**{**data, "rounds": tuple(data["rounds"])})
