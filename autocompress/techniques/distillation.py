"""Distillation from the original network; the method is described in `autocompress.recovery`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from autocompress.errors import PlanError, TechniqueError
from autocompress.facts import Facts
from autocompress.ladder import Choice, Reason, Space
from autocompress.plan import Effort, Setting, Stage
from autocompress.probes import Probes
from autocompress.profile import Profile
from autocompress.recovery import Schedule, recover
from autocompress.technique import Context, ModelTechnique

KNOWN = ("steps", "batch", "seed", "learning_rate", "optimizer")


class Distillation(ModelTechnique):
    """Training with the original as teacher for a number of steps fixed in the plan."""

    name: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "accuracy is won back by training with the original as teacher"
    stage: ClassVar[Stage] = Stage.RECOVERY
    effort: ClassVar[Effort] = Effort.TRAINING
    # numbers, so the options cannot be listed: any whole number of steps, batch and seed, any rate above 0
    choices: ClassVar[tuple[Choice, ...]] = tuple(Choice(name, (), structural=False) for name in KNOWN)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> Space:
        """One schedule: what was measured of the training speed decides the steps."""
        training = probes.training
        if training is None:
            return Space()
        values: dict[str, Setting] = {
            "steps": training.rounds[0],
            "batch": training.batch,
            "seed": 0,
            "learning_rate": training.learning_rate,
            "optimizer": training.optimizer,
        }
        return Space(tuple(Choice(name, (values[name],), structural=False) for name in KNOWN))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where nothing changes the structure: the original needs no recovery."""
        if probes.training is not None and probes.blocks:
            return None
        return Reason("no structure was changed that would need recovery.", "recovery", "no droppable blocks")

    def apply(self, module: nn.Module, settings: Mapping[str, Setting], context: Context) -> nn.Module:
        """See `ModelTechnique.apply`."""
        if set(settings) != set(KNOWN):
            raise PlanError("has other settings than these.", where=self.name, hint=f"Needed: {', '.join(KNOWN)}.")
        if context.task is None or context.teacher is None:
            raise TechniqueError("needs training data and a teacher.", where=self.name)
        schedule = _schedule(settings)
        checkpoint = context.folder / "training.pt"
        return recover(module, context.teacher, context.task, context.example, schedule, checkpoint, context.tell)


def _schedule(settings: Mapping[str, Setting]) -> Schedule:
    steps, batch, seed = (int(settings[name]) for name in ("steps", "batch", "seed"))
    rate, optimizer = float(settings["learning_rate"]), str(settings["optimizer"])
    if steps < 1 or batch < 1 or rate <= 0 or optimizer not in ("sgd", "adamw"):
        raise PlanError(
            f"cannot train {steps} steps of {batch} items with {optimizer} at {rate}.",
            where="distillation",
            hint="Steps, batch and learning_rate are above 0; optimizer is sgd or adamw.",
        )
    return Schedule(steps, batch, seed, rate, optimizer)
