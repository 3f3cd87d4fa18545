"""Waiting for other workers that hold the last plans of a search space."""

from __future__ import annotations

from time import sleep

from autocompress.core.record import Record
from autocompress.core.trial import Outcome, Trial
from autocompress.system.progress import Deadline, Event, Progress

POLL_S = 1.0


def await_others(record: Record, deadline: Deadline, progress: Progress) -> bool:
    """Wait until a plan that another worker has claimed is finished or given back; False without any.

    Claims of workers that have died are given back here, so that their plans are proposed again. The wait ends at
    the deadline.
    """
    claimed = _claims(record)
    if not claimed:
        return False
    plans = ", ".join(trial.plan.kind for trial in claimed)
    progress(Event("search", f"waiting for another worker, which is at {plans}", seconds_left=deadline.left))
    numbers = {trial.number for trial in claimed}
    while not deadline.over and not record.release_dead_claims():
        if {trial.number for trial in _claims(record)} != numbers:
            break
        sleep(POLL_S if deadline.left is None else min(POLL_S, deadline.left))
    return True


def _claims(record: Record) -> list[Trial]:
    return [trial for trial in record.trials() if trial.outcome is Outcome.CLAIMED]
