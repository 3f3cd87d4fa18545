"""`autocompress(model, profile, data)`: the whole flow, readable on one screen."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.analysis.inspection import inspect_module
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile, load_profile
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Status
from autocompress.report import trials_frame, write_files
from autocompress.resolution.resolve import resolve_run
from autocompress.run.answer import conclude, conclude_so_far
from autocompress.run.confirm import MAX_LOOKS, Confirmation, confirm, remember, remembered
from autocompress.run.result import Result
from autocompress.run.search import Search
from autocompress.run.setup import open_run, tools_at_hand
from autocompress.run.stages import Planned, measure_baseline, plan_run, with_structure, with_training
from autocompress.strategies import Bisection
from autocompress.structure.candidates import nearly_fitted
from autocompress.system.locks import folder_lock
from autocompress.system.progress import Event, Listener, silent
from autocompress.system.scratch import scratch
from autocompress.system.workspace import DEFAULT_FOLDER

if TYPE_CHECKING:
    import torch

# how often what can go from a network is looked for where nothing that was proposed fitted
MOST_ATTEMPTS = 2
# of the time that is left, what looking for structure may take; and all that planning without a run may take, about
SHARE_OF_TIME = 0.25
PLANNING_SECONDS = 38.0
# what it gets for structure of large networks, whose baseline and probes took most of that
LEAST_SECONDS = 4.0
# what is only planned is measured no longer than this, a few times
BRIEFLY = 2.5


def autocompress(
    model: torch.nn.Module,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    out: str | Path = DEFAULT_FOLDER,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
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
        ignore: names of layers to leave alone, with all inside them, beside the profile's; `*` stands for anything.
        keep_float: names of layers that are not quantized, in the same way.
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
        ignore=ignore,
        keep_float=keep_float,
        max_time=max_time,
        resume=resume,
        named=named,
    )
    try:
        planned = plan_run(bench, journal, progress)
        journal.note("facts", planned.facts.to_json())
        search = Search(bench, planned.search_space, Bisection(), journal, deadline, progress)
        confirmations: list[Confirmation] = []
        while True:
            search.search_space = planned.search_space
            confirmations = climb(search, planned, confirmations, progress, last=False)
            # `effort` ends with its first answer: there is nothing to keep ready, and nothing to go on from
            reached = [] if bench.profile.objective == "effort" else search.reached()
            if reached:
                _keep_ready(search, planned, reached[0])
            further = _further(search, planned, confirmations, reached, progress)
            if further is None:
                break
            planned = further
        confirmations = climb(search, planned, confirmations, progress, last=True)
        # the files of an answer belong together, and two workers may come to theirs at once
        with folder_lock(bench.workspace.root):
            return _finish(conclude(search, planned.facts, planned.baseline, confirmations))
    finally:
        journal.spend_time(deadline.spent)
        journal.release()
        journal.close()


def _keep_ready(search: Search, planned: Planned, best: Trial) -> None:
    """Files of the best answer so far, for whoever looks while an objective goes on improving it."""
    with folder_lock(search.workbench.workspace.root):
        write_files(conclude_so_far(search, planned.facts, planned.baseline, best))


def _finish(result: Result) -> Result:
    write_files(result)
    return replace(result, trials=trials_frame(result.history))


def climb(
    search: Search, planned: Planned, so_far: Sequence[Confirmation], progress: Listener, *, last: bool
) -> list[Confirmation]:
    """Confirmations in the order they were made, until one is met or no further look makes sense."""
    bench, journal = search.workbench, search.journal
    confirmations = list(so_far)
    if _answered(confirmations):
        return confirmations
    known = {confirmation.plan.hash for confirmation in confirmations}
    plans = [Plan()] if planned.fits else (trial.plan for trial in search.contenders(known, last=last))
    for plan in plans:
        if len(confirmations) >= MAX_LOOKS:
            break
        # another worker may be confirming the same plan now: its verdict is then the one that stands
        with folder_lock(bench.workspace.checkpoints, lambda: progress(Event("confirm", "waiting for another worker"))):
            found = remembered(bench, plan, journal)
            if found is None:
                found = confirm(bench, plan, journal, progress)
                remember(found, journal)
        confirmations.append(found)
        if _answered(confirmations):
            break
    return confirmations


def _answered(confirmations: Sequence[Confirmation]) -> bool:
    return any(found.verdict.status is Status.MET or found.hopeless for found in confirmations)


def _further(
    search: Search,
    planned: Planned,
    confirmations: Sequence[Confirmation],
    reached: Sequence[Trial],
    progress: Listener,
) -> Planned | None:
    """What is tried next when nothing meets the budgets so far: structure, then training, round by round.

    None when there is an answer, no time, or nothing more to try.
    """
    bench, journal = search.workbench, search.journal
    left = search.deadline.left
    seconds = None if left is None else SHARE_OF_TIME * left
    over = search.out_of_time or search.deadline.over or len(confirmations) >= MAX_LOOKS
    if over or planned.fits or _answered(confirmations):
        return None
    if planned.structure_attempts:
        again = planned.structure_attempts < MOST_ATTEMPTS and not planned.search_space.out_of_reach
        if again and nearly_fitted(planned.search_space, journal.trials()):
            return with_structure(planned, bench, journal, progress, seconds)
        plans = [trial.plan for trial in reached]
        return with_training(planned, bench, journal, progress, left, reached=plans)
    first_is_enough = bench.profile.objective == "effort"
    if bench.task is None or bench.task.calibration is None or (first_is_enough and search.structure_suffices):
        return None
    return with_structure(planned, bench, journal, progress, seconds)


def explain(
    model: torch.nn.Module,
    profile: str | Path | Profile = "local",
    data: Any = None,
    *,
    inputs: Any = None,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    progress: Listener = silent,
) -> Planned:
    """Baseline, facts, probes and search space of a run that is not made, within about a minute.

    Arguments as in `autocompress`.

    Raises:
        AutocompressError: for bad input and failures of device or runtime.
    """
    began = time.monotonic()
    target = load_profile(profile)
    briefly = replace(target.protocol, max_seconds=min(BRIEFLY, target.protocol.max_seconds))
    with scratch("plan") as folder:
        bench, journal, _ = open_run(
            model,
            replace(target, protocol=briefly),
            data,
            inputs=inputs,
            out=folder,
            budgets=budgets,
            objective=objective,
            ignore=ignore,
            keep_float=keep_float,
        )
        try:
            planned = plan_run(bench, journal, progress)
            if planned.fits:
                return planned
            seconds = max(LEAST_SECONDS, PLANNING_SECONDS - (time.monotonic() - began))
            planned = with_structure(planned, bench, journal, progress, seconds)
            if planned.search_space.out_of_reach:
                return planned
            expected = [
                recipe.structures[recipe.likely]
                for recipe in planned.search_space.recipes
                if recipe.nested and recipe.likely is not None
            ]
            return with_training(planned, bench, journal, progress, None, structures=expected) or planned
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
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
    progress: Listener = silent,
) -> Result:
    """Replay a plan and judge its file on the holdout data; arguments as in `autocompress`.

    The same plan, model, data and thread count give the same bytes on the same machine.

    Raises:
        AutocompressError: for bad input, a plan that does not fit the model, and failures of device or runtime.
    """
    tools_at_hand().require_possible(plan)
    progress(Event("baseline", "exporting the model"))
    bench, journal, deadline = open_run(
        model, profile, data, inputs=inputs, out=out, budgets=budgets, ignore=ignore, keep_float=keep_float
    )
    try:
        progress(Event("baseline", "measuring the model as it is"))
        baseline = measure_baseline(bench)
        facts = inspect_module(bench.module, bench.example)
        search = Search(bench, SearchSpace((), {}), Bisection(), journal, deadline, progress)
        return _finish(conclude(search, facts, baseline, [confirm(bench, plan, journal, progress)]))
    finally:
        journal.release()
        journal.close()


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
    result = resolve_run(
        folder, budgets=budgets, objective=objective, data=data, data_dir=data_dir, out=out, progress=progress
    )
    return _finish(result)
