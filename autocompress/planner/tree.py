"""Evaluates the decision tree's rules and builds the search space."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

from autocompress.core.plan import ACCURACY_STAGES, FINISH_STAGES, Stage
from autocompress.core.probes import Probe
from autocompress.core.search_space import (
    NOT_AVAILABLE,
    Decision,
    Element,
    Reason,
    Recipe,
    SearchSpace,
    SettingSpace,
)
from autocompress.core.technique import ArtifactTechnique, ModelTechnique, StructureTechnique, Technique
from autocompress.errors import PlanError
from autocompress.planner.expected_drop import expected_drop
from autocompress.planner.finish_settings import first_only
from autocompress.planner.precision_recipes import precision_recipes, timed
from autocompress.planner.predicted_finish import Chain, predicted_finish, probes_of
from autocompress.planner.questions import RULES
from autocompress.planner.rules import Branch, Situation
from autocompress.planner.structure_recipes import finish_for_structures, structure_recipes
from autocompress.planner.target import Target, target_of

# predictions of what packing leaves err by a few hundredths
EXPECTED_WITHIN = 1.08


def require_reachable(techniques: Sequence[Technique]) -> None:
    """Check that some recipe would try each technique, so that no registered one is silently ignored.

    Raises:
        PlanError: when one acts where no recipe has a place for it, or two have one name.
    """
    for technique in techniques:
        structure = isinstance(technique, StructureTechnique) and technique.stage is Stage.STRUCTURE
        recovery = isinstance(technique, ModelTechnique) and technique.stage is Stage.RECOVERY
        finish = isinstance(technique, ArtifactTechnique) and technique.stage in FINISH_STAGES
        if not (structure or recovery or finish):
            raise PlanError(
                f"is on the shelf, but no recipe tries a {type(technique).__name__} at stage {technique.stage}.",
                where=technique.name,
                hint="Structure takes a StructureTechnique, recovery a ModelTechnique, a finish an ArtifactTechnique.",
            )
    names = [technique.name for technique in techniques]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlanError("stands on the shelf twice.", where=twice)


def build_search_space(
    situation: Situation, techniques: Sequence[Technique], format_: str, later: Collection[str] = ()
) -> SearchSpace:
    """Recipes for what the situation allows, cheapest effort first, and a reason for everything refused.

    `format_` is the format of the runtime's artifacts. `later` names techniques whose turn has not come.
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
        if branch.effect.finish:
            reason = Reason(branch.sentence, rule.name, found)
            return SearchSpace((), {t.name: reason for t in techniques}, tuple(decisions), tuple(warnings))
        # a technique keeps the reason of the first rule that excludes it
        new = _refused(rule.name, branch, found, techniques, situation)
        new = {name: reason for name, reason in new.items() if name not in later}
        refusals |= {name: reason for name, reason in new.items() if name not in refusals}
    possible: list[Technique] = []
    for technique in (technique for technique in techniques if technique.name not in refusals):
        if isinstance(technique, ArtifactTechnique) and format_ not in technique.formats:
            runtime = situation.profile.runtime.name
            refusals[technique.name] = Reason(f"cannot change {format_} files.", "format", runtime)
        else:
            possible.append(technique)
    taken: list[Technique] = []
    for technique in possible:
        refusal = _own_refusal(technique, situation)
        if refusal is not None:
            refusals[technique.name] = refusal
        else:
            taken.append(technique)
    chained = [_recipe(chain, situation) for chain in finishing_chains(taken, format_)]
    # what packs follows what is left as it is
    chained.sort(key=lambda recipe: (recipe.effort, _packs(recipe), recipe.predicted_latency or 1.0))
    target = target_of(situation.baseline)
    finish = finish_for_structures(chained, target) if chained else None
    enough = _small_enough_unpacked(chained, target, situation)
    recipes = [
        recipe for recipe in chained if not (_packs(recipe) and enough) and not _packs_too_slowly(recipe, target)
    ]
    if enough is not None:
        reason = Reason(
            "the file is expected to be small enough without.", "size", f"{enough.name} {enough.predicted_size:.2f}x"
        )
        refusals |= {one.name: reason for one in taken if one.stage is Stage.PACKING}
    recipes += [
        *precision_recipes(recipes, possible, situation),
        *structure_recipes(finish, taken, situation, possible),
    ]
    # recipes that train stay in the order of their rungs
    recipes.sort(key=lambda recipe: recipe.effort)
    family = situation.facts.family
    known = {technique.name: technique for technique in techniques}
    recipes = [
        replace(one, expected_drop=expected_drop(family, [known[name] for name in one.techniques], one.effort))
        for one in recipes
    ]
    # what an unchanged network does not ask for may serve a structure
    tried = {name for recipe in recipes for name in recipe.techniques}
    refusals = {name: reason for name, reason in refusals.items() if name not in tried}
    return SearchSpace(tuple(recipes), refusals, tuple(decisions), tuple(warnings), finish)


def _packs(recipe: Recipe) -> bool:
    return recipe.finish[-1].stage is Stage.PACKING


def _small_enough_unpacked(recipes: Sequence[Recipe], target: Target, situation: Situation) -> Recipe | None:
    """A recipe expected to keep size and time without packing; None where the smallest file is asked for."""
    if situation.profile.objective.shrinks == "size":
        return None
    known = ((one, one.predicted_latency, one.predicted_size) for one in recipes if not _packs(one))
    enough = (
        one
        for one, latency, size in known
        if latency is not None and size is not None and target.size is not None and not target.missed(latency, size)
    )
    return next(enough, None)


