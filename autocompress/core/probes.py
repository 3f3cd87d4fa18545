"""Probes: what micro-measurements on the device say about which techniques pay for this model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autocompress.core.plan import Setting, Stage, Step


@dataclass(frozen=True)
class Probe:
    """One technique with one choice of settings, measured on the model's dominant layers, or on the `whole` model.

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
    whole: bool = False

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
            "whole": self.whole,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Probe:
        """The probe that `to_json` wrote."""
        return Probe(**data)


@dataclass(frozen=True)
class MicrobenchmarkProbe:
    """The microbenchmarks of layers that techniques were probed on, in float: what leads from them to the model.

    `weights` are values in the weights of the `layers`, which have `channels` outputs in all, each with a scale of its
    own when it is quantized. `layer_ms` is what a layer of them costs that has hardly any channels.
    """

    layers: int
    macs: int
    weights: int
    channels: int
    latency_ms: float
    size_bytes: int
    layer_ms: float


# the way of one structure that stands where no structure reaches the budgets
SMALLEST = "smallest structure"


@dataclass(frozen=True)
class Parts:
    """The parts of a network that a structure technique can take, by name, and why it leaves others alone.

    `what` says what they are and what can be done with them: `blocks can be left out`.
    """

    what: str
    names: tuple[str, ...] = ()
    left_alone: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{len(self.names)} {self.what}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"what": self.what, "names": list(self.names), "left_alone": dict(self.left_alone)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Parts:
        """The parts that `to_json` wrote."""
        return Parts(data["what"], tuple(data["names"]), dict(data["left_alone"]))


NO_PARTS = Parts("parts")


@dataclass(frozen=True)
class Structure:
    """One point on a pruning path: the steps that make it and what is known before it is built and measured.

    `divergence` is how far the outputs move when nothing is trained, None where that was not looked at; `latency` and
    `size` are predicted shares of the baseline, with the finish that goes with it.
    """

    steps: tuple[Step, ...]
    divergence: float | None
    latency: float
    size: float


@dataclass(frozen=True)
class PruningPath:
    """Nested structures: each leaves less of the network than the one before."""

    name: str
    structures: tuple[Structure, ...]


@dataclass(frozen=True)
class Bracket:
    """Structures that are trained beside each other, the most promising first: how many steps each rung takes, and how
    many candidates."""

    structures: tuple[tuple[Step, ...], ...]
    rungs: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()

    def with_rung(self, steps: int, candidates: int) -> Bracket:
        """The same with one rung more."""
        return replace(self, rungs=(*self.rungs, steps), candidates=(*self.candidates, candidates))


@dataclass(frozen=True)
class TrainingProbe:
    """How this network is trained, what one step costs here, and the brackets of training so far.

    `seconds_per_step` holds where the teacher's answer is known already; asking it adds `asking_seconds`, once for
    each of the `bank` batches that there are. Courses follow each other, the later ones with smaller structures.
    """

    batch: int
    learning_rate: float
    optimizer: str
    seconds_per_step: float
    asking_seconds: float = 0.0
    bank: int = 0
    brackets: tuple[Bracket, ...] = ()

    @property
    def rungs(self) -> int:
        """Rungs of all brackets."""
        return sum(len(bracket.rungs) for bracket in self.brackets)

    def seconds(self, bracket: int, number: int) -> float:
        """What a round takes for one candidate, as far as it can be foreseen; both are counted from 0."""
        steps = self.brackets[bracket].rungs[number]
        earlier = [*(one.rungs for one in self.brackets[:bracket]), self.brackets[bracket].rungs[:number]]
        return steps * self.seconds_per_step + self.asking_seconds * min(steps, self._unasked(earlier))

    def affordable(self, seconds: float) -> int:
        """Steps of one more round that fit into a time."""
        unasked = self._unasked([bracket.rungs for bracket in self.brackets])
        asking = unasked * (self.seconds_per_step + self.asking_seconds)
        if seconds < asking:
            return int(seconds / (self.seconds_per_step + self.asking_seconds))
        return unasked + int((seconds - asking) / self.seconds_per_step)

    def _unasked(self, earlier: Sequence[Sequence[int]]) -> int:
        """Batches of the bank whose answers are not known after these rounds."""
        return max(0, self.bank - max((steps for rungs in earlier for steps in rungs), default=0))


