"""Bisection: tries recipes in order and skips plans that a measurement has already ruled out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autocompress.core.budget import METRICS
from autocompress.core.plan import Plan, Setting, Step
from autocompress.core.search_space import Recipe, SearchSpace
from autocompress.core.strategy import Strategy
from autocompress.core.trial import Outcome, Trial

# a structure is trained only when its size and latency stay below this share of their limits: the artifact is measured
# again when all training is done, and noise of a hundredth could then break a limit that it only just kept
ROOM = 0.97
Rounds = tuple[tuple[Step, ...], ...]
# so many failures of the same structure, or along one path, are no accident
MOST_FAILURES = 3


class Bisection(Strategy):
    """A strategy that tries the cheapest recipe first, and in it the most promising settings first.

    Size and latency follow from structural settings alone, so a plan that shares them with a trial that broke a
    structural budget is not tried. The same holds for one that was refused there; one that failed, of whatever cause,
    rules out nothing but itself, up to `MOST_FAILURES` of them. Where all values of the settings that change neither
    size nor latency lose accuracy, other sizes and latencies, and longer training, are tried with the best of these
    values only.

    Where the structures of a recipe leave less and less of the network, the least change that keeps the structural
    budgets is found by bisection, before anything is trained: the boundary of what fits. Recipes that train take the
    trials of the round before in the order of their scores, and only the best of them (successive halving: Jamieson and
    Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016).
    """

    def propose(self, search_space: SearchSpace, history: Sequence[Trial]) -> Plan | None:
        """See `Strategy.propose`."""
        tried = {trial.plan.planned.hash for trial in history}
        for recipe in search_space.recipes:
            plan = _halve(recipe, history, tried) if recipe.nested else _next(recipe, history, tried)
            if plan is not None:
                return plan
        return None


def _next(recipe: Recipe, history: Sequence[Trial], tried: set[str]) -> Plan | None:
    mine = [trial for trial in history if recipe.holds(trial.plan)]
    failed = Counter(recipe.fixed_by(trial.plan) for trial in mine if trial.outcome is Outcome.FAILED)
    dead = {recipe.fixed_by(trial.plan) for trial in mine if _ruled_out(trial) and trial.outcome is not Outcome.FAILED}
    dead |= {structure for structure, count in failed.items() if count >= MOST_FAILURES}
    plans = _with_best_values(recipe, list(recipe.plans()), mine)
    if recipe.promotes is not None:
        plans = _promoted(recipe, plans, recipe.promotes, history)
    for plan in plans:
        if plan.planned.hash not in tried and recipe.fixed_by(plan) not in dead:
            return plan
    return None


def _with_best_values(recipe: Recipe, plans: Sequence[Plan], mine: Sequence[Trial]) -> list[Plan]:
    """The plans without those whose values lost already, where accuracy is what is missing.

    Once all plans of one size, latency and length of training lose accuracy, settings that change none of these are
    taken as the best of their trials has them, whatever the others are: one setting is searched at a time.
    """
    scored = {trial.plan.planned: trial for trial in mine if "score" in trial.measurement.readings}
    alike: dict[tuple[tuple[Step, ...], tuple[int, ...]], list[Plan]] = {}
    for plan in plans:
        alike.setdefault((recipe.fixed_by(plan), _lengths(plan)), []).append(plan)
    for several in alike.values():
        trials = [scored[plan] for plan in several if plan in scored]
        if len(several) > 1 and len(trials) == len(several) and not any(trial.promising for trial in trials):
            values = _values(recipe, min(trials, key=_promise).plan)
            return [one for one in plans if one in several or _values(recipe, one) == values]
    return list(plans)


def _lengths(plan: Plan) -> tuple[int, ...]:
    """The steps of training that each step of a plan takes as planned."""
    return tuple(step.planned.steps_taken for step in plan.steps)


def _values(recipe: Recipe, plan: Plan) -> list[dict[str, Setting]]:
    """A plan's settings, step by step, without those of size, latency and length of training."""
    steps = list(plan.planned.steps)[len(recipe.structure_of(plan)) :]
    fixed = [
        {*element.space.structural(step.settings), "steps"}
        for element, step in zip(recipe.elements, steps, strict=True)
    ]
    return [
        {name: value for name, value in step.settings.items() if name not in names}
        for names, step in zip(fixed, steps, strict=True)
    ]


