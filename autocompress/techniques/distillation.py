"""Distillation from the original network; the method is described in `autocompress.training.recovery`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import nn

from autocompress.core.code_hash import code_hash
from autocompress.core.facts import Facts
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.core.technique import Context, ModelTechnique
from autocompress.data.copies import with_own_weights
from autocompress.errors import PlanError, TechniqueError
from autocompress.training.cost import VIEWS
from autocompress.training.recovery import Files, Schedule, recover

NEEDED = ("steps", "batch", "seed", "learning_rate", "optimizer")
KNOWN = (*NEEDED, "views", "feature_weight")


class Distillation(ModelTechnique):
    """Trains with the original as teacher, for a number of steps fixed in the plan."""

    name: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "accuracy is won back by training with the original as teacher"
    stage: ClassVar[Stage] = Stage.RECOVERY
    effort: ClassVar[Effort] = Effort.TRAINING
    # options cannot be listed: any whole number is a step count, batch or seed, and any number above 0 a rate
    choices: ClassVar[tuple[Choice, ...]] = tuple(Choice(name, (), structural=False) for name in KNOWN)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`: the total steps of all rounds."""
        steps = sum(int(one.get("steps", 0)) for one in settings)
        return f"distilled {steps} steps" if steps < 1000 else f"distilled {steps / 1000:.3g}k steps"

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """A single schedule with the steps of the first rung; recipes put in the steps of later ones."""
        training = probes.training
        if training is None:
            return SettingSpace()
        values: dict[str, Setting] = {
            "steps": training.brackets[0].rungs[0] if training.rungs else 1,
            "batch": training.batch,
            "seed": 0,
            "learning_rate": training.learning_rate,
            "optimizer": training.optimizer,
            "views": VIEWS,
            "feature_weight": 0.0,
        }
        return SettingSpace(tuple(Choice(name, (values[name],), structural=False) for name in KNOWN))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where no structure that fits needs it."""
        if probes.training is not None:
            return None
        count = len(probes.paths)
        found = f"{count} pruning path{'s' if count != 1 else ''}"
        if not probes.paths:
            return Reason("nothing can go from the network, so nothing has to be won back.", "recovery", found)
        return Reason("no structure that keeps the size and time budgets is known (yet).", "recovery", found)

    def apply(self, module: nn.Module, settings: Mapping[str, Setting], context: Context) -> nn.Module:
        """See `ModelTechnique.apply`."""
        if set(settings) - set(KNOWN) or set(NEEDED) - set(settings):
            hint = f"Needed: {', '.join(NEEDED)}; may be left out: views, feature_weight."
            raise PlanError("has other settings than these.", where=self.name, hint=hint)
        if context.task is None or context.teacher is None:
            raise TechniqueError("needs training data and a teacher.", where=self.name)
        schedule = _schedule(settings)
        files = Files(
            context.folder / "training.pt", context.shared and context.shared / _answers(context.task, schedule)
        )
        # without a structure step before it, the module still shares the original's weights
        student = with_own_weights(module)
        schedule = replace(schedule, frozen=context.ignore)
        return recover(student, context.teacher, context.task, context.example, schedule, files, context.on_step)


def _answers(task: Task, schedule: Schedule) -> str:
    """The file name of the teacher's cached outputs for one bank of augmented views."""
    bank = (whole("train", task.train).hash, code_hash(task.augment), schedule.batch, schedule.seed, schedule.views)
    return f"teacher-{hashlib.sha256(str(bank).encode()).hexdigest()[:16]}.pt"


def _schedule(settings: Mapping[str, Setting]) -> Schedule:
    steps, batch, seed = (int(settings[name]) for name in ("steps", "batch", "seed"))
    rate, optimizer = float(settings["learning_rate"]), str(settings["optimizer"])
    views, matching = int(settings.get("views", 0)), float(settings.get("feature_weight", 0.0))
    if steps < 1 or batch < 1 or rate <= 0 or views < 0 or matching < 0 or optimizer not in ("sgd", "adamw"):
        raise PlanError(
            f"cannot train {steps} steps of {batch} items with {optimizer} at {rate}.",
            where="distillation",
            hint="Steps, batch and learning_rate are above 0, views and feature_weight not below; optimizer is sgd or "
            "adamw.",
        )
    return Schedule(steps, batch, seed, rate, optimizer, views, matching)