@dataclass(frozen=True)
class Probes:
    """All probes of one model on one device. `layers` names the layers that they were taken from.

    `blocks` can be left out and channels of `groups` cut; `left_alone` says why others cannot. `paths` are the
    structures worth measuring; `channel_multiple` is the step of widths that pays here, None where that was not
    measured; `training` is None before anything that fits was found, or without training data. `smallest` is the least
    that can be left of the network, with latency and size as measured; None before it was. `microbenchmarks` is None
    where the microbenchmarks could not be measured. `operators` is the share of the model's time by type of operator,
    as the runtime names them.
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

    def of(self, technique: str) -> tuple[Probe, ...]:
        """The technique's probes that have a figure: those of the whole model before those of its dominant layers with
        other settings, fastest first."""
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
        """What a structure technique can take; nothing where it was not asked."""
        return self.parts.get(technique, NO_PARTS)

    def failure_of(self, technique: str) -> str:
        """Why the technique cannot be done on this model, empty where it can or was not tried."""
        mine = [probe for probe in self.probes if probe.technique == technique]
        tried = [probe for probe in mine if probe.whole] or mine
        return "" if any(not probe.failure for probe in tried) else next((one.failure for one in tried), "")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "probes": [probe.to_json() for probe in self.probes],
            "layers": list(self.layers),
            "int8_dot_product": self.int8_dot_product,
            "parts": {name: parts.to_json() for name, parts in self.parts.items()},
            "paths": [_path_to_json(path) for path in self.paths],
            "training": _training_to_json(self.training) if self.training else None,
            "channel_multiple": self.channel_multiple,
            "smallest": _structure_to_json(self.smallest) if self.smallest else None,
            "microbenchmarks": vars(self.microbenchmarks) if self.microbenchmarks else None,
            "operators": dict(self.operators),
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
            _training(data["training"]) if data["training"] else None,
            data["channel_multiple"],
            _structure(data["smallest"]) if data["smallest"] else None,
            MicrobenchmarkProbe(**data["microbenchmarks"]) if data["microbenchmarks"] else None,
            dict(data["operators"]),
        )


def _steps_to_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [step.to_json() for step in steps]


def _steps(data: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    return tuple(Step(step["technique"], Stage(step["stage"]), step["settings"]) for step in data)


def _path_to_json(path: PruningPath) -> dict[str, Any]:
    return {"name": path.name, "structures": [_structure_to_json(structure) for structure in path.structures]}


def _path(data: Mapping[str, Any]) -> PruningPath:
    return PruningPath(data["name"], tuple(_structure(one) for one in data["structures"]))


def _structure_to_json(structure: Structure) -> dict[str, Any]:
    return {**vars(structure), "steps": _steps_to_json(structure.steps)}


def _structure(data: Mapping[str, Any]) -> Structure:
    return Structure(**{**data, "steps": _steps(data["steps"])})


def _training_to_json(training: TrainingProbe) -> dict[str, Any]:
    brackets = [
        {**vars(bracket), "structures": [_steps_to_json(steps) for steps in bracket.structures]}
        for bracket in training.brackets
    ]
    return {**vars(training), "brackets": brackets}


def _training(data: Mapping[str, Any]) -> TrainingProbe:
    brackets = tuple(
        Bracket(tuple(map(_steps, one["structures"])), tuple(one["rungs"]), tuple(one["candidates"]))
        for one in data["brackets"]
    )
    return TrainingProbe(**{**data, "brackets": brackets})
