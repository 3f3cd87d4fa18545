"""Recipes that win back what quantization costs a trained structure, before it is trained further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autocompress.core.plan import Effort, Stage
from autocompress.core.search_space import Element, Reason, Recipe, SettingSpace
from autocompress.core.technique import ArtifactTechnique, Technique
from autocompress.core.training_probe import QuantizationLoss
from autocompress.planner.finish_settings import first_only
from autocompress.planner.precision_recipes import precision_recipes, timed
from autocompress.planner.rules import Situation


def refined_recipes(
    recipe: Recipe, loss: QuantizationLoss, techniques: Sequence[Technique], situation: Situation
) -> list[Recipe]:
    """Recipes in which the best trial of a rung is quantized with more care, in order of effort.

    The float file is prepared, layers go back to float, then the quantized file is trained for a short time. Tuning
    without labels is left to unchanged networks: it takes minutes, and training wins more. Empty where the sensitivity
    of the structure's layers was not measured. Where the finish packs weights, what it packs is trained.
    """
    if recipe.finish and recipe.finish[-1].stage is Stage.PACKING:
        packing = (one for one in techniques if one.stage is Stage.PACKING and one.effort is Effort.TRAINING)
        return [_of_best_trial(recipe, _trained_packing(recipe, one, situation), loss) for one in packing]
    found = loss.sensitivity
    if found is None:
        return []
    inside = replace(situation, probes=replace(situation.probes, sensitivities=(found,)))
    taken = [one for one in techniques if one.name == found.technique or _is_taken(one)]
    return [_of_best_trial(recipe, one, loss) for one in precision_recipes((), taken, inside)]


def _trained_packing(recipe: Recipe, technique: Technique, situation: Situation) -> Recipe:
    """The finish of a recipe with a technique that trains what its last step packs, set alike."""
    packed = next(recipe.plans()).finish[-1].settings
    probes = replace(situation.probes, packed=packed)
    space = technique.space(situation.facts, probes, situation.profile)
    finish = (*recipe.finish[:-1], Element(technique.name, technique.stage, first_only(space)))
    found = Recipe(
        " + ".join(one.technique for one in finish),
        Effort.TRAINING,
        finish,
        Reason(f"{technique.summary}: fewer values were seen to lose accuracy here.", "size"),
    )
    return timed(found, situation.probes.step_seconds.get(technique.name))


def _is_taken(technique: Technique) -> bool:
    tuning = technique.stage is Stage.TUNING and technique.effort is Effort.TRAINING
    return isinstance(technique, ArtifactTechnique) and (tuning or technique.stage is Stage.PREPARATION)


def _of_best_trial(recipe: Recipe, refined: Recipe, loss: QuantizationLoss) -> Recipe:
    """The recipe of a rung with another finish, for its best trial."""
    structure = recipe.name.removesuffix(" + ".join(one.technique for one in recipe.finish))
    facts = (str(loss), refined.reason.fact)
    return replace(
        refined,
        name=structure + refined.name,
        effort=Effort.TRAINING,
        finish=tuple(map(_brief, refined.finish)),
        reason=Reason(refined.reason.sentence, "recovery", "; ".join(filter(None, facts))),
        predicted_latency=recipe.predicted_latency,
        predicted_size=recipe.predicted_size,
        rounds=recipe.rounds,
        structures=recipe.structures,
        predictions=recipe.predictions,
        promotes=1,
        refines=next(recipe.plans()).finish,
    )


def _brief(element: Element) -> Element:
    """The most promising settings only where they train: the next rung waits."""
    if element.stage is not Stage.TUNING:
        return element
    return replace(element, space=SettingSpace(element.space.choices, (next(element.space.grid()),)))
