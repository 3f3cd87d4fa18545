"""Distillation from the original network; the method is described in `autocompress.training.recovery`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import nn

from autocompress.core.facts import Facts
from autocompress.core.plan import ADAPTED, CUTS, MICRO_BATCHES, Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.technique import Context, ModelTechnique, with_remarks
from autocompress.core.training_recipe import OPTIMIZERS, TrainingRecipe
from autocompress.data.copies import with_own_weights
from autocompress.errors import PlanError, TechniqueError
from autocompress.training.cost import VIEWS
from autocompress.training.optimizer import OWN
from autocompress.training.recovery import Files, recover, watch_of
from autocompress.training.schedule import PLAIN, Schedule, changes_in, parse_changes, steps_taken
from autocompress.training.teacher_cache import answers_file

NEEDED = ("steps", "batch", "seed", "learning_rate", "optimizer")
PROPOSED = (*NEEDED, "views", "feature_weight")
# of a recipe of the user's, and of training that was changed on the way
KNOWN = (*PROPOSED, "weight_decay", "recipe", *ADAPTED)

LEAVE_OUT = "Leave recipe= (--recipe) out: numbers that a recipe gave stand in the plan."


class Distillation(ModelTechnique):
    """Trains with the original as teacher, for a number of steps fixed in the plan."""

    name: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "accuracy is won back by training with the original as teacher"
    stage: ClassVar[Stage] = Stage.RECOVERY
    effort: ClassVar[Effort] = Effort.TRAINING
    # options cannot be listed: any whole number is a step count, batch or seed, and any number above 0 a rate
    choices: ClassVar[tuple[Choice, ...]] = tuple(Choice(name, (), structural=False) for name in KNOWN)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`: the total steps of all rounds, and what was changed on the way."""
        taken = sum(steps_taken(one, self.name) for one in settings)
        steps = f"{taken} steps" if taken < 1000 else f"{taken / 1000:.3g}k steps"
        small = {parse_changes(str(one[MICRO_BATCHES]), self.name)[-1][1] for one in settings if MICRO_BATCHES in one}
        own = next((str(one["recipe"]) for one in settings if "recipe" in one), "")
        return with_remarks(
            f"distilled {steps}",
            [
                (f"by {own.rpartition(' ')[0]}", bool(own)),
                ("cut to the time", any(CUTS in one for one in settings)),
                (f"in parts of {min(small, default=0)} items", bool(small)),
            ],
        )

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
        if training.weight_decay is not None:
            values["weight_decay"] = training.weight_decay
        if training.recipe:
            values["recipe"] = training.recipe
        return SettingSpace(tuple(Choice(name, (value,), structural=False) for name, value in values.items()))

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
            hint = f"Needed: {', '.join(NEEDED)}; may be left out: {', '.join(KNOWN[len(NEEDED) :])}."
            raise PlanError("has other settings than these.", where=self.name, hint=hint)
        if context.task is None or context.teacher is None:
            raise TechniqueError("needs training data and a teacher.", where=self.name)
        recipe = _recipe(settings, context.recipe)
        schedule = replace(_schedule(settings), frozen=context.ignore, recipe=recipe)
        answers = context.shared and context.shared / answers_file("original", context.task, schedule)
        files = Files(context.folder / "training.pt", answers)
        # without a structure step before it, the module still shares the original's weights
        student = with_own_weights(module)
        watch = watch_of(context, settings)
        return recover(student, context.teacher, context.task, context.example, schedule, files, watch)


def _recipe(settings: Mapping[str, Setting], given: TrainingRecipe | None) -> TrainingRecipe:
    """The recipe whose functions a step needs; it has to be the one that the plan names.

    Raises:
        PlanError: when it is another one, or is missing.
    """
    wanted = str(settings.get("recipe", ""))
    found = given.name if given is not None else ""
    if wanted == found:
        return given or PLAIN
    if not wanted:
        raise PlanError(f"was not trained by a recipe, and {found} was given.", where="distillation", hint=LEAVE_OUT)
    told = f"and {found} was given" if found else "and none was given"
    raise PlanError(
        f"was trained by the recipe {wanted}, {told}.",
        where="distillation",
        hint="Give recipe= (--recipe) with the functions of that run, unchanged.",
    )


def _schedule(settings: Mapping[str, Setting]) -> Schedule:
    steps, batch, seed = (int(settings[name]) for name in ("steps", "batch", "seed"))
    rate, optimizer = float(settings["learning_rate"]), str(settings["optimizer"])
    views, matching = int(settings.get("views", 0)), float(settings.get("feature_weight", 0.0))
    decay = float(settings["weight_decay"]) if "weight_decay" in settings else None
    low = steps < 1 or batch < 1 or rate <= 0 or views < 0 or matching < 0 or (decay is not None and decay < 0)
    if low or optimizer not in (*OPTIMIZERS, OWN):
        raise PlanError(
            f"cannot train {steps} steps of {batch} items with {optimizer} at {rate}.",
            where="distillation",
            hint="Steps, batch and learning_rate are above 0, views, feature_weight and weight_decay not below; "
            "optimizer is sgd or adamw.",
        )
    cuts, parts = changes_in(settings, "distillation")
    return Schedule(
        steps, batch, seed, rate, optimizer, views, matching, weight_decay=decay, cuts=cuts, micro_batches=parts
    )
