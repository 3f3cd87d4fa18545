"""Diagnosis of budgets that are not met: the best values reached, what to relax, what was refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autocompress.core.budget import Budget, Direction
from autocompress.core.search_space import NOT_AVAILABLE, SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Finding, Standing, Verdict

# rules of the tree that refuse a technique because something is missing that the user may have
WANTING = ("calibration", "training")
DIGITS = 2
# most recipes whose accuracy is told
MOST_NAMED = 8


def diagnose(verdict: Verdict, history: Sequence[Trial], search_space: SearchSpace) -> list[str]:
    """Sentences on the broken budgets of the nearest miss's verdict.

    Where size and time are out of reach, accuracy is left aside: it is that of an untrained structure.
    """
    if search_space.out_of_reach:
        verdict = verdict.structural
    broken = [finding for finding in verdict.findings if finding.standing is Standing.EXCEEDED]
    sentences = [sentence for finding in broken if (sentence := _best(finding, history))]
    accuracy = next((finding for finding in broken if not finding.budget.structural), None)
    by_recipe = _best_of_each(accuracy, history, search_space) if accuracy else ""
    sentences += [by_recipe] if by_recipe else []
    if search_space.out_of_reach:
        sentences.append(
            "Nothing that this version can cut reaches the budgets on size and time; nothing was trained, and the "
            "nearest miss is the smallest structure as it was cut."
        )
    relaxed = relaxed_budgets(verdict)
    if relaxed:
        sentences.append(f"The nearest miss would keep {', '.join(map(str, relaxed))}.")
    refused = search_space.refusals.items()
    wanting = [f"{name} ({reason.sentence.rstrip('.')})" for name, reason in refused if reason.rule in WANTING]
    if wanting:
        sentences.append(f"Refused, and may open the way: {'; '.join(wanting)}.")
    missing = [name for name, reason in refused if reason.sentence == NOT_AVAILABLE]
    if missing:
        sentences.append(f"Not available in this version, and usual here: {', '.join(missing)}.")
    return sentences


def binding_budget(verdict: Verdict, search_space: SearchSpace) -> Finding | None:
    """The finding that is farthest from being met, None when all are met.

    Where size and time are out of reach it is one of these, since nothing was trained.
    """
    structural = verdict.structural.binding if search_space.out_of_reach else None
    return structural or verdict.binding


def relaxed_budgets(verdict: Verdict) -> list[Budget]:
    """For each budget that is not met, the tightest limit of two digits that the measurement meets.

    Empty where one of them has no such limit: it was not measured, or nothing bounds it. At several input shapes it is
    the limit that all of them keep.
    """
    found: dict[str, Budget] = {}
    for finding in verdict.findings:
        if finding.standing is Standing.MET:
            continue
        at_most = finding.budget.direction is Direction.AT_MOST
        bound = finding.bound
        if bound is None or not math.isfinite(bound):
            return []
        metric, limit = finding.budget.metric, _rounded(bound, up=at_most)
        if metric in found:
            limit = (max if at_most else min)(limit, found[metric].limit)
        found[metric] = Budget(metric, limit, finding.budget.relative)
    return list(found.values())


def _rounded(value: float, *, up: bool) -> float:
    """The nearest number of two digits that is not a tighter limit."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - DIGITS + 1)
    steps = round(value / unit)
    near = float(f"{steps * unit:.{DIGITS}g}")
    # a number of two digits is kept as it is, despite rounding errors of floats
    if near >= value if up else near <= value:
        return near
    return float(f"{(steps + 1 if up else steps - 1) * unit:.{DIGITS}g}")


def _best_of_each(finding: Finding, history: Sequence[Trial], search_space: SearchSpace) -> str:
    """A sentence on the best value of an accuracy budget by each recipe; empty for one alone."""
    lower = finding.budget.direction is Direction.AT_MOST
    best: dict[str, float] = {}
    for trial in history:
        recipe, found = search_space.recipe_of(trial.plan), trial.verdict.of(finding.budget.metric)
        if recipe is None or found is None or found.value is None:
            continue
        before = best.get(recipe.name, found.value)
        best[recipe.name] = min(before, found.value) if lower else max(before, found.value)
    if len(best) < 2:
        return ""
    ordered = sorted(best.items(), key=lambda one: one[1] if lower else -one[1])
    named = [f"{name} {value:.3g}" for name, value in ordered[:MOST_NAMED]]
    more = f", and {len(ordered) - MOST_NAMED} more" if len(ordered) > MOST_NAMED else ""
    return f"{finding.name} in {finding.budget.unit} by what was tried: {', '.join(named)}{more}."


def _best(finding: Finding, history: Sequence[Trial]) -> str:
    """A sentence on the best value that any candidate reached on a broken budget."""
    found = (
        other
        for trial in history
        for other in trial.verdict.findings
        if (other.budget.metric, other.shapes) == (finding.budget.metric, finding.shapes)
    )
    values = [other.value for other in (*found, finding) if other.value is not None]
    if not values:
        return ""
    best = min(values) if finding.budget.direction is Direction.AT_MOST else max(values)
    unit = "x" if finding.budget.relative else f" {finding.budget.unit}"
    return f"{finding.name}: the best that was reached is {best:.3g}{unit}, asked {finding.budget.text}."
