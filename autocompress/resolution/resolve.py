"""`resolve`: new budgets answered from what a run left, without training and without building anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autocompress.core.budget import ACCURACY_METRICS, Budget
from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Standing, Status
from autocompress.errors import PlanError, UsageError
from autocompress.evaluation.workbench import Workbench
from autocompress.resolution.reconfirm import confirm_stored, confirmed_scores
from autocompress.resolution.shortlist import Shortlist
from autocompress.resolution.stored_run import data_again, open_stored
from autocompress.run.answer import Found, Story, best, write_up
from autocompress.run.confirm import MAX_LOOKS, Confirmation
from autocompress.run.result import Result
from autocompress.run.setup import replacements, tools_at_hand
from autocompress.statistics.judging import judge_by
from autocompress.system.progress import Deadline, Listener
from autocompress.system.workspace import Workspace, make_folder

# no confirmation begins after that
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
    progress: Listener,
) -> Result:
    """See `autocompress.api.resolve`; the answer's artifact and plan are written, the report's files are not."""
    deadline = Deadline.start(MAX_SECONDS)
    asked, tools = replacements(budgets), tools_at_hand()
    run = open_stored(Path(folder), tools.runtime, tools.device)
    try:
        profile = run.profile.with_budgets(asked).with_objective(objective)
        run = replace(run, profile=profile)
        destination = _destination(Path(folder), out, asked, objective)
        task, without = data_again(run, data, data_dir)
        make_folder(destination)
        bench = Workbench(_Nothing(), run.example, task, profile, tools, Workspace(destination))
        bench.take_baseline(run.baseline)
        # nothing is measured beside a run at work, and only one at a time may look at the holdout
        busy = run.journal.busy
        if not busy:
            run.journal.own()
        try:
            result = _answer(Shortlist(run, bench, deadline, progress, quiet=busy), without)
        finally:
            if not busy:
                run.journal.release()
        return result
    finally:
        run.journal.close()


class _Nothing(torch.nn.Module):
    """Stands for the model, which is not at hand: whatever would build something with it fails."""

    def forward(self, *inputs: Any) -> Any:
        raise PlanError("the model is not at hand, so nothing new can be built.", where="resolve")


def _destination(folder: Path, out: str | Path | None, asked: Sequence[Budget], objective: str | None) -> Path:
    """Where the answer goes: never over that of a run."""
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


def _answer(shortlist: Shortlist, without_data: str) -> Result:
    """The answer with its files, in the bench's folder."""
    run, bench = shortlist.run, shortlist.bench
    shortlist.fill()
    answer = best(_confirmations(shortlist))
    if answer is not None:
        found = Found.confirmed(answer)
    else:
        nearest = shortlist.nearest_miss()
        artifact = shortlist.artifact(nearest) if nearest is not None else None
        if nearest is not None and artifact is not None:
            found = Found.unconfirmed(nearest.plan, artifact, nearest.measurement, nearest.verdict)
        else:
            found = Found.unconfirmed(Plan(), run.baseline, run.measured, judge_by(bench.profile, run.measured))
    return write_up(
        bench,
        found,
        Story(
            run.facts,
            # nothing new was planned
            SearchSpace((), {}),
            run.measured,
            [shortlist.trials.get(trial.number, trial) for trial in run.trials],
            shortlist.deadline.spent,
            _notes(shortlist, found, without_data),
            shortlist.out_of_time,
        ),
    )


def _confirmations(shortlist: Shortlist) -> list[Confirmation]:
    """Confirmations in the order they were made, until one is met or no further look makes sense."""
    found: list[Confirmation] = []
    for trial in _contenders(shortlist):
        if len(found) >= MAX_LOOKS:
            break
        if shortlist.deadline.over:
            shortlist.out_of_time = True
            break
        artifact = shortlist.artifact(trial)
        if artifact is None:
            continue
        bench, journal = shortlist.bench, shortlist.run.journal
        found.append(confirm_stored(bench, trial.plan, artifact, journal, shortlist.listener, quiet=shortlist.quiet))
        if found[-1].verdict.status is Status.MET or found[-1].hopeless:
            break
    return found


def _contenders(shortlist: Shortlist) -> Iterator[Trial]:
    """Cheapest first what keeps the budgets, then what is undecided, then what was not measured whole."""
    bench, journal = shortlist.bench, shortlist.run.journal
    open_ones = shortlist.cheapest_first()
    whole = [trial for trial in open_ones if not shortlist.lacking(trial)]
    kept = [trial for trial in whole if trial.promising]
    if (bench.task is None or shortlist.quiet) and bench.profile.limits(*ACCURACY_METRICS):
        # nothing can be scored now, so only those whose holdout scores are noted can be met
        kept.sort(key=lambda trial: not confirmed_scores(journal, trial))
    yield from kept
    yield from sorted((trial for trial in whole if trial not in kept), key=lambda trial: trial.verdict.overshoot)
    yield from (trial for trial in open_ones if trial not in whole)


def _notes(shortlist: Shortlist, found: Found, without_data: str) -> list[str]:
    notes = list(dict.fromkeys(shortlist.run.left_out))
    if found.status is Status.MET:
        return notes
    if without_data and any(finding.standing is Standing.UNMEASURED for finding in found.verdict.findings):
        notes.append(without_data)
    if shortlist.quiet:
        notes.append("A run is at work in this folder, and nothing is measured beside it: ask again when it is over.")
    if shortlist.out_of_time:
        notes.append("The time was up before every stored file was measured.")
    if found.status is Status.NOT_MET:
        notes.append("No file of the run keeps these budgets; a new run with them may find one.")
    return notes
