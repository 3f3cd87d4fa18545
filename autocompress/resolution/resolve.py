"""`resolve`: answers new budgets from the files and record of a run; nothing is trained or built."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autocompress.core.budget import ACCURACY_METRICS, Budget, parse_budgets
from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Standing, Status
from autocompress.data.input_shapes import timed_examples
from autocompress.errors import ENDS_THE_RUN, UsageError
from autocompress.evaluation.measurer import Measurer
from autocompress.evaluation.run import Run
from autocompress.resolution.reconfirm import confirm_stored, has_holdout_scores
from autocompress.resolution.shortlist import Shortlist
from autocompress.resolution.stored_run import StoredArtifacts, StoredRun, checked_data, open_stored
from autocompress.run.answer import Answer, History, answer_from, write_up
from autocompress.run.confirm import Confirmation, confirm_in_order
from autocompress.run.result import Result
from autocompress.run.setup import declared
from autocompress.system.progress import Deadline, Progress
from autocompress.system.workspace import Workspace, make_folder

# no confirmation begins after so many seconds
MAX_SECONDS = 60.0
LONGEST_NAME = 60


def resolve_run(
    folder: str | Path,
    *,
    budgets: Mapping[str, float | str] | None,
    objective: str | None,
    data: Any,
    data_dir: Path | None,
    out: str | Path | None,
    progress: Progress,
) -> Result:
    """See `autocompress.api.resolve`; writes the answer's artifact and plan, but not the report's files."""
    deadline = Deadline.start(MAX_SECONDS)
    asked = parse_budgets(budgets)
    stored = open_stored(Path(folder))
    try:
        profile = declared(stored.profile, budgets, objective)
        destination = _destination(Path(folder), out, asked, objective)
        task, check, without = checked_data(stored, data, data_dir)
        make_folder(destination)
        artifacts = StoredArtifacts(stored)
        run = Run(
            profile,
            task,
            stored.example,
            stored.tools,
            Workspace(destination),
            artifacts,
            Measurer(
                stored.tools.device,
                profile,
                task,
                timed_examples(stored.baseline, profile, stored.example),
                stored.baseline,
            ),
            stored.record,
            deadline,
            progress,
            check,
        )
        # while the run is at work nothing is measured, and only one process at a time may look at the holdout
        busy = stored.record.busy
        if not busy:
            stored.record.own()
        try:
            return _answer(Shortlist(run, stored.candidates, artifacts, quiet=busy), stored, without)
        finally:
            if not busy:
                stored.record.release()
    finally:
        stored.record.close()


def _destination(folder: Path, out: str | Path | None, asked: Sequence[Budget], objective: str | None) -> Path:
    """The folder of the answer; never one that holds a run."""
    if out is None:
        words = [f"{budget.metric}-{budget.text.replace(' ', '')}" for budget in asked]
        name = re.sub(r"[^\w.+-]", "_", "+".join([*words, *([objective] if objective else [])]) or "same")
        if len(name) > LONGEST_NAME:
            name = hashlib.sha256(name.encode()).hexdigest()[:16]
        return Workspace(folder).resolved / name
    chosen = Path(out)
    if Workspace(chosen).journal.exists() or chosen.resolve() == folder.resolve():
        raise UsageError("holds a run, whose answer would be lost.", where=str(out), hint="Choose another --out.")
    return chosen


def _answer(shortlist: Shortlist, stored: StoredRun, without_data: str) -> Result:
    """Find the answer and write its files to the folder of the answer."""
    run = shortlist.run
    shortlist.fill()
    by_plan: dict[str, Trial] = {}

    def plans() -> Iterator[Plan]:
        for trial in _contenders(shortlist):
            if run.deadline.over:
                shortlist.out_of_time = True
                return
            by_plan[trial.plan.hash] = trial
            yield trial.plan

    def confirmed(plan: Plan) -> Confirmation | None:
        trial = by_plan[plan.hash]
        artifact = shortlist.artifact(trial)
        if artifact is None:
            return None
        try:
            return confirm_stored(run, plan, artifact, quiet=shortlist.quiet)
        except ENDS_THE_RUN:
            raise
        except Exception as error:  # noqa: BLE001 - the next file may do
            shortlist.leave_out(trial, run.failed(f"confirming {plan}", error))
            return None

    confirmations = confirm_in_order(plans(), confirmed)
    answer = answer_from(run, confirmations, shortlist.nearest_miss, stored.measured)
    # the search space is empty, since nothing new was planned
    return write_up(
        run,
        answer,
        History(
            stored.facts,
            SearchSpace((), {}),
            stored.measured,
            [shortlist.trials.get(trial.number, trial) for trial in stored.trials],
            _notes(shortlist, answer, without_data),
            shortlist.out_of_time,
        ),
    )


def _contenders(shortlist: Shortlist) -> Iterator[Trial]:
    """Trials in the order of confirmation: those that keep the budgets, undecided ones, incomplete ones.

    The first and last group have the cheapest first, the undecided ones those closest to their budgets.
    """
    run = shortlist.run
    open_ones = shortlist.cheapest_first()
    complete = [trial for trial in open_ones if not shortlist.lacking(trial)]
    kept = [trial for trial in complete if trial.promising]
    if (run.task is None or shortlist.quiet) and run.profile.limits(*ACCURACY_METRICS):
        # nothing can be scored now, so only trials whose holdout scores are in the record can be met
        kept.sort(key=lambda trial: not has_holdout_scores(run.record, trial))
    yield from kept
    yield from sorted((trial for trial in complete if trial not in kept), key=lambda trial: trial.verdict.overshoot)
    yield from (trial for trial in open_ones if trial not in complete)


def _notes(shortlist: Shortlist, answer: Answer, without_data: str) -> list[str]:
    notes = list(dict.fromkeys(shortlist.artifacts.left_out))
    if answer.is_met:
        return notes
    if without_data and any(finding.standing is Standing.UNMEASURED for finding in answer.verdict.findings):
        notes.append(without_data)
    if shortlist.quiet:
        notes.append("A run is at work in this folder, and nothing is measured beside it: ask again when it is over.")
    if shortlist.out_of_time:
        notes.append("The time was up before every stored file was measured.")
    if answer.status is Status.NOT_MET:
        notes.append("No file of the run keeps these budgets; a new run with them may find one.")
    return notes
