"""Working on one journal with others: what to do while they still hold what is left."""

from __future__ import annotations

from time import sleep

from autocompress.core.record import Journal
from autocompress.core.trial import Outcome, Trial
from autocompress.system.progress import Deadline, Event, Listener

POLL_S = 1.0


def await_others(journal: Journal, deadline: Deadline, listener: Listener) -> bool:
    """Wait until a plan that another worker has claimed is finished or given back; False when none is claimed.

    Claims of workers that have died are given back here, so that their plans are proposed again. The wait ends at
    the deadline.
    """
    claimed = _claims(journal)
    if not claimed:
        return False
    plans = ", ".join(trial.plan.brief for trial in claimed)
    listener(Event("search", f"waiting for another worker, which is at {plans}", seconds_left=deadline.left))
    numbers = {trial.number for trial in claimed}
    while not deadline.over and not journal.release_dead_claims():
        if {trial.number for trial in _claims(journal)} != numbers:
            break
        sleep(POLL_S if deadline.left is None else min(POLL_S, deadline.left))
    return True


def _claims(journal: Journal) -> list[Trial]:
    return [trial for trial in journal.trials() if trial.outcome is Outcome.CLAIMED]
