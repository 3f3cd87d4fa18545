"""Climbs the ladder rung by rung and skips what a measurement has already ruled out."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.budget import METRICS
from autocompress.ladder import Ladder, Rung
from autocompress.plan import Plan
from autocompress.strategy import Strategy
from autocompress.trial import Outcome, Trial


class Boundary(Strategy):
    """Cheapest rung first, most promising settings first.

    Size and latency follow from structural settings alone, so a plan that shares them with a trial that broke a
    structural budget is not tried. The same holds for one that failed or was refused there.
    """

    def propose(self, ladder: Ladder, history: Sequence[Trial]) -> Plan | None:
        """See `Strategy.propose`."""
        tried = {trial.plan.hash for trial in history}
        for rung in ladder.rungs:
            dead = {rung.structure_of(t.plan) for t in history if _ruled_out(t) and _belongs(t.plan, rung)}
            for plan in rung.plans():
                if plan.hash not in tried and rung.structure_of(plan) not in dead:
                    return plan
        return None


def _belongs(plan: Plan, rung: Rung) -> bool:
    return [step.technique for step in plan.finish] == [element.technique for element in rung.finish]


def _ruled_out(trial: Trial) -> bool:
    if trial.outcome is Outcome.STOPPED:
        return trial.stopped_by in METRICS and METRICS[trial.stopped_by].structural
    return trial.outcome in (Outcome.REFUSED, Outcome.FAILED)
