"""`resolve`: new budgets answered from what a run left, without training and without building anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autocompress.budget import ACCURACY_METRICS, Budget
from autocompress.conclusion import Found, Story, best, write_up
from autocompress.confirm import MAX_LOOKS, Confirmation
from autocompress.errors import PlanError, UsageError
from autocompress.judge import judge_by
from autocompress.ladder import Ladder
from autocompress.opening import replacements, tools_at_hand
from autocompress.plan import Plan
from autocompress.progress import Deadline, Listener, silent
from autocompress.reconfirm import confirm_stored, confirmed_scores
from autocompress.report import trials_frame, write_files
from autocompress.result import Result
from autocompress.shortlist import Shortlist
from autocompress.stored_run import data_again, open_stored
from autocompress.trial import Trial
from autocompress.verdict import Standing, Status
from autocompress.workbench import Workbench
from autocompress.workspace import Workspace, make_folder

# no confirmation begins after that
MAX_SECONDS = 60.0
LONGEST_NAME = 60


def resolve(
    folder: str | Path,
    *,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    data: Any = None,
    data_dir: Path | None = None,
    out: str | Path | None = None,
    progress: Listener = silent,
) -> Result:
    """The cheapest file of an earlier run that meets other budgets, within about a minute; nothing is trained or built.

    Args:
        folder: of the run.
        budgets: replace the run's budgets of the same metrics; the others stay.
        objective: replaces the run's.
        data: the data of the run, as `autocompress` takes them. Left out, a built-in name or a `.npz` file that the
            run was started with is loaded again; code never is.
        data_dir: folder of torchvision's data sets.
        out: folder of the answer, by default one in `folder/resolved` that is named after the budgets.
        progress: called with an `Event` for each thing worth telling.

    Raises:
        AutocompressError: for a folder that holds no run (exit code 2), other data than the run's (2), and another
            machine (4). Budgets that are not met are a value, not an exception.
    """
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
        # nothing is measured beside a run at work, and only one at a time may look at the confirming part
        busy = run.journal.busy
        if not busy:
            run.journal.own()
        try:
            result = _answer(Shortlist(run, bench, deadline, progress, quiet=busy), without)
        finally:
            if not busy:
                run.journal.release()
        write_files(result)
        return replace(result, trials=trials_frame(result.history))
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
            Ladder((), {}),
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
        # nothing can be scored now, so only those whose confirming scores are noted can be met
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
