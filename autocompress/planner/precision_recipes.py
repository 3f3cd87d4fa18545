"""Recipes that keep the accuracy which a quantization of sufficient size and speed loses.

In the order of effort: the float file is prepared, layers go back to float, the quantized file's numbers are tuned
without labels, then with training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autocompress.core.plan import Stage
from autocompress.core.search_space import Element, Reason, Recipe, SettingSpace
from autocompress.core.sensitivity import IN_FLOAT, Sensitivity
from autocompress.core.technique import ArtifactTechnique, Technique
from autocompress.planner.rules import Situation

RULE = "sensitivity"


def precision_recipes(
    finishes: Sequence[Recipe], techniques: Sequence[Technique], situation: Situation
) -> list[Recipe]:
    """The recipes in order of effort, for one quantization after the other whose sensitivity was measured.

    `finishes` are the recipes of quantization alone, whose predictions they share. Of the `techniques` those are taken
    that do not refuse in view of that sensitivity.
    """
    found = situation.probes.sensitivities
    ladders = [_recipes_of(finishes, techniques, one, situation) for one in found]
    return sorted((recipe for ladder in ladders for recipe in ladder), key=lambda recipe: recipe.effort)


def _recipes_of(
    finishes: Sequence[Recipe], techniques: Sequence[Technique], found: Sensitivity, situation: Situation
) -> list[Recipe]:
    """The recipes that keep the accuracy of one quantization."""
    situation = replace(situation, probes=replace(situation.probes, sensitivities=(found,)))
    shelf = {
        one.name: one
        for one in techniques
        if isinstance(one, ArtifactTechnique)
        and (one.name == found.technique or one.refuses(situation.facts, situation.probes, situation.profile) is None)
    }
    if found.technique not in shelf:
        return []
    base = shelf[found.technique]
    alone = next((one for one in finishes if one.techniques == [base.name]), None)
    element = Element(base.name, base.stage, _only(base, found))
    serving = [one for one in shelf.values() if base.quantization in one.serves]
    before = [one for one in serving if one.stage is Stage.PREPARATION]
    after = sorted((one for one in serving if one.stage is Stage.TUNING), key=lambda one: one.effort)
    recipes = [_recipe((_element(one, situation), element), (one, base), one.summary, alone) for one in before]
    if found.mixed:
        recipes.append(_mixed(base, found))
    return recipes + [_tuned(element, base, one, alone, situation) for one in after]


def _only(base: ArtifactTechnique, found: Sensitivity) -> SettingSpace:
    """The space of the settings whose sensitivity was measured."""
    return SettingSpace(base.choices, (found.settings,))


def _element(technique: ArtifactTechnique, situation: Situation) -> Element:
    return Element(
        technique.name, technique.stage, technique.space(situation.facts, situation.probes, situation.profile)
    )


def _recipe(
    elements: tuple[Element, ...], techniques: Sequence[Technique], summary: str, alone: Recipe | None
) -> Recipe:
    return Recipe(
        " + ".join(one.technique for one in elements),
        max(one.effort for one in techniques),
        elements,
        Reason(f"{summary}: int8 was seen to lose accuracy here.", RULE),
        alone.predicted_latency if alone else None,
        alone.predicted_size if alone else None,
    )


def _tuned(
    element: Element,
    base: ArtifactTechnique,
    tuning: ArtifactTechnique,
    alone: Recipe | None,
    situation: Situation,
) -> Recipe:
    """The recipe of a quantization whose numbers are tuned, with the time that training them takes."""
    recipe = _recipe((element, _element(tuning, situation)), (base, tuning), tuning.summary, alone)
    return timed(recipe, situation.probes.step_seconds.get(tuning.name))


def timed(recipe: Recipe, seconds: float | None) -> Recipe:
    """The recipe with the time that the training in its last step takes; as it is where none was timed."""
    if seconds is None:
        return recipe
    found = replace(
        recipe, seconds_per_step=seconds, reason=replace(recipe.reason, fact=f"{seconds:.2g} s a step here")
    )
    return replace(found, predicted_seconds=found.seconds_of(next(found.plans())))


def _mixed(base: ArtifactTechnique, found: Sensitivity) -> Recipe:
    sets = tuple({**found.settings, IN_FLOAT.name: " ".join(one.layers)} for one in found.mixed)
    first, last = found.mixed[0], found.mixed[-1]
    recipe = Recipe(
        f"{base.name}, layers in float",
        base.effort,
        (Element(base.name, base.stage, SettingSpace(base.choices, sets)),),
        Reason(
            f"the {len(first.layers)} to {len(last.layers)} layers that lose most accuracy for the time they save "
            "stay in float.",
            RULE,
            f"divergence {found.divergence:.2g} with all in int8, {first.divergence:.2g} to {last.divergence:.2g} then",
        ),
    )
    return replace(recipe, predicted_latency=first.latency, predicted_size=first.size)
