"""Walks the rules and builds the search space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autocompress.analysis.prediction import predict_latency, predict_size
from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.probes import Probe
from autocompress.core.search_space import NOT_AVAILABLE, Decision, Element, Reason, Recipe, SearchSpace
from autocompress.core.technique import ArtifactTechnique, Technique
from autocompress.planner.expected_drop import expected_drop
from autocompress.planner.questions import RULES
from autocompress.planner.rules import Branch, Situation
from autocompress.planner.structure_recipes import structure_recipes


def build_search_space(situation: Situation, techniques: Sequence[Technique], formats: frozenset[str]) -> SearchSpace:
    """Recipes of what the situation allows, cheapest effort first, and a reason for everything refused.

    `formats` are the artifact formats that the runtime makes.
    """
    decisions: list[Decision] = []
    refusals: dict[str, Reason] = {}
    warnings: list[str] = []
    for rule in RULES:
        branch, found = rule.branch(situation), rule.found(situation)
        others = {other.answer: other.sentence for other in rule.branches if other is not branch}
        decisions.append(Decision(rule.name, rule.question, branch.answer, found, branch.sentence, others, rule.source))
        if branch.effect.warn:
            warnings.append(f"{found}: {branch.sentence}" if found else branch.sentence)
        refusals |= _refused(rule.name, branch, found, techniques, refusals)
        if branch.effect.finish:
            reason = Reason(branch.sentence, rule.name, found)
            return SearchSpace((), {t.name: reason for t in techniques}, tuple(decisions), tuple(warnings))
    taken: list[Technique] = []
    for technique in techniques:
        if technique.name in refusals:
            continue
        refusal = _own_refusal(technique, situation, formats)
        if refusal is not None:
            refusals[technique.name] = refusal
        else:
            taken.append(technique)
    recipes = [_recipe(technique, situation) for technique in taken if isinstance(technique, ArtifactTechnique)]
    recipes.sort(key=lambda recipe: (recipe.effort, recipe.predicted_latency or 1.0))
    recipes += structure_recipes(recipes, taken, situation)
    # those that train are in the order in which their rounds follow each other
    recipes.sort(key=lambda recipe: recipe.effort)
    family = situation.facts.family
    recipes = [replace(one, expected_drop=expected_drop(family, one.techniques, one.effort)) for one in recipes]
    return SearchSpace(tuple(recipes), refusals, tuple(decisions), tuple(warnings))


def _refused(
    rule: str, branch: Branch, found: str, techniques: Sequence[Technique], so_far: dict[str, Reason]
) -> dict[str, Reason]:
    effect = branch.effect
    shelf = {technique.name: technique for technique in techniques}
    named = {name: Reason(NOT_AVAILABLE, rule, found) for name in effect.refuse if name not in shelf}
    by_effort = {
        name: Reason(branch.sentence, rule, found)
        for name, technique in shelf.items()
        if technique.effort is effect.refuse_effort or name in effect.refuse
    }
    return {name: reason for name, reason in {**named, **by_effort}.items() if name not in so_far}


def _own_refusal(technique: Technique, situation: Situation, formats: frozenset[str]) -> Reason | None:
    if isinstance(technique, ArtifactTechnique) and not technique.formats & formats:
        return Reason(f"cannot change {', '.join(sorted(formats))} files.", "format", situation.profile.runtime.name)
    return technique.refuses(situation.facts, situation.probes, situation.profile)


def _recipe(technique: ArtifactTechnique, situation: Situation) -> Recipe:
    space = technique.space(situation.facts, situation.probes, situation.profile)
    # of the plan that comes first, which need not be the fastest by a hair
    best = situation.probes.with_settings(technique.name, next(space.grid()))
    if best is None or best.ratio is None:
        reason = Reason(f"{technique.summary}; nothing was probed.", "taken")
    else:
        reason = Reason(
            f"{best.ratio:.2f}x the float latency {'of the model' if best.whole else 'on the dominant layers'} here.",
            "probe",
            f"{best.low:.2f} to {best.high:.2f}" if best.low is not None and best.high is not None else "",
        )
    return Recipe(
        technique.name,
        technique.effort,
        (Element(technique.name, technique.stage, space),),
        reason,
        *_predicted(technique, best, situation),
    )


def _predicted(
    technique: ArtifactTechnique, best: Probe | None, situation: Situation
) -> tuple[float | None, float | None]:
    """Latency and size of the whole model; those of the probed layers where that is all that is known."""
    microbenchmarks, whole = situation.probes.microbenchmarks, situation.whole
    if best is None:
        return None, None
    if best.whole:
        return best.ratio, best.size_ratio
    if microbenchmarks is None or whole is None:
        return best.ratio, best.size_ratio
    facts, patterns = situation.facts, situation.profile.in_float
    in_float = {layer.name for layer in facts.layers if matches_pattern(layer.name, patterns)}
    known = facts, technique.covers(facts), best, microbenchmarks, whole, in_float
    return predict_latency(*known), predict_size(*known, technique.value_bytes)
