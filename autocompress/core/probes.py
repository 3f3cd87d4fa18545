"""Probes: short measurements on the device that show which techniques pay for this model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autocompress.core.plan import Setting, Step
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.training_probe import TrainingProbe, steps_from_json, steps_to_json


@dataclass(frozen=True)
class Probe:
    """One technique with one choice of settings, measured on dominant layers or on the `whole` model.

    `ratio` is its latency over the float latency (below 1 it pays), with one-sided bounds `low` and `high`;
    `size_ratio` is its size in bytes over the float size. `failure` says why there is no figure.
    """

    technique: str
    settings: Mapping[str, Setting]
    ratio: float | None
    low: float | None = None
    high: float | None = None
    size_ratio: float | None = None
    failure: str = ""
    whole: bool = False

    def to_json(self) -> dict[str, Any]:
        """The probe as a JSON object."""
        return {
            "technique": self.technique,
            "settings": dict(self.settings),
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "size_ratio": self.size_ratio,
            "failure": self.failure,
            "whole": self.whole,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Probe:
        """The probe that `to_json` wrote."""
        return Probe(**data)


@dataclass(frozen=True)
class MicrobenchmarkProbe:
    """Figures of the float microbenchmarks, from which predictions for the whole model are derived.

    `weights` are values in the weights of the `layers`, which have `channels` outputs in all, each with a scale of its
    own when it is quantized. `layer_ms` is the time of one of their layers when it has hardly any channels.
    """

    layers: int
    macs: int
    weights: int
    channels: int
    latency_ms: float
    size_bytes: int
    layer_ms: float


# name of the pruning path that holds only the smallest structure, used where no structure reaches the budgets
SMALLEST = "smallest structure"


@dataclass(frozen=True)
class Parts:
    """The parts of a network that a structure technique can remove, and why it leaves others alone.

    `what` says what they are and what can be done with them: `blocks can be left out`.
    """

    what: str
    names: tuple[str, ...] = ()
    left_alone: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{len(self.names)} {self.what}"

    def to_json(self) -> dict[str, Any]:
        """The parts as a JSON object."""
        return {"what": self.what, "names": list(self.names), "left_alone": dict(self.left_alone)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Parts:
        """The parts that `to_json` wrote."""
        return Parts(data["what"], tuple(data["names"]), dict(data["left_alone"]))


NO_PARTS = Parts("parts")


@dataclass(frozen=True)
class Structure:
    """One point on a pruning path: its steps, and what is known before it is built and measured.

    `divergence` is how far the outputs move when nothing is trained, None where that was not measured; `latency` and
    `size` are predicted shares of the baseline, with the finish that goes with it.
    """

    steps: tuple[Step, ...]
    divergence: float | None
    latency: float
    size: float


@dataclass(frozen=True)
class PruningPath:
    """A sequence of nested structures: each leaves less of the network than the one before."""

    name: str
    structures: tuple[Structure, ...]


@dataclass(frozen=True)
class Probes:
    """All probes of one model on one device.

    `layers` names the layers that the microbenchmarks were made from. `parts` are what each structure technique can
    remove. `paths` hold the structures worth measuring; `channel_multiple` is the multiple of channels that pays on
    this device, None where that was not measured; `training` is None before any structure that fits was found, or
    without training data. `smallest` is the smallest structure that can be made, with latency and size as measured;
    None before it was measured. `microbenchmarks` is None where the microbenchmarks could not be measured. `operators`
    is the share of the model's time by type of operator, as the runtime names them. `skipped` is what there was no
    time to probe. `sensitivities` are those of the layers to the quantizations that were seen to lose accuracy.
    `step_seconds` are those of one training step of each technique that trains quantized files. `packed` are the
    settings of the packing that was seen to keep size and time and to lose least accuracy, empty before.
    """

    probes: tuple[Probe, ...] = ()
    layers: tuple[str, ...] = ()
    int8_dot_product: bool | None = None
    parts: Mapping[str, Parts] = field(default_factory=dict)
    paths: tuple[PruningPath, ...] = ()
    training: TrainingProbe | None = None
    channel_multiple: int | None = None
    smallest: Structure | None = None
    microbenchmarks: MicrobenchmarkProbe | None = None
    operators: Mapping[str, float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    packed: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def sensitivity(self) -> Sensitivity | None:
        """That to the quantization which lost least accuracy, None before any was measured."""
        return next(iter(self.sensitivities), None)

    @property
    def loses_accuracy(self) -> bool:
        """True once a quantization was seen to lose accuracy that training its file may win back."""
        losses = self.training.losses if self.training else ()
        return bool(self.sensitivities) or any(one.pays for one in losses)

    @property
    def skipped_sentence(self) -> str:
        """A sentence on what there was no time to probe, empty where there is nothing."""
        what = ", ".join(self.skipped)
        return f"The time limit left no time to probe: {what}. This was planned without these figures." if what else ""

    def of(self, technique: str) -> tuple[Probe, ...]:
        """The technique's probes that have a figure, fastest first.

        Probes of the whole model come before those of its dominant layers with other settings.
        """
        mine = [probe for probe in self.probes if probe.technique == technique and probe.ratio is not None]
        known = [probe.settings for probe in mine if probe.whole]
        counting = [probe for probe in mine if probe.whole or probe.settings not in known]
        return tuple(sorted(counting, key=lambda probe: (not probe.whole, probe.ratio or 0.0)))

    def with_settings(self, technique: str, settings: Mapping[str, Setting]) -> Probe | None:
        """The technique's probe that fits these settings, else its fastest; None where it has no figure."""
        found = self.of(technique)
        fitting = (probe for probe in found if probe.settings.items() <= settings.items())
        return next(fitting, next(iter(found), None))

    def parts_of(self, technique: str) -> Parts:
        """The parts that a structure technique can remove; empty where it was not asked."""
        return self.parts.get(technique, NO_PARTS)

    def failure_of(self, technique: str) -> str:
        """Why the technique cannot be done on this model, empty where it can or was not tried."""
        mine = [probe for probe in self.probes if probe.technique == technique]
        tried = [probe for probe in mine if probe.whole] or mine
        return "" if any(not probe.failure for probe in tried) else next((one.failure for one in tried), "")

    def to_json(self) -> dict[str, Any]:
        """The probes as a JSON object."""
        return {
            "probes": [probe.to_json() for probe in self.probes],
            "layers": list(self.layers),
            "int8_dot_product": self.int8_dot_product,
            "parts": {name: parts.to_json() for name, parts in self.parts.items()},
            "paths": [_path_to_json(path) for path in self.paths],
            "training": self.training.to_json() if self.training else None,
            "channel_multiple": self.channel_multiple,
            "smallest": _structure_to_json(self.smallest) if self.smallest else None,
            "microbenchmarks": vars(self.microbenchmarks) if self.microbenchmarks else None,
            "operators": dict(self.operators),
            "skipped": list(self.skipped),
            "sensitivities": [one.to_json() for one in self.sensitivities],
            "step_seconds": dict(self.step_seconds),
            "packed": dict(self.packed),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Probes:
        """The probes that `to_json` wrote."""
        return Probes(
            tuple(Probe.from_json(probe) for probe in data["probes"]),
            tuple(data["layers"]),
            data["int8_dot_product"],
            {name: Parts.from_json(parts) for name, parts in data["parts"].items()},
            tuple(_path(path) for path in data["paths"]),
            TrainingProbe.from_json(data["training"]) if data["training"] else None,
            data["channel_multiple"],
            _structure(data["smallest"]) if data["smallest"] else None,
            MicrobenchmarkProbe(**data["microbenchmarks"]) if data["microbenchmarks"] else None,
            dict(data["operators"]),
            tuple(data.get("skipped", ())),
            tuple(map(Sensitivity.from_json, data.get("sensitivities", ()))),
            dict(data.get("step_seconds", {})),
            dict(data.get("packed", {})),
        )


def _path_to_json(path: PruningPath) -> dict[str, Any]:
    return {"name": path.name, "structures": [_structure_to_json(structure) for structure in path.structures]}


def _path(data: Mapping[str, Any]) -> PruningPath:
    return PruningPath(data["name"], tuple(_structure(one) for one in data["structures"]))


def _structure_to_json(structure: Structure) -> dict[str, Any]:
    return {**vars(structure), "steps": steps_to_json(structure.steps)}


def _structure(data: Mapping[str, Any]) -> Structure:
    return Structure(**{**data, "steps": steps_from_json(data["steps"])})