def _promoted(recipe: Recipe, plans: Sequence[Plan], most: int, history: Sequence[Trial]) -> list[Plan]:
    """The plans to promote: those whose trials in the recipe before scored best, best first.

    None is promoted while one of these trials is still running: it might turn out better.
    """
    longer: dict[tuple[Rounds, tuple[Step, ...]], list[Plan]] = {}
    for plan in plans:
        before = (plan.rounds, recipe.refines) if recipe.refines else (plan.rounds[:-1], plan.finish)
        longer.setdefault(before, []).append(plan)
    shorter = [trial for trial in history if _as_planned(trial) in longer]
    if any(trial.outcome is Outcome.CLAIMED for trial in shorter):
        return []
    judged = [trial for trial in shorter if trial.outcome in (Outcome.MEASURED, Outcome.STOPPED)]
    judged.sort(key=_promise)
    # what was trained goes on from where it ended, also where that was sooner than planned
    further = [(trial.plan.rounds, plan) for trial in judged[:most] for plan in longer[_as_planned(trial)]]
    return [Plan(rounds if recipe.refines else (*rounds, plan.rounds[-1]), plan.finish) for rounds, plan in further]


def _as_planned(trial: Trial) -> tuple[Rounds, tuple[Step, ...]]:
    return trial.plan.planned.rounds, trial.plan.finish


def _promise(trial: Trial) -> tuple[float, float]:
    score = trial.measurement.readings.get("score")
    return (-score.value if score else 0.0, trial.verdict.overshoot)


def _halve(recipe: Recipe, history: Sequence[Trial], tried: set[str]) -> Plan | None:
    """The next plan in the bisection for the least change that fits, None when that has been found.

    A structure that failed tells nothing about the others; after `MOST_FAILURES` of them no more are tried.
    """
    known = {place: trial for trial in history if (place := recipe.place(trial.plan)) is not None}
    untold = (Outcome.CLAIMED, Outcome.FAILED)
    ended = {place: trial for place, trial in known.items() if trial.outcome not in untold}
    if sum(trial.outcome is Outcome.FAILED for trial in known.values()) >= MOST_FAILURES:
        return None
    last = len(recipe.structures) - 1
    fitting = [place for place, trial in ended.items() if fits_with_room(trial)]
    fits = min(fitting, default=last + 1)
    missing = [place for place in ended if place < fits and place not in fitting]
    too_little = max(missing, default=-1)
    if fits - too_little <= 1:
        return None
    inside = range(too_little + 1, min(fits, last + 1))
    wanted = _wanted(recipe, len(fitting), len(missing), inside)
    by_place = {recipe.place(plan): plan for plan in recipe.plans()}
    # a plan that another worker has claimed, or that failed, is replaced by the nearest one inside the same bounds
    for place in sorted(inside, key=lambda place: abs(place - wanted)):
        if by_place[place].hash not in tried:
            return by_place[place]
    return None


def _wanted(recipe: Recipe, fitting: int, missing: int, inside: range) -> int:
    """The place to measure next, between structures known to be too large and structures known to fit.

    It starts where the prediction puts the boundary, moves in steps that double until the boundary is enclosed, and
    then bisects. Without a prediction the smallest structure comes first: if that does not fit, nothing will.
    """
    first, last = inside[0], inside[-1]
    if fitting and missing:
        return (first + last) // 2
    if fitting:
        return max(first, last + 1 - int(2 ** (fitting - 1)))
    if recipe.likely is None:
        return last
    return min(last, first - 1 + int(2 ** (missing - 1))) if missing else min(last, recipe.likely)


def fits_with_room(trial: Trial) -> bool:
    """True when size, latency and every other structural budget are met with room for measurement noise."""
    findings = [finding for finding in trial.verdict.findings if finding.budget.structural]
    return (
        not _ruled_out(trial)
        and bool(findings)
        and all(finding.standing == "met" and finding.overshoot <= ROOM for finding in findings)
    )


def _ruled_out(trial: Trial) -> bool:
    if trial.outcome is Outcome.STOPPED:
        return trial.stopped_by in METRICS and METRICS[trial.stopped_by].structural
    return trial.outcome in (Outcome.REFUSED, Outcome.FAILED)
