"""`autocompress(model, profile, data)`: the whole flow, readable on one screen."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.budget import Budget
from autocompress.conclusion import conclude
from autocompress.confirm import MAX_LOOKS, Confirmation, confirm, remember, remembered
from autocompress.data_spec import load_data
from autocompress.device import require_described
from autocompress.devices import LocalDevice
from autocompress.errors import JournalError, ModelError
from autocompress.examples import as_task, example_for
from autocompress.facts import Facts
from autocompress.journal import Journal
from autocompress.ladder import Ladder
from autocompress.measurement import Measurement
from autocompress.plan import Plan
from autocompress.planner import (
    Situation,
    build_ladder,
    inspect_module,
    measure_training,
    order_blocks,
    run_probes,
)
from autocompress.probes import Probes
from autocompress.profile import Profile, load_profile
from autocompress.progress import Deadline, Event, Listener, parse_duration, silent
from autocompress.report import trials_frame, write_files
from autocompress.result import Result
from autocompress.runtimes import OnnxRuntime
from autocompress.search import Search, screen
from autocompress.strategies import Boundary
from autocompress.technique import ArtifactTechnique, Technique
from autocompress.techniques import SHELF
from autocompress.verdict import Status
from autocompress.workbench import Tools, Workbench, check_data
from autocompress.workspace import Workspace

if TYPE_CHECKING:
    import torch

DEFAULT_FOLDER = "runs/latest"


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
    )
    try:
        planned = plan_run(bench, journal, progress, structure=_wants_structure(bench, journal))
        search = Search(bench, planned.ladder, Boundary(), journal, deadline, progress)
        confirmations = climb(search, planned, [], progress)
        if _worth_going_on(search, planned, confirmations):
            # what int8 alone could not do is asked of structure; ordering blocks and timing training come first
            planned = plan_run(bench, journal, progress, structure=True)
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
    _tools().require_possible(plan)
    progress(Event("baseline", "exporting the model"))
    bench, journal, deadline = open_run(model, profile, data, inputs=inputs, out=out, budgets=budgets)
    try:
        progress(Event("baseline", "measuring the model as it is"))
        baseline = _measure_baseline(bench)
        facts = inspect_module(bench.module, bench.example)
        search = Search(bench, Ladder((), {}), Boundary(), journal, deadline, progress)
        return _finish(conclude(search, facts, baseline, [confirm(bench, plan, journal, progress)]))
    finally:
        journal.release()
        journal.close()


@dataclass(frozen=True, eq=False)
class Planned:
    """What is known before anything is tried."""

    baseline: Measurement
    facts: Facts
    probes: Probes
    ladder: Ladder
    structure: bool

    @property
    def fits(self) -> bool:
        """True when the model keeps its size and time budgets as it is."""
        return any(answer.rule == "fits" and answer.taken for answer in self.ladder.path)


def open_run(
    model: torch.nn.Module,
    profile: str | Path | Profile,
    data: Any = None,
    *,
    inputs: Any = None,
    out: str | Path = DEFAULT_FOLDER,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    max_time: str | float | None = None,
    resume: bool = False,
) -> tuple[Workbench, Journal, Deadline]:
    """Check everything that was given, and open the run's folder and journal.

    Raises:
        AutocompressError: when something given cannot be used.
    """
    deadline = Deadline.start(parse_duration(max_time))
    _require_module(model)
    target = load_profile(profile).with_budgets(replacements(budgets)).with_objective(objective)
    task = load_data(data) if isinstance(data, str) else as_task(data)
    example = example_for(model, task, inputs, target.inputs)
    tools = _tools()
    require_described(tools.device, target)
    workspace = Workspace(Path(out))
    bench = Workbench(model, example, task, target, tools, workspace)
    with tempfile.TemporaryDirectory(prefix="autocompress-baseline-") as folder:
        # whatever is wrong with model or data shows before anything in the run's folder is touched
        bench.export_baseline(Path(folder))
        check_data(bench)
        journal = _open_journal(bench, resume=resume)
        bench.adopt_baseline()
    journal.release_dead_claims()
    return bench, journal, replace(deadline, spent_before=float(journal.noted("elapsed") or 0.0))


def _tools() -> Tools:
    return Tools(OnnxRuntime(), LocalDevice(), tuple(technique() for technique in SHELF))


def _open_journal(bench: Workbench, *, resume: bool) -> Journal:
    """The run's journal: the one that is there when resuming, else a new one that inherits the looks at the same
    data."""
    workspace, identity = bench.workspace, _identity(bench)
    looks: list[Any] = []
    if workspace.journal.exists():
        earlier = Journal(workspace.journal)
        noted = earlier.noted("identity") or {}
        if resume:
            _require_same_run(noted, identity, workspace.root)
            earlier.own()
            return earlier
        busy = earlier.busy
        if noted.get("data") == identity["data"]:
            looks = earlier.noted("looks") or []
        earlier.close()
        if busy:
            raise JournalError(
                "another run is at work in this folder.",
                where=str(workspace.root),
                hint="Choose another --out, or join it with --resume.",
            )
    workspace.open(resume=resume)
    journal = Journal(workspace.journal)
    journal.note("identity", identity)
    journal.note("looks", looks)
    journal.own()
    return journal


def plan_run(bench: Workbench, journal: Journal, progress: Listener, *, structure: bool) -> Planned:
    """Baseline, facts, probes and ladder; what an earlier sitting measured is not measured again.

    `structure` adds what only techniques on the module need: the order in which blocks can go, and the speed of
    training.
    """
    noted = journal.noted("baseline")
    if noted is None:
        progress(Event("baseline", "measuring the model as it is"))
    baseline = Measurement.from_json(noted) if noted else _measure_baseline(bench)
    journal.note("baseline", baseline.to_json())
    facts = inspect_module(bench.module, bench.example)
    probes = _probe(bench, journal, facts, progress)
    techniques: Sequence[Technique] = [
        t for t in bench.tools.techniques if structure or isinstance(t, ArtifactTechnique)
    ]
    if structure:
        probes = _probe_structure(bench, journal, probes, progress)
    verdict = screen(bench, baseline)
    situation = Situation(facts, probes, bench.profile, bench.task, verdict)
    ladder = build_ladder(situation, techniques, frozenset({bench.tools.runtime.format}))
    progress(Event("ladder", f"{len(ladder.rungs)} rungs, {len(ladder.refusals)} techniques refused"))
    return Planned(baseline, facts, probes, ladder, structure)


def _probe(bench: Workbench, journal: Journal, facts: Facts, progress: Listener) -> Probes:
    noted = journal.noted("probes")
    if noted:
        return Probes.from_json(noted)
    techniques = [t for t in bench.tools.techniques if isinstance(t, ArtifactTechnique)]
    tools = bench.tools

    def said(sentence: str) -> None:
        progress(Event("probes", sentence))

    probes = run_probes(facts, techniques, tools.runtime, tools.device, bench.profile, bench.machine, said)
    journal.note("probes", probes.to_json())
    return probes


def _probe_structure(bench: Workbench, journal: Journal, probes: Probes, progress: Listener) -> Probes:
    part = bench.task.calibrating if bench.task else None
    if probes.blocks or bench.task is None or part is None:
        return probes

    def said(sentence: str) -> None:
        progress(Event("probes", sentence))

    said("skipping blocks to see which matter least")
    blocks = order_blocks(bench.module, bench.example, part, said)
    if blocks and bench.task.train is not None:
        said("timing a few steps of training")
        probes = replace(probes, training=measure_training(bench.module, bench.task, bench.example))
    probes = replace(probes, blocks=blocks)
    journal.note("probes", probes.to_json())
    return probes


def replacements(budgets: Mapping[str, float | str] | None) -> list[Budget]:
    """Budgets from `{"latency_ms": "0.5x"}`.

    Raises:
        ProfileError: when a metric is unknown or a limit not allowed.
    """
    return [Budget.parse(metric, value) for metric, value in (budgets or {}).items()]


def _measure_baseline(bench: Workbench) -> Measurement:
    measurement = bench.measure_size(bench.baseline).with_(bench.measure_time(bench.baseline))
    part = bench.task.selecting if bench.task else None
    return measurement if part is None else measurement.with_(bench.measure_score(bench.baseline, part))


def _require_module(model: Any) -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"is a {type(model).__name__}, not a torch.nn.Module.", where="model")


def _require_same_run(noted: Mapping[str, str], identity: Mapping[str, str], folder: Path) -> None:
    """A journal goes on only with the model, data and profile that it was begun with."""
    changed = [key for key in identity if noted.get(key) != identity[key]]
    if changed:
        raise JournalError(
            f"was begun with other inputs: {', '.join(changed)} changed.",
            where=str(folder),
            hint="Leave out --resume to start afresh (the old run is kept in previous/), or choose another --out.",
        )


def _identity(bench: Workbench) -> dict[str, str]:
    profile = bench.profile
    parts: Sequence[Any] = (bench.task.selecting, bench.task.confirming, bench.task.calibrating) if bench.task else ()
    declared = json.dumps([str(profile.device), str(profile.runtime), str(profile.protocol), profile.confidence])
    return {
        "model": bench.baseline.hash,
        "data": ",".join(part.hash for part in parts if part is not None),
        "profile": hashlib.sha256(declared.encode()).hexdigest()[:16],
        "budgets": "; ".join(map(str, profile.budgets)),
        "objective": profile.objective,
    }
