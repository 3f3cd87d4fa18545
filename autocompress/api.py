"""`autocompress(model, profile, data)`: the whole flow, readable on one screen."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.conclusion import conclude
from autocompress.confirm import MAX_LOOKS, Confirmation, confirm, remember, remembered
from autocompress.journal import Journal
from autocompress.ladder import Ladder
from autocompress.opening import open_run, tools_at_hand
from autocompress.plan import Plan
from autocompress.planner import inspect_module
from autocompress.planning import Planned, measure_baseline, plan_run
from autocompress.profile import Profile
from autocompress.progress import Event, Listener, silent
from autocompress.report import trials_frame, write_files
from autocompress.result import Result
from autocompress.search import Search
from autocompress.strategies import Boundary
from autocompress.verdict import Status
from autocompress.workbench import Workbench
from autocompress.workspace import DEFAULT_FOLDER

if TYPE_CHECKING:
    import torch


def autocompress(
    model: torch.nn.Module,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    out: str | Path = DEFAULT_FOLDER,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    max_time: str | float | None = None,
    resume: bool = False,
    named: Mapping[str, str] | None = None,
    progress: Listener = silent,
) -> Result:
    """The cheapest measured plan that meets the profile's budgets, as a file that ships.

    Args:
        model: a trained module; left as it is.
        profile: a YAML file, the name of a shipped profile, or a Profile.
        data: a Task, `(inputs, targets)` arrays, a Dataset, a DataLoader, a dict of `train`, `val`, `test` of
            these, or a data SPEC such as `digits`. Without data the accuracy stays unmeasured.
        inputs: example inputs where no data give them: an array or tensor with a batch axis, a tuple or dict of
            them, or a spec such as `1x3x32x32:float32`.
        out: the run's folder. What an earlier run left there moves to `previous/`.
        budgets: replace the profile's budgets of the same metrics: `{"latency_ms": "0.5x"}`.
        objective: replaces the profile's: `effort`, `latency`, `size`, `accuracy`, `serving_cost`.
        max_time: `90s`, `20m`, `2h` or seconds, over all resumptions.
        resume: go on with the run in `out`.
        named: how a program names its inputs (`{"data": "digits"}`), noted for `resolve` to find the data again.
        progress: called with an `Event` for each thing worth telling.

    Raises:
        AutocompressError: for bad input (exit code 2) and failures of device or runtime (4). Budgets that are
            not met are a value, not an exception.
    """
    progress(Event("baseline", "exporting the model"))
    bench, journal, deadline = open_run(
        model,
        profile,
        data,
        inputs=inputs,
        out=out,
        budgets=budgets,
        objective=objective,
        max_time=max_time,
        resume=resume,
        named=named,
    )
    try:
        planned = plan_run(
            bench, journal, progress, structure=_wants_structure(bench, journal), seconds_left=deadline.left
        )
        journal.note("facts", planned.facts.to_json())
        search = Search(bench, planned.ladder, Boundary(), journal, deadline, progress)
        confirmations = climb(search, planned, [], progress)
        if _worth_going_on(search, planned, confirmations):
            # what int8 alone could not do is asked of structure; ordering blocks and timing training come first
            planned = plan_run(bench, journal, progress, structure=True, seconds_left=deadline.left)
            search.ladder = planned.ladder
            confirmations = climb(search, planned, confirmations, progress)
        return _finish(conclude(search, planned.facts, planned.baseline, confirmations))
    finally:
        journal.note("elapsed", deadline.spent)
        journal.release()
        journal.close()


def _finish(result: Result) -> Result:
    write_files(result)
    return replace(result, trials=trials_frame(result.history))


def climb(search: Search, planned: Planned, so_far: Sequence[Confirmation], progress: Listener) -> list[Confirmation]:
    """Confirmations in the order they were made, until one is met or no further look makes sense."""
    bench, journal = search.workbench, search.journal
    confirmations = list(so_far)
    known = {confirmation.plan.hash for confirmation in confirmations}
    plans = [Plan()] if planned.fits else (trial.plan for trial in search.contenders(known))
    for plan in plans:
        if len(confirmations) >= MAX_LOOKS:
            break
        found = remembered(bench, plan, journal)
        if found is None:
            found = confirm(bench, plan, journal, progress)
            remember(found, journal)
        confirmations.append(found)
        if found.verdict.status is Status.MET or found.hopeless:
            break
    return confirmations


def _wants_structure(bench: Workbench, journal: Journal) -> bool:
    """True from the start where the objective improves to the end, or an earlier sitting had come so far."""
    return bench.profile.objective != "effort" or bool((journal.noted("probes") or {}).get("blocks"))


def _worth_going_on(search: Search, planned: Planned, confirmations: Sequence[Confirmation]) -> bool:
    task = search.workbench.task
    answered = any(found.verdict.status is Status.MET or found.hopeless for found in confirmations)
    open_ended = not (answered or planned.fits or planned.structure or search.out_of_time)
    return open_ended and task is not None and task.calibrating is not None and len(confirmations) < MAX_LOOKS


def explain(
    model: torch.nn.Module,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    progress: Listener = silent,
) -> Planned:
    """Baseline, facts, probes and ladder of a run that is not made; arguments as in `autocompress`.

    Raises:
        AutocompressError: for bad input and failures of device or runtime.
    """
    with tempfile.TemporaryDirectory(prefix="autocompress-plan-") as folder:
        bench, journal, _ = open_run(
            model, profile, data, inputs=inputs, out=folder, budgets=budgets, objective=objective
        )
        try:
            return plan_run(bench, journal, progress, structure=True)
        finally:
            journal.close()


def apply_plan(
    plan: Plan,
    model: torch.nn.Module,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    out: str | Path = DEFAULT_FOLDER,
    budgets: Mapping[str, float | str] | None = None,
    progress: Listener = silent,
) -> Result:
    """Replay a plan and judge its file on the confirming data; arguments as in `autocompress`.

    The same plan, model, data and thread count give the same bytes on the same machine.

    Raises:
        AutocompressError: for bad input, a plan that does not fit the model, and failures of device or runtime.
    """
    tools_at_hand().require_possible(plan)
    progress(Event("baseline", "exporting the model"))
    bench, journal, deadline = open_run(model, profile, data, inputs=inputs, out=out, budgets=budgets)
    try:
        progress(Event("baseline", "measuring the model as it is"))
        baseline = measure_baseline(bench)
        facts = inspect_module(bench.module, bench.example)
        search = Search(bench, Ladder((), {}), Boundary(), journal, deadline, progress)
        return _finish(conclude(search, facts, baseline, [confirm(bench, plan, journal, progress)]))
    finally:
        journal.release()
        journal.close()
