"""Opening a run: everything that was given is checked before anything in the run's folder is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.core.artifact import TensorSpec
from autocompress.core.budget import Budget
from autocompress.core.device import require_described
from autocompress.core.layer_patterns import require_layers
from autocompress.core.profile import Profile, load_profile
from autocompress.core.record import SCHEMA, Journal
from autocompress.data.data_spec import load_data
from autocompress.data.example_inputs import as_task, example_for
from autocompress.devices import LocalDevice
from autocompress.errors import JournalError, ModelError
from autocompress.evaluation.workbench import Tools, Workbench, check_data
from autocompress.runtimes import OnnxRuntime
from autocompress.system.locks import folder_lock
from autocompress.system.progress import Deadline, parse_duration
from autocompress.system.scratch import scratch, sweep_scratch
from autocompress.system.workers import Worker
from autocompress.system.workspace import DEFAULT_FOLDER, Workspace
from autocompress.techniques import SHELF

if TYPE_CHECKING:
    import torch


def open_run(
    model: torch.nn.Module,
    profile: str | Path | Profile,
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
) -> tuple[Workbench, Journal, Deadline]:
    """Check everything that was given, and open the run's folder and journal.

    `named` says how the inputs were named, for `autocompress resolve` to find the data again.

    Raises:
        AutocompressError: when something given cannot be used.
    """
    deadline = Deadline.start(parse_duration(max_time))
    _require_module(model)
    target = load_profile(profile).with_budgets(replacements(budgets)).with_objective(objective)
    target = target.with_layers(ignore, keep_float)
    names_of_layers = [name for name, _ in model.named_modules()]
    require_layers(names_of_layers, target.ignore, "ignore")
    require_layers(names_of_layers, target.keep_float, "keep_float")
    task = load_data(data) if isinstance(data, str) else as_task(data)
    example = example_for(model, task, inputs, target.inputs)
    tools = tools_at_hand()
    require_described(tools.device, target)
    workspace = Workspace(Path(out))
    bench = Workbench(model, example, task, target, tools, workspace)
    sweep_scratch()
    with scratch("baseline") as folder:
        # whatever is wrong with model or data shows before anything in the run's folder is touched
        bench.export_baseline(folder)
        check_data(bench)
        names = {"data": data, **(named or {})} if isinstance(data, str) else dict(named or {})
        workspace.make()
        with folder_lock(workspace.root):
            journal = _open_journal(bench, names, resume=resume)
            workspace.sweep()
        bench.adopt_baseline()
    journal.release_dead_claims()
    return bench, journal, replace(deadline, spent_before=float(journal.noted("elapsed") or 0.0))


def tools_at_hand() -> Tools:
    """One runtime, this machine, and every technique on the shelf."""
    return Tools(OnnxRuntime(), LocalDevice(), tuple(technique() for technique in SHELF))


def _open_journal(bench: Workbench, names: Mapping[str, str], *, resume: bool) -> Journal:
    """The run's journal: the one that is there when resuming, else a new one that inherits the looks at the same
    data."""
    workspace, identity = bench.workspace, _identity(bench)
    if resume and workspace.journal.exists():
        earlier = Journal(workspace.journal)
        _require_same_run(earlier.noted("identity") or {}, identity, workspace.root)
        earlier.own()
        return earlier
    looks = _looks_so_far(workspace, identity)
    workspace.open(resume=resume)
    # under its name only once it says whose it is: a start that is killed leaves a whole journal or none
    unborn = workspace.root / f".{workspace.journal.name}{Worker.me().tag}"
    journal = Journal(unborn)
    journal.note("identity", identity)
    journal.note("looks", looks)
    note_inputs(bench, journal, names)
    journal.own()
    journal.close()
    unborn.rename(workspace.journal)
    return Journal(workspace.journal)


def _looks_so_far(workspace: Workspace, identity: Mapping[str, str]) -> list[Any]:
    """Looks at the same data in earlier runs of this folder.

    Raises:
        JournalError: when one of them is still at work.
    """
    path = workspace.newest_journal
    if path is None:
        return []
    earlier = Journal(path)
    same = (earlier.noted("identity") or {}).get("data") == identity["data"]
    looks, busy = earlier.noted("looks") or [], earlier.busy
    earlier.close()
    if busy:
        raise JournalError(
            "another run is at work in this folder.",
            where=str(workspace.root),
            hint="Choose another --out, or join it with --resume.",
        )
    return looks if same else []


def note_inputs(bench: Workbench, journal: Journal, names: Mapping[str, str]) -> None:
    """Write down what it takes to judge the run's files again without the model: see `stored_run`.

    `names` are the texts that named model, data and profile, and the folder that relative paths start from.
    """
    journal.note("schema", SCHEMA)
    journal.note("profile", bench.profile.to_json())
    journal.note("machine", {"fingerprint": bench.machine.fingerprint, "name": str(bench.machine)})
    specs = (TensorSpec(name, str(array.dtype), array.shape) for name, array in bench.example.arrays.items())
    journal.note("example", [str(spec) for spec in specs])
    journal.note("score", bench.task.score_name if bench.task else "")
    journal.note("named", {"folder": str(Path.cwd()), **names})


def replacements(budgets: Mapping[str, float | str] | None) -> list[Budget]:
    """Budgets from `{"latency_ms": "0.5x"}`.

    Raises:
        ProfileError: when a metric is unknown or a limit not allowed.
    """
    return [Budget.parse(metric, value) for metric, value in (budgets or {}).items()]


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
    splits: Sequence[Any] = (bench.task.validation, bench.task.holdout, bench.task.calibration) if bench.task else ()
    declared = json.dumps(
        [str(profile.device), str(profile.runtime), str(profile.protocol), profile.confidence]
        + [str(layers) for layers in (profile.ignore, profile.keep_float) if layers]
    )
    return {
        "model": bench.baseline.hash,
        "data": ",".join(split.hash for split in splits if split is not None),
        "profile": hashlib.sha256(declared.encode()).hexdigest()[:16],
        "budgets": "; ".join(map(str, profile.budgets)),
        "objective": profile.objective,
    }
