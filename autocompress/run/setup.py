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
from autocompress.core.layer_patterns import require_layers
from autocompress.core.profile import Profile, load_profile
from autocompress.core.record import SCHEMA, Record, RunInputs
from autocompress.core.runtime import feeds, main_shape
from autocompress.core.source import whole
from autocompress.core.targets import Targets, rows_in
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.data.checked_items import CheckedItems
from autocompress.data.copies import as_compressed
from autocompress.data.data_spec import load_data
from autocompress.data.example_inputs import as_task, example_for
from autocompress.data.model_columns import for_model
from autocompress.data.preparation import prepared
from autocompress.data.repeated_items import TRAIN_SECONDS, find_repeats, hashed, require_stable
from autocompress.devices import device_of
from autocompress.errors import DataError, RecordError
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.measurer import Measurer
from autocompress.evaluation.run import Run
from autocompress.evaluation.scorer import Scorer
from autocompress.planner.tree import require_reachable
from autocompress.run.looks import looks_elsewhere
from autocompress.run.opening import try_functions
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

CHECKING_BATCH = 256
# share of the time left that looking for repeated items among the training items may take
SHARE_FOR_TRAINING_ITEMS = 0.1


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
    model: torch.nn.Module,
    profile: Profile,
    data: Any = None,
    *,
    inputs: Any = None,
    outputs: str | Sequence[str] = (),
    out: str | Path = DEFAULT_FOLDER,
    max_time: str | float | None = None,
    resume: bool = False,
    named: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Run:
    """Check all inputs, export the model, and open the run's folder and record.

    `outputs` are those that ship, all where it is empty. `prepared` and `as_compressed` say of which
    modules a copy is compressed.
    `named` are the texts that named the inputs, for `autocompress resolve` to find the data again.

    Raises:
        AutocompressError: when something given cannot be used.
    """
    deadline = Deadline.start(parse_duration(max_time))
    model, changed = prepared(model)
    names_of_layers = [name for name, _ in model.named_modules()]
    require_layers(names_of_layers, profile.ignore, "ignore")
    require_layers(names_of_layers, profile.keep_float, "keep_float")
    task = load_data(data) if isinstance(data, str) else as_task(data)
    task, left_out = for_model(task, model, inputs)
    example = example_for(model, task, inputs, profile.inputs, outputs)
    model, differing = as_compressed(model, example)
    preparation = (*changed, *differing)
    tools = tools_of(profile)
    require_described(tools.device, profile)
    workspace = Workspace(Path(out))
    builder = Builder(model, example, task, profile, tools, workspace)
    sweep_scratch()
    with scratch("baseline") as folder:
        # errors in model or data show here, before anything in the run's folder is changed
        builder.export_baseline(folder)
        # before the user's functions run, which may keep a state of their own
        identity = identity_of(profile, task, builder.baseline, tools)
        said = () if task is None else try_functions(task, builder, Scorer(tools.device, profile, task))
        check = check_data(task, builder.baseline, _seconds_for_training_items(deadline))
        names = {"data": data, **(named or {})} if isinstance(data, str) else dict(named or {})
        workspace.make()
        with folder_lock(workspace.root):
            given = inputs_of(profile, task, builder, tools, names)
            record = record_in(workspace, identity, given, check, resume=resume)
            workspace.sweep()
        builder.keep_baseline()
    # a resumed run and other workers confirm on the items of the first one, however many training items they could read
    check = record.data_check or check
    for sentence in (*left_out, *said, *check.sentences):
        progress(Event("data", sentence))
    task = None if task is None else replace(task, left_out=check.left_out)
    record.release_dead_claims()
    measurer = Measurer(tools.device, profile, task, example, builder.baseline)
    deadline = replace(deadline, spent_before=record.elapsed)
    run = Run(
        profile, task, example, tools, workspace, builder, measurer, record, deadline, progress, check, preparation
    )
    for sentence in (*preparation, *doubts_about_weights(model)):
        run.tell("baseline", sentence)
    return run


def check_data(task: Task | None, baseline: Artifact, seconds: float = TRAIN_SECONDS) -> DataCheck:
    """Read all test and validation items, to find errors and repeated items before any work.

    Nothing is scored. Training items are read for about `seconds`, only to find repeated ones.

    Raises:
        DataError: when shapes, dtypes or values do not fit the model, a label is none of its classes, an item has no
            token that counts, or test or validation items are others each time they are read.
    """
    if task is None:
        return DataCheck()
    outputs = main_shape(baseline)
    classes = outputs[1] if len(outputs) == 2 else None
    sources = hashed(task)
    for field, source in sources.items():
        require_stable(source, f"{task.name}: {field}")
        read = 0
        checked = CheckedItems(task, field, source, classes)
        for _, targets in feeds(whole(field, checked), baseline, CHECKING_BATCH):
            _require_counted(task, targets, f"{task.name}: {field}", read)
            read += rows_in(targets)
            if task.chooses_classes and classes is not None:
                # placeholder outputs will do, since only the labels are checked
                task.scores(np.zeros((rows_in(targets), classes), dtype=np.float32), targets)
    if task.train is not None:
        task = replace(task, train=CheckedItems(task, "train", task.train, classes))
    return find_repeats(task, sources, seconds)


def _require_counted(task: Task, targets: Targets, where: str, first: int) -> None:
    """Raise DataError when an item has no token that counts: its score would say nothing."""
    if task.score != "token_accuracy" or not isinstance(targets, np.ndarray) or targets.ndim < 2:
        return
    empty = np.flatnonzero((targets < 0).reshape(len(targets), -1).all(1))
    if len(empty):
        raise DataError(
            f"item {first + int(empty[0])} has no label that counts: all are below 0.",
            where=where,
            hint="Leave such items out; with score 0 before and after they would make every loss look smaller.",
        )


def _seconds_for_training_items(deadline: Deadline) -> float:
    left = deadline.left
    return TRAIN_SECONDS if left is None else min(TRAIN_SECONDS, SHARE_FOR_TRAINING_ITEMS * left)


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


def identity_of(profile: Profile, task: Task | None, baseline: Artifact, tools: Tools) -> dict[str, str]:
    """The identity of a run: hashes of what must be equal to resume it.

    Of score, loss and augmentation the code counts, not the name.
    """
    splits: Sequence[Any] = (task.validation, task.set_aside, task.calibration) if task else ()
    declared = json.dumps(
        [str(profile.device), str(profile.runtime), str(profile.protocol), profile.confidence]
        + [str(layers) for layers in (profile.ignore, profile.keep_float) if layers]
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
    changed = [key for key in identity if noted.get(key) != identity[key]]
    if changed:
        raise RecordError(
            f"was begun with other inputs: {', '.join(changed)} changed.",
            where=str(folder),
            hint="Leave out --resume to start afresh (the old run is kept in previous/), or choose another --out.",
        )
