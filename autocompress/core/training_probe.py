"""Training of a network: its cost, the brackets of successive halving, what quantization costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autocompress.core.plan import Stage, Step
from autocompress.core.sensitivity import Sensitivity

# a better quantization is tried after a rung where quantization costs this share of the accuracy that is missing
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Bracket:
    """A bracket of successive halving: structures that are trained beside each other, rung by rung.

    The most promising structure comes first. `rungs` are the steps of training in each rung, `candidates` the number of
    structures that are trained in it.
    """

    structures: tuple[tuple[Step, ...], ...]
    rungs: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()

    def with_rung(self, steps: int, candidates: int) -> Bracket:
        """The bracket with one more rung."""
        return replace(self, rungs=(*self.rungs, steps), candidates=(*self.candidates, candidates))


@dataclass(frozen=True)
class QuantizationLoss:
    """The accuracy that quantization costs the best structure of a rung, on the validation data.

    `lost` is how much better its float file is, `missing` what it lacks to keep the accuracy budget with certainty,
    both in the unit of that budget. Bracket and rung are counted from 0. `sensitivity` is that of the trained
    structure's layers, measured where much is lost.
    """

    bracket: int
    rung: int
    lost: float
    missing: float
    unit: str
    sensitivity: Sensitivity | None = None

    @property
    def pays(self) -> bool:
        """True where a better quantization may win as much as further training of the structure."""
        return self.lost > 0 and self.lost >= LEAST_SHARE * self.missing

    def __str__(self) -> str:
        cost = f"{self.lost:.2g} {self.unit}".rstrip() if self.lost > 0 else "nothing"
        return f"quantization costs {cost}, {self.missing:.2g} are missing"


@dataclass(frozen=True)
class TrainingProbe:
    """How this network is trained, what one step costs on this machine, and the brackets so far.

    `seconds_per_step` is for batches whose teacher output is cached; computing it adds `asking_seconds`, once for
    each of the `bank` batches that there are. Brackets follow each other, the later ones with smaller structures.
    `weight_decay` None is the optimizer's usual one; `recipe` names the user's code that trains, empty without any;
    `rate_reason` is a sentence on how the learning rate was chosen. `losses` are what quantization costs after the
    rungs that were judged.
    """

    batch: int
    learning_rate: float
    optimizer: str
    seconds_per_step: float
    asking_seconds: float = 0.0
    bank: int = 0
    brackets: tuple[Bracket, ...] = ()
    weight_decay: float | None = None
    recipe: str = ""
    rate_reason: str = ""
    losses: tuple[QuantizationLoss, ...] = ()

    @property
    def rungs(self) -> int:
        """Number of rungs in all brackets."""
        return sum(len(bracket.rungs) for bracket in self.brackets)

    def seconds(self, bracket: int, number: int) -> float:
        """Predicted seconds of one rung for one candidate; bracket and rung are counted from 0."""
        steps = self.brackets[bracket].rungs[number]
        earlier = [*(one.rungs for one in self.brackets[:bracket]), self.brackets[bracket].rungs[:number]]
        return steps * self.seconds_per_step + self.asking_seconds * min(steps, self._unasked(earlier))

    def loss_after(self, bracket: int, number: int) -> QuantizationLoss | None:
        """What quantization costs after one rung of a bracket, None where that was not judged."""
        return next((one for one in self.losses if (one.bracket, one.rung) == (bracket, number)), None)

    def affordable(self, seconds: float) -> int:
        """Number of steps that one more rung can take within a time."""
        unasked = self._unasked([bracket.rungs for bracket in self.brackets])
        asking = unasked * (self.seconds_per_step + self.asking_seconds)
        if seconds < asking:
            return int(seconds / (self.seconds_per_step + self.asking_seconds))
        return unasked + int((seconds - asking) / self.seconds_per_step)

    def to_json(self) -> dict[str, Any]:
        """The probe as a JSON object."""
        brackets = [
            {**vars(bracket), "structures": [steps_to_json(steps) for steps in bracket.structures]}
            for bracket in self.brackets
        ]
        losses = [
            {**vars(loss), "sensitivity": loss.sensitivity.to_json() if loss.sensitivity else None}
            for loss in self.losses
        ]
        return {**vars(self), "brackets": brackets, "losses": losses}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> TrainingProbe:
        """The probe that `to_json` wrote."""
        brackets = tuple(
            Bracket(tuple(map(steps_from_json, one["structures"])), tuple(one["rungs"]), tuple(one["candidates"]))
            for one in data["brackets"]
        )
        losses = tuple(_loss(one) for one in data.get("losses", ()))
        return TrainingProbe(**{**data, "brackets": brackets, "losses": losses})

    def _unasked(self, earlier: Sequence[Sequence[int]]) -> int:
        """Number of batches in the bank whose teacher output is not cached after these rungs."""
        return max(0, self.bank - max((steps for rungs in earlier for steps in rungs), default=0))


def steps_to_json(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The steps as JSON objects."""
    return [step.to_json() for step in steps]


def steps_from_json(data: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps that `steps_to_json` wrote."""
    return tuple(Step(step["technique"], Stage(step["stage"]), step["settings"]) for step in data)


def _loss(data: Mapping[str, Any]) -> QuantizationLoss:
    found = data["sensitivity"]
    return QuantizationLoss(**{**data, "sensitivity": Sensitivity.from_json(found) if found else None})
