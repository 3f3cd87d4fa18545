"""Sets a run up: all inputs are checked before anything in the run's folder is changed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autocompress import techniques
from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.budget import parse_budgets
from autocompress.core.code_hash import code_hash
from autocompress.core.data_check import DataCheck
from autocompress.core.device import require_described
from autocompress.core.dynamic_axes import DynamicAxes
from autocompress.core.layer_patterns import require_layers
from autocompress.core.model import Fitted
from autocompress.core.output_kinds import Declared
from autocompress.core.profile import Profile, load_profile
from autocompress.core.record import SCHEMA, Record, RunInputs
from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.training_recipe import TrainingRecipe
from autocompress.data.data_spec import load_data
from autocompress.data.example_inputs import as_task, specs_in
from autocompress.data.input_shapes import timed_examples
from autocompress.data.item_lengths import require_free, told, varying_axes
from autocompress.data.kept_items import with_kept_items
from autocompress.data.output_recognition import with_kinds
from autocompress.data.recipe_spec import load_recipe
from autocompress.devices import device_of
from autocompress.errors import RecordError, UsageError
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.measurer import Measurer
from autocompress.evaluation.run import Run
from autocompress.evaluation.scorer import Scorer
from autocompress.models import as_model
from autocompress.planner.tree import require_reachable
from autocompress.run.data_checking import check_data, seconds_for_training_items
from autocompress.run.looks import looks_elsewhere
from autocompress.run.opening import try_functions, try_recipe
from autocompress.run.plausibility import doubts_about_weights
from autocompress.run.record_store import open_record
from autocompress.runtimes import runtime_of
from autocompress.system.locks import folder_lock
from autocompress.system.progress import Deadline, Event, Progress, parse_duration, silent
from autocompress.system.scratch import scratch, sweep_scratch
from autocompress.system.workers import Worker
from autocompress.system.workspace import DEFAULT_FOLDER, Workspace

if TYPE_CHECKING:
    import torch


def declared(
    profile: str | Path | Profile,
    budgets: Mapping[str, float | str] | None = None,
    objective: str | None = None,
    ignore: Sequence[str] = (),
    keep_float: Sequence[str] = (),
) -> Profile:
    """The profile with the budgets, objective and layer patterns that were given in addition.

    Raises:
        ProfileError: when there is no such profile, or something declared is not allowed.
    """
    asked = parse_budgets(budgets)
    target = load_profile(profile).with_budgets(asked).with_objective(objective)
    return target.with_layers(ignore, keep_float)


def tools_of(profile: Profile) -> Tools:
    """The profile's runtime and device, and all registered techniques.

    Raises:
        ProfileError: when there is no such runtime or device.
        PlanError: when no recipe would ever reach a technique.
    """
    runtime = runtime_of(profile)
    shelf = tuple(technique() for technique in techniques.TECHNIQUES)
    require_reachable(shelf)
    return Tools(runtime, device_of(profile, runtime), shelf)


def open_run(
    model: torch.nn.Module | str | Path,
    profile: Profile,
    data: Any = None,
    *,
    inputs: Any = None,
    outputs: str | Sequence[str] = (),
    dynamic: Any = None,
    output_kind: Declared = "",
    out: str | Path = DEFAULT_FOLDER,
    max_time: str | float | None = None,
    recipe: Any = None,
    resume: bool = False,
    named: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Run:
    """Check all inputs, export the model, and open the run's folder and record.

    `outputs` are those that ship, all where it is empty; `output_kind` says what they are. `dynamic` are the axes that
    must be free, see `DynamicAxes.parse`. `models` says what is done with modules and with files. `recipe` is how the
    user wants recovery to train.
    `named` are the texts that named the inputs, for `autocompress resolve` to find the data again.

    Raises:
        AutocompressError: when something given cannot be used.
    """
    deadline = Deadline.start(parse_duration(max_time))
    axes, own_training = DynamicAxes.parse(dynamic), load_recipe(recipe)
    given = as_model(model)
    names_of_layers = given.layer_names
    require_layers(names_of_layers, profile.ignore, "ignore")
    require_layers(names_of_layers, profile.keep_float, "keep_float")
    task = load_data(data) if isinstance(data, str) else as_task(data)
    if specs_in(inputs):
        # shapes in a call go before those of the profile, for timing too
        profile = profile.with_inputs(specs_in(inputs))
        inputs = profile.inputs
    fitted = given.fitted(task, inputs, profile.inputs, outputs)
    # what is read while the data are checked is not read again when it judges
    task = with_kept_items(fitted.task)
    sets = tuple(one_set for one_set in profile.input_sets.values() if one_set)
    example = _with_axes(fitted, replace(axes, varying=varying_axes(task, sets)))
    tools = tools_of(profile)
    require_described(tools.device, profile)
    workspace = Workspace(Path(out))
    builder = Builder(fitted.model, example, task, profile, tools, workspace, own_training)
    sweep_scratch()
    with scratch("baseline") as folder:
        # errors in model or data show here, before anything in the run's folder is changed
        builder.export_baseline(folder)
        require_free(task, builder.baseline)
        timed = timed_examples(builder.baseline, profile, example)
        preparation = (*fitted.preparation, *builder.baseline.remarks)
        # before the user's functions run, which may keep a state of their own
        if builder.has_module:
            example = builder.example = with_kinds(example, builder.module, task, output_kind)
        identity = identity_of(profile, task, builder.baseline, tools, example, own_training)
        said = () if task is None else try_functions(task, builder, Scorer(tools.device, profile, task))
        try_recipe(task, builder)
        check = check_data(task, builder.baseline, seconds_for_training_items(deadline))
        names = {"data": data, **(named or {})} if isinstance(data, str) else dict(named or {})
        workspace.make()
        with folder_lock(workspace.root):
            noted = inputs_of(profile, task, builder, tools, names)
            record = record_in(workspace, identity, noted, check, resume=resume)
            workspace.sweep()
        builder.keep_baseline()
    # a resumed run and other workers confirm on the items of the first one, however many training items they could read
    check = record.data_check or check
    for sentence in (*fitted.left_out, *told(task, sets), *said, *check.sentences):
        progress(Event("data", sentence))
    task = None if task is None else replace(task, left_out=check.left_out)
    record.release_dead_claims()
    measurer = Measurer(tools.device, profile, task, timed, builder.baseline)
    deadline = replace(deadline, spent_before=record.elapsed)
    run = Run(
        profile, task, example, tools, workspace, builder, measurer, record, deadline, progress, check, preparation
    )
    doubts = doubts_about_weights(builder.module) if builder.has_module else ()
    for sentence in (*preparation, *doubts):
        run.tell("baseline", sentence)
    return run


def _with_axes(fitted: Fitted, axes: DynamicAxes) -> Example:
    """The example that says which axes are to stay free in the exported file.

    Raises:
        UsageError: when there is no such axis, or the model is a file.
    """
    axes.require_in(fitted.example.arrays)
    if axes.declared is not None and fitted.model.module is None:
        raise UsageError(
            "the model is a file, whose free axes are those that it was exported with.",
            where="dynamic",
            hint="Leave dynamic= (--dynamic) out, or export the file anew.",
        )
    return replace(fitted.example, dynamic=axes)


def record_in(
    workspace: Workspace, identity: Mapping[str, str], inputs: RunInputs, check: DataCheck, *, resume: bool
) -> Record:
    """The run's record: the existing one when resuming, else a new one.

    A new one inherits the looks at the same holdout: those of the user's ledger and of earlier runs in the folder.

    Raises:
        RecordError: when another run is at work in the folder, or the one to resume was begun with other inputs.
    """
    if resume and workspace.journal.exists():
        earlier = open_record(workspace.journal)
        _require_schema(earlier, workspace.root)
        _require_same_run(earlier.identity, identity, workspace.root)
        earlier.own()
        return earlier
    looks = {one["what"]: one for one in (*looks_elsewhere(check.holdout_hash), *_looks_so_far(workspace, check))}
    workspace.open(resume=resume)
    # it gets its name only when it holds the run's identity, so that a start that is killed leaves no partial record
    unborn = workspace.root / f".{workspace.journal.name}{Worker.me().tag}"
    record = open_record(unborn)
    record.begin(identity, inputs, list(looks.values()), check)
    record.own()
    record.close()
    unborn.rename(workspace.journal)
    return open_record(workspace.journal)


def _looks_so_far(workspace: Workspace, check: DataCheck) -> Sequence[Mapping[str, Any]]:
    """Looks at the same holdout in earlier runs of this folder, whatever they were trained on.

    Raises:
        RecordError: when one of them is still at work.
    """
    path = workspace.newest_journal
    if path is None:
        return []
    earlier = open_record(path)
    found = earlier.data_check
    same = found is not None and found.holdout_hash == check.holdout_hash
    looks, busy = earlier.looks, earlier.busy
    earlier.close()
    if busy:
        raise RecordError(
            "another run is at work in this folder.",
            where=str(workspace.root),
            hint="Choose another --out, or join it with --resume.",
        )
    return looks if same else []


def inputs_of(
    profile: Profile, task: Task | None, builder: Builder, tools: Tools, names: Mapping[str, str]
) -> RunInputs:
    """The inputs that are needed to judge the run's files again without the model.

    `names` are the texts that named them.
    """
    machine = tools.device.machine()
    specs = (TensorSpec(name, str(array.dtype), array.shape) for name, array in builder.example.arrays.items())
    return RunInputs(
        profile.to_json(),
        machine.fingerprint,
        str(machine),
        [str(spec) for spec in specs],
        {"folder": str(Path.cwd()), **names},
    )


def identity_of(
    profile: Profile,
    task: Task | None,
    baseline: Artifact,
    tools: Tools,
    example: Example,
    recipe: TrainingRecipe | None = None,
) -> dict[str, str]:
    """The identity of a run: hashes of what must be equal to resume it.

    Of score, loss, augmentation and recipe the code counts, not the name. Kinds of outputs count, however they were
    found.
    """
    splits: Sequence[Any] = (task.validation, task.set_aside, task.calibration) if task else ()
    declared = json.dumps(
        [str(profile.device), str(profile.runtime), str(profile.protocol), profile.confidence]
        + [str(layers) for layers in (profile.ignore, profile.keep_float) if layers]
        # files are timed at these
        + [str(one_set) for one_set in profile.input_sets.values() if one_set]
    )
    return {
        "model": baseline.hash,
        "data": ",".join(split.hash for split in splits if split is not None),
        "profile": hashlib.sha256(declared.encode()).hexdigest()[:16],
        "budgets": "; ".join(map(str, profile.budgets)),
        "objective": profile.objective.name,
        "score": task.score_code if task else "",
        "loss": code_hash(task.loss) if task else "",
        "augmentation": code_hash(task.augment) if task else "",
        "recipe": recipe.identity if recipe else "",
        "output kinds": "; ".join(f"{name}: {fact.kind} {fact.axis}" for name, fact in example.kinds.items()),
        "machine": tools.device.machine().fingerprint,
        "versions": json.dumps(
            {**tools.runtime.versions, "python": platform.python_version(), "numpy": np.__version__}
        ),
    }


def _require_schema(record: Record, folder: Path) -> None:
    """Raise RecordError when another version of this package began the run."""
    if record.schema != SCHEMA:
        raise RecordError(
            f"has schema {record.schema}, this version reads {SCHEMA}.",
            where=str(folder),
            hint="Leave out --resume to start afresh (the old run is kept in previous/), or choose another --out.",
        )


def _require_same_run(noted: Mapping[str, str], identity: Mapping[str, str], folder: Path) -> None:
    """Raise RecordError unless model, data and profile are those that the record was begun with."""
    changed = [key for key in identity if noted.get(key, "") != identity[key]]
    if changed:
        raise RecordError(
            f"was begun with other inputs: {', '.join(changed)} changed.",
            where=str(folder),
            hint="Leave out --resume to start afresh (the old run is kept in previous/), or choose another --out.",
        )
