"""The schedule of a training: its settings, and how it was changed on the way to fit time and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autocompress.core.plan import ADAPTED, CUTS, MICRO_BATCHES, Setting
from autocompress.core.training_recipe import TrainingRecipe
from autocompress.errors import PlanError

# pairs of a step and the value that holds from there on
Changes = tuple[tuple[int, int], ...]
PLAIN = TrainingRecipe()


@dataclass(frozen=True)
class Schedule:
    """Settings of the training; the same schedule, data and thread count give the same weights.

    `views` is the size of the bank of augmented views, 0 for fresh ones; `feature_weight` weighs the matching of
    blocks that remain, 0 leaves it out. In layers that `frozen` names, parameters that are frozen stay so.
    `weight_decay` None stands for the optimizer's usual one. Of the `recipe` the functions count. Where `or_as_it_was`,
    the weights that training begins with are kept if none later on score at least as well.

    `cuts` are the steps at which the time turned out too short, each with the step at which training ends from then
    on: what was left of the schedule is run through in the steps that are left, so that the learning rate still falls
    to 0. `micro_batches` are the steps from which gradients of so many items at a time are added up, because a whole
    batch did not fit into memory.
    """

    steps: int
    batch: int
    seed: int
    learning_rate: float
    optimizer: str = "sgd"
    views: int = 0
    feature_weight: float = 0.0
    temperature: float = 4.0
    soft_weight: float = 0.9
    momentum: float = 0.9
    weight_decay: float | None = None
    averaging: float = 0.995
    warm_up: float = 0.1
    frozen: tuple[str, ...] = ()
    cuts: Changes = ()
    micro_batches: Changes = ()
    recipe: TrainingRecipe = PLAIN
    or_as_it_was: bool = False

    @property
    def end(self) -> int:
        """The number of steps that are taken."""
        return self.cuts[-1][1] if self.cuts else self.steps

    def planned_step(self, taken: int) -> float:
        """The place in the schedule as planned, from 0 to `steps`, after so many steps were taken."""
        place, since, end = 0.0, 0, self.steps
        for step, then in self.cuts:
            if taken <= step:
                break
            place, since, end = self._place(place, since, end, step), step, then
        return self._place(place, since, end, taken) if self.cuts else taken

    def _place(self, place: float, since: int, end: int, taken: int) -> float:
        return place + (taken - since) * (self.steps - place) / max(1, end - since)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step: linear from 0 in the warm-up, then half a cosine to 0 at the end.

        A recipe's `schedule` gives the factor for the share of the training that is done.
        """
        place = self.planned_step(step)
        if self.recipe.schedule is not None:
            return self.learning_rate * self.recipe.factor(place / self.steps)
        rise = max(1, int(self.warm_up * self.steps))
        if place < rise:
            return self.learning_rate * (place + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (place - rise) / max(1, self.steps - rise)))

    def micro_batch_at(self, step: int) -> int:
        """The number of items whose gradients are taken at a time in a step."""
        return next((size for since, size in reversed(self.micro_batches) if step >= since), self.batch)

    def cut(self, step: int, end: int) -> Schedule:
        """The schedule that ends at `end`, decided after `step` steps."""
        return replace(self, cuts=(*(one for one in self.cuts if one[0] < step), (step, end)))

    def with_micro_batch(self, step: int, size: int) -> Schedule:
        """The schedule whose gradients are taken of so many items at a time from a step on."""
        return replace(self, micro_batches=(*(one for one in self.micro_batches if one[0] < step), (step, size)))


def changes_text(changes: Changes) -> str:
    """Changes as a setting of a plan: `1200:3000 2000:2500`."""
    return " ".join(f"{step}:{value}" for step, value in changes)


def settings_as_trained(settings: Mapping[str, Setting], schedule: Schedule) -> dict[str, Setting]:
    """A step's settings with how its schedule was changed on the way; they give the same weights again."""
    changes = {CUTS: changes_text(schedule.cuts), MICRO_BATCHES: changes_text(schedule.micro_batches)}
    kept = {name: value for name, value in settings.items() if name not in ADAPTED}
    return {**kept, **{name: text for name, text in changes.items() if text}}


def changes_in(settings: Mapping[str, Setting], where: str) -> tuple[Changes, Changes]:
    """The cuts and the micro-batches that `settings_as_trained` wrote into a step's settings.

    Raises:
        PlanError: see `parse_changes`.
    """
    cuts, parts = (parse_changes(str(settings.get(name, "")), where) for name in ADAPTED)
    return cuts, parts


def steps_taken(settings: Mapping[str, Setting], where: str) -> int:
    """The training steps of a step with these settings: as planned, or where the last cut ends.

    Raises:
        PlanError: see `parse_changes`.
    """
    cuts, _ = changes_in(settings, where)
    return cuts[-1][1] if cuts else int(settings.get("steps", 0))


def parse_changes(text: str, where: str) -> Changes:
    """The changes that `changes_text` wrote.

    Raises:
        PlanError: when the text is not such a list in the order of its steps.
    """
    try:
        found = [tuple(map(int, part.split(":"))) for part in text.split()]
        changes = tuple((step, value) for step, value in found)
    except ValueError:
        changes = ((-1, 0),)
    steps = [step for step, _ in changes]
    if any(step < 0 or value < 1 for step, value in changes) or steps != sorted(set(steps)):
        raise PlanError(
            f"{text!r} is no list of steps and values.", where=where, hint="Write 1200:3000 for 3000 from step 1200 on."
        )
    return changes
