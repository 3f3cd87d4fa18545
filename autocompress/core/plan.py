"""Plans: the steps applied to the model, as rounds on the module and a finish on the artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from autocompress.errors import PlanError

Setting = str | int | float | bool
SCHEMA = 1
# settings of a step that trains which say how it was changed on the way to fit time and memory
CUTS, MICRO_BATCHES = "cuts", "micro_batches"
ADAPTED = (CUTS, MICRO_BATCHES)


class Stage(StrEnum):
    """When a technique is applied; members are in their order inside a round and inside the finish."""

    STRUCTURE = "structure"
    WEIGHTS = "weights"
    RECOVERY = "recovery"
    PREPARATION = "preparation"
    PRECISION = "precision"
    TUNING = "tuning"
    PACKING = "packing"


class Effort(IntEnum):
    """The cost of applying a technique: nothing, a pass over calibration data, or training."""

    NONE = 0
    CALIBRATION = 1
    TRAINING = 2


ROUND_STAGES = (Stage.STRUCTURE, Stage.WEIGHTS, Stage.RECOVERY)
# before quantization a float file is prepared for it, after it the quantized file's numbers are tuned
FINISH_STAGES = (Stage.PREPARATION, Stage.PRECISION, Stage.TUNING, Stage.PACKING)
# stages of steps that save nothing by themselves: they keep accuracy where the precision step loses it
ACCURACY_STAGES = (Stage.PREPARATION, Stage.TUNING)
# stages of steps that may train: the module in a round, the quantized or packed file in the finish
TRAINED_STAGES = (Stage.RECOVERY, Stage.TUNING, Stage.PACKING)


@dataclass(frozen=True)
class Step:
    """One technique with its settings."""

    technique: str
    stage: Stage
    settings: Mapping[str, Setting]

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(sorted(self.settings.items()))))

    def __hash__(self) -> int:
        return hash((self.technique, self.stage, tuple(self.settings.items())))

    def __reduce__(self) -> tuple[Any, ...]:
        # a mappingproxy cannot be pickled; the constructor makes it again
        return Step, (self.technique, self.stage, dict(self.settings))

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.technique}({inside})"

    @property
    def planned(self) -> Step:
        """The step before its training was changed on the way to fit time and memory."""
        if self.stage not in TRAINED_STAGES or not set(ADAPTED) & set(self.settings):
            return self
        kept = {name: value for name, value in self.settings.items() if name not in ADAPTED}
        return Step(self.technique, self.stage, kept)

    @property
    def steps_taken(self) -> int:
        """The training steps of a step that trains: as planned, or where the last cut ends; else 0."""
        cuts = str(self.settings.get(CUTS, "")).split()
        return int(cuts[-1].partition(":")[2]) if cuts else int(self.settings.get("steps", 0))

    def to_json(self) -> dict[str, Any]:
        """The step as a JSON object."""
        return {"technique": self.technique, "stage": str(self.stage), "settings": dict(self.settings)}


@dataclass(frozen=True)
class Plan:
    """Rounds of steps on the module, then one finish of steps on the artifact.

    The empty plan is the baseline.

    Raises:
        PlanError: when a step stands in the wrong part, stages are out of order, or a round trains twice.
    """

    rounds: tuple[tuple[Step, ...], ...] = ()
    finish: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        for number, steps in enumerate(self.rounds, start=1):
            _check_order(f"round {number}", steps, ROUND_STAGES)
            if sum(step.stage is Stage.RECOVERY for step in steps) > 1:
                raise PlanError("a round may hold one recovery step.", where=f"round {number}")
            if not steps:
                raise PlanError("a round without steps.", where=f"round {number}")
        _check_order("finish", self.finish, FINISH_STAGES)

    @property
    def steps(self) -> Iterator[Step]:
        """All steps in the order they are applied."""
        for steps in self.rounds:
            yield from steps
        yield from self.finish

    @property
    def structure(self) -> tuple[Step, ...]:
        """The steps of the first round that remove parts of the network."""
        return tuple(step for step in self.rounds[0] if step.stage is Stage.STRUCTURE) if self.rounds else ()

    @property
    def planned(self) -> Plan:
        """The plan as it was before its training was changed on the way to fit time and memory."""
        rounds = tuple(tuple(step.planned for step in steps) for steps in self.rounds)
        return Plan(rounds, tuple(step.planned for step in self.finish))

    @property
    def hash(self) -> str:
        """A hash of 16 hex digits (sha256 of the canonical JSON), stable across processes and Python versions."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        if not self.rounds and not self.finish:
            return "the model as it is"
        parts = [" + ".join(map(str, steps)) for steps in (*self.rounds, self.finish) if steps]
        return " | ".join(parts)

    @property
    def kind(self) -> str:
        """The techniques without their settings; one that comes several times in a row is counted."""
        runs = [(name, sum(1 for _ in steps)) for name, steps in groupby(self.steps, key=lambda step: step.technique)]
        return " + ".join(f"{name} x{count}" if count > 1 else name for name, count in runs) or str(self)

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return {
            "schema": SCHEMA,
            "rounds": [[step.to_json() for step in steps] for steps in self.rounds],
            "finish": [step.to_json() for step in self.finish],
        }

    def to_yaml(self) -> str:
        """The plan as the text of a YAML file that `autocompress apply` replays."""
        return yaml.safe_dump(self.to_json(), sort_keys=False)

    @staticmethod
    def from_json(data: Any, where: str = "plan") -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            PlanError: when the object is not a plan.
        """
        if not isinstance(data, Mapping) or set(data) - {"schema", "rounds", "finish"}:
            raise PlanError(
                "is not a plan: expected the keys schema, rounds, finish.",
                where=where,
                hint="Give the plan.yaml of a run.",
            )
        if data.get("schema") != SCHEMA:
            raise PlanError(
                f"has schema {data.get('schema')!r}, this version reads {SCHEMA}.",
                where=where,
                hint="Make it again with this version of autocompress.",
            )
        rounds, finish = data.get("rounds", []), data.get("finish", [])
        if not isinstance(rounds, list) or not isinstance(finish, list):
            raise PlanError("rounds and finish are lists of steps.", where=where)
        try:
            return Plan(
                tuple(tuple(_step(step) for step in steps) for steps in rounds),
                tuple(_step(step) for step in finish),
            )
        except PlanError as error:
            raise PlanError(error.message, where=f"{where}: {error.where}", hint=error.hint) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                f"has a malformed step ({type(error).__name__}: {error}).",
                where=where,
                hint="A step has the keys technique, stage and settings.",
            ) from None

    @staticmethod
    def read(path: Path) -> Plan:
        """The plan in a YAML file.

        Raises:
            PlanError: when the file cannot be read or is not a plan.
        """
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PlanError(
                f"cannot be read ({reason}).", where=str(path), hint="Give the plan.yaml of a run."
            ) from None
        except (yaml.YAMLError, ValueError) as error:
            raise PlanError(f"is not YAML ({_first_line(error)}).", where=str(path)) from None
        return Plan.from_json(data, where=str(path))


def _step(data: Mapping[str, Any]) -> Step:
    unknown = set(data) - {"technique", "stage", "settings"}
    if unknown:
        raise KeyError(f"unknown key {sorted(map(str, unknown))[0]}")
    settings = data["settings"]
    if not isinstance(data["technique"], str):
        raise TypeError("technique is no name")
    for key, value in settings.items():
        if not isinstance(value, str | int | float | bool):
            raise TypeError(f"setting {key} is {type(value).__name__}")
    return Step(data["technique"], Stage(data["stage"]), settings)


def _check_order(part: str, steps: tuple[Step, ...], stages: tuple[Stage, ...]) -> None:
    places = []
    for step in steps:
        if step.stage not in stages:
            raise PlanError(
                f"{step.technique} acts at stage {step.stage}, which does not belong there.",
                where=part,
                hint=f"Allowed: {', '.join(stages)}.",
            )
        places.append(stages.index(step.stage))
    if places != sorted(places):
        raise PlanError(f"steps are out of order; the order is {', '.join(stages)}.", where=part)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
