"""Climbs the ladder rung by rung and skips what a measurement has already ruled out."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.budget import METRICS
from autocompress.ladder import Choice, Ladder, Rung
from autocompress.plan import Plan, Setting, Stage
from autocompress.strategy import Strategy
from autocompress.trial import Outcome, Trial
from autocompress.verdict import Standing


class Boundary(Strategy):
    """Cheapest rung first, most promising settings first.

    Size and latency follow from structural settings alone, so a plan that shares them with a trial that broke a
    structural budget is not tried. The same holds for one that failed or was refused there. Where a rung leaves more
    and more of the network out, the least amount that keeps the structural budgets is found by halving, before
    anything is trained: the boundary of what fits.
    """

    def propose(self, ladder: Ladder, history: Sequence[Trial]) -> Plan | None:
        """See `Strategy.propose`."""
        tried = {trial.plan.hash for trial in history}
        for rung in ladder.rungs:
            amount = rung.amount
            plan = self._next(rung, history, tried) if amount is None else _halve(rung, amount, history, tried)
            if plan is not None:
                return plan
        return None

    @staticmethod
    def _next(rung: Rung, history: Sequence[Trial], tried: set[str]) -> Plan | None:
        dead = {rung.structure_of(t.plan) for t in history if _ruled_out(t) and rung.holds(t.plan)}
        for plan in rung.plans():
            if plan.hash not in tried and rung.structure_of(plan) not in dead:
                return plan
        return None


def _halve(rung: Rung, amount: Choice, history: Sequence[Trial], tried: set[str]) -> Plan | None:
    """The next plan on the way to the least amount that fits, None when it has been tried here.

    What any trial with an amount showed counts, whether or not it was trained: structure alone decides what fits.
    """
    options = list(amount.options)
    too_little, fits = -1, len(options)
    for trial in history:
        option = _amount_of(trial.plan, amount.name)
        if option not in options or trial.outcome is Outcome.CLAIMED:
            continue
        place = options.index(option)
        if _ruled_out(trial) or not _structure_is_met(trial):
            too_little = max(too_little, place)
        else:
            fits = min(fits, place)
    trains = any(element.stage is Stage.RECOVERY for element in rung.elements)
    # training waits until halving without it has found what fits
    wanted = (too_little + fits) // 2 if fits - too_little > 1 and not trains else fits
    if not trains and fits == len(options):
        # if leaving out the most does not fit, nothing will
        wanted = len(options) - 1
    others = [] if trains else sorted(range(too_little + 1, fits), key=lambda place: abs(place - wanted))
    by_place = {_amount_of(plan, amount.name): plan for plan in rung.plans()}
    # what another worker has claimed is passed over for its nearest neighbour inside the same bounds
    for place in dict.fromkeys((wanted, *others)):
        if place < len(options) and by_place[options[place]].hash not in tried:
            return by_place[options[place]]
    return None


def _amount_of(plan: Plan, name: str) -> Setting | None:
    return next((step.settings[name] for step in plan.steps if name in step.settings), None)


def _structure_is_met(trial: Trial) -> bool:
    findings = [finding for finding in trial.verdict.findings if finding.budget.structural]
    return bool(findings) and all(finding.standing is Standing.MET for finding in findings)


def _ruled_out(trial: Trial) -> bool:
    if trial.outcome is Outcome.STOPPED:
        return trial.stopped_by in METRICS and METRICS[trial.stopped_by].structural
    return trial.outcome in (Outcome.REFUSED, Outcome.FAILED)