def _packs_too_slowly(recipe: Recipe, target: Target) -> bool:
    """True for a recipe that packs and is not expected to be fast enough without a smaller structure."""
    latency = recipe.predicted_latency
    if not _packs(recipe) or latency is None or target.latency is None:
        return False
    return latency > EXPECTED_WITHIN * target.latency


def _refused(
    rule: str, branch: Branch, found: str, techniques: Sequence[Technique], situation: Situation
) -> Mapping[str, Reason]:
    effect = branch.effect
    shelf = {technique.name for technique in techniques}
    missing = {name: Reason(NOT_AVAILABLE, rule, found) for name in effect.usual if name not in shelf}
    kept_out = (technique.name for technique in techniques if effect.refuses(technique, situation))
    return {**missing, **{name: Reason(branch.sentence, rule, found) for name in kept_out}}


def _own_refusal(technique: Technique, situation: Situation) -> Reason | None:
    refusal = technique.refuses(situation.facts, situation.probes, situation.profile)
    if refusal is None and isinstance(technique, StructureTechnique):
        return _without_use(technique, situation)
    return refusal


def _without_use(technique: StructureTechnique, situation: Situation) -> Reason | None:
    """The reason why no pruning path contains moves of a technique, None where one does."""
    probes = situation.probes
    steps = (step for path in probes.paths for structure in path.structures for step in structure.steps)
    if any(step.technique == technique.name for step in steps):
        return None
    parts = str(probes.parts_of(technique.name))
    if probes.smallest is None:
        return Reason("there was no time to measure what it would save.", "structure", parts)
    return Reason("nothing that it can take is predicted to save what a budget asks for.", "structure", parts)


def finishing_chains(techniques: Sequence[Technique], format_: str) -> Iterator[Chain]:
    """All sequences of finishing steps, at most one of each stage that saves, whose formats fit."""
    stages = [
        [t for t in techniques if isinstance(t, ArtifactTechnique) and t.stage is stage and format_ in t.formats]
        for stage in FINISH_STAGES
        if stage not in ACCURACY_STAGES
    ]
    chains = [
        tuple(one for one in chosen if one is not None) for chosen in product(*([None, *ones] for ones in stages))
    ]
    yield from sorted((chain for chain in chains if chain and _serve(chain)), key=len)


def _serve(chain: Chain) -> bool:
    """True where each step serves what the one before it made; steps that name nothing serve all."""
    return all(not after.serves or before.quantization in after.serves for before, after in pairwise(chain))


def _recipe(chain: Chain, situation: Situation) -> Recipe:
    spaces = [one.space(situation.facts, situation.probes, situation.profile) for one in chain]
    sizes: tuple[float, ...] = ()
    if chain[-1].stage is Stage.PACKING:
        # what the step before loses is seen without packing
        before = [first_only(space) for space in spaces[:-1]]
        spaces = [*before, spaces[-1]]
        spaces[-1], sizes = _small_enough(chain, spaces, situation)
    # probes of the recipe's first plan, which need not be quite the fastest
    first = [next(space.grid()) for space in spaces]
    latency, size = predicted_finish(chain, first, situation)
    recipe = Recipe(
        " + ".join(one.name for one in chain),
        max(one.effort for one in chain),
        tuple(Element(one.name, one.stage, space) for one, space in zip(chain, spaces, strict=True)),
        _reason(chain, probes_of(chain, first, situation)),
        latency,
        size,
        sizes=sizes,
    )
    return timed(recipe, situation.probes.step_seconds.get(chain[-1].name))


def _small_enough(
    chain: Chain, spaces: Sequence[SettingSpace], situation: Situation
) -> tuple[SettingSpace, tuple[float, ...]]:
    """The settings of a chain's last step that may keep the size budget, with the predicted sizes.

    The smallest file where none does, unless a smaller structure may.
    """
    target = target_of(situation.baseline)
    given = [next(space.grid()) for space in spaces[:-1]]
    last = list(spaces[-1].grid())
    predicted = [predicted_finish(chain, [*given, one], situation) for one in last]
    sizes = [size for _, size in predicted if size is not None]
    if len(sizes) < len(last) or target.size is None:
        return spaces[-1], tuple(sizes) if len(sizes) == len(last) else ()
    latency = predicted[0][0] or 1.0
    shrunk = 1.0 if target.latency is None else min(1.0, target.latency / latency)
    most = max(target.size / shrunk * EXPECTED_WITHIN, min(sizes))
    kept = [(one, size) for one, size in zip(last, sizes, strict=True) if size <= most]
    settings = tuple(one for one, _ in kept)
    return SettingSpace(spaces[-1].choices, settings), tuple(size for _, size in kept)


def _reason(chain: Chain, best: Sequence[Probe | None]) -> Reason:
    if len(chain) > 1:
        return Reason("; then ".join(one.summary for one in chain) + ".", "taken")
    probe = best[0]
    if probe is None or probe.ratio is None:
        return Reason(f"{chain[0].summary}; nothing was probed.", "taken")
    return Reason(
        f"{probe.ratio:.2f}x the float latency {'of the model' if probe.whole else 'on the dominant layers'} here.",
        "probe",
        f"{probe.low:.2f} to {probe.high:.2f}" if probe.low is not None and probe.high is not None else "",
    )
