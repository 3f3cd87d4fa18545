"""Opens an earlier run without its model; everything in its folder is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.data_check import DataCheck
from autocompress.core.device import Device, require_described
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile, parse_profile
from autocompress.core.record import SCHEMA, Record, RunInputs
from autocompress.core.runtime import Example, Runtime
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.trial import Outcome, Trial
from autocompress.data.data_spec import DEFAULT_DATA_DIR, load_data, runs_code
from autocompress.data.example_inputs import as_task, made_up
from autocompress.data.kept_items import with_kept_items
from autocompress.data.model_columns import for_inputs
from autocompress.data.repeated_items import examine
from autocompress.errors import (
    ArtifactError,
    AutocompressError,
    DataError,
    DeviceError,
    PlanError,
    RecordError,
    UsageError,
)
from autocompress.evaluation.artifacts import Artifacts
from autocompress.run.record_store import open_record
from autocompress.run.setup import tools_of
from autocompress.system.workspace import Workspace

AGAIN = "Run it again with this version of autocompress."


@dataclass(frozen=True, eq=False)
class StoredRun:
    """The contents of a finished run's folder."""

    workspace: Workspace
    record: Record
    tools: Tools
    profile: Profile
    facts: Facts
    example: Example
    baseline: Artifact
    measured: Measurement
    trials: tuple[Trial, ...]

    @property
    def candidates(self) -> list[Trial]:
        """All trials that were built and measured, and the baseline as trial -1."""
        baseline = Trial(-1, Plan(), Outcome.MEASURED, self.measured, artifact_hash=self.baseline.hash)
        return [baseline, *(one for one in self.trials if one.outcome in (Outcome.MEASURED, Outcome.STOPPED))]


class StoredArtifacts(Artifacts):
    """The files of a run, verified before use; `left_out` has a sentence for each missing or changed one."""

    def __init__(self, stored: StoredRun) -> None:
        self._stored = stored
        self.left_out: list[str] = []

    @property
    def baseline(self) -> Artifact:
        """See `Artifacts.baseline`."""
        return self._stored.baseline

    def find(self, plan: Plan) -> Artifact | None:
        """See `Artifacts.find`."""
        if plan == Plan():
            return self.baseline
        trial = next((trial for trial in self._stored.trials if trial.plan == plan), None)
        return None if trial is None else self.verified(trial)

    def trained(self, plan: Plan, seconds_left: Callable[[], float | None]) -> Plan:
        """See `Artifacts.trained`; stored plans are as they were trained."""
        return plan

    def build(self, plan: Plan) -> Artifact:
        """See `Artifacts.build`; only finds stored files, since nothing can be built."""
        found = self.find(plan)
        if found is None:
            raise PlanError("the model is not at hand, so nothing new can be built.", where="resolve")
        return found

    def verified(self, trial: Trial) -> Artifact | None:
        """The trial's file, if it is there and still the one that was measured; else None.

        A trial without its file is left out, with a sentence in `left_out`.
        """
        stored = self._stored
        path = stored.workspace.checkpoints / trial.plan.hash / f"model{stored.tools.runtime.suffix}"
        try:
            artifact = stored.tools.runtime.read(path)
        except ArtifactError as error:
            why = str(error)
        else:
            if artifact.hash == trial.artifact_hash:
                return artifact
            why = f"{path} is no longer the file that was measured."
        self.leave_out(trial, why)
        return None

    def leave_out(self, trial: Trial, why: str) -> None:
        """Add a sentence that a trial is left out, with the reason."""
        name = self._stored.tools.name_of(trial.plan)
        self.left_out.append(f"Trial {trial.number} ({name}) is left out: {why}")


def open_stored(folder: Path) -> StoredRun:
    """Open the run in `folder`.

    Raises:
        UsageError, RecordError: when there is none, or none that this version can read.
        ArtifactError: when its baseline is gone or changed: nothing could be compared with it.
        DeviceError: when it was measured on another machine.
    """
    workspace = Workspace(folder)
    record = _open_record(workspace)
    try:
        measured, facts = _require_readable(record, folder)
        inputs = record.inputs
        profile = parse_profile(inputs.profile, where=f"{workspace.journal}: profile")
        tools = tools_of(profile)
        _require_same_machine(inputs, profile, tools.device)
        baseline = _baseline(workspace, record, tools.runtime)
        specs = [TensorSpec.parse(text, where=f"{workspace.journal}: example") for text in inputs.example]
        trials = _trials(record)
        return StoredRun(workspace, record, tools, profile, facts, made_up(specs), baseline, measured, trials)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        record.close()
        reason = f"{type(error).__name__}: {error}"
        raise RecordError(
            f"cannot be understood ({reason[:200]}).", where=str(workspace.journal), hint=AGAIN
        ) from error
    except BaseException:
        record.close()
        raise


def _open_record(workspace: Workspace) -> Record:
    if not workspace.root.is_dir():
        raise UsageError("there is no such folder.", where=str(workspace.root), hint="Give the folder of a run.")
    path = workspace.journal
    # opening a missing file would create it
    if not path.is_file():
        raise RecordError("holds no journal.db.", where=str(workspace.root), hint="Give the folder of a run.")
    if path.stat().st_size == 0:
        raise RecordError("is empty.", where=str(path), hint=AGAIN)
    return open_record(path)


def _require_readable(record: Record, folder: Path) -> tuple[Measurement, Facts]:
    """The baseline's measurement and the facts of a run that this version can read."""
    schema = record.schema
    if not record.identity or schema is None:
        raise RecordError("is empty: no run has begun in it.", where=str(folder), hint="Give the folder of a run.")
    if schema != SCHEMA:
        raise RecordError(f"has schema {schema}, this version reads {SCHEMA}.", where=str(folder), hint=AGAIN)
    measured, facts = record.baseline, record.facts
    if measured is None or facts is None:
        raise RecordError(
            "holds no measurements yet.", where=str(folder), hint="Go on with `autocompress run --resume`."
        )
    return measured, facts


def _require_same_machine(inputs: RunInputs, profile: Profile, device: Device) -> None:
    machine = require_described(device, profile)
    if inputs.machine != machine.fingerprint:
        raise DeviceError(
            f"was measured on another machine ({inputs.machine_name}, here {machine}).",
            where="the run",
            hint="Resolve it there, or run it again here.",
        )


def _baseline(workspace: Workspace, record: Record, runtime: Runtime) -> Artifact:
    baseline = runtime.read(workspace.checkpoints / Plan().hash / f"model{runtime.suffix}")
    if baseline.hash != record.identity["model"]:
        raise ArtifactError("is not the baseline that the run measured.", where=str(baseline.path), hint=AGAIN)
    return baseline


def _trials(record: Record) -> tuple[Trial, ...]:
    """All trials, including measurements that were taken after they had ended."""
    nearest, later = record.nearest_misses, record.later_measurements
    trials = []
    for trial in record.trials():
        measurement = nearest[trial.number].measurement if trial.number in nearest else trial.measurement
        if trial.number in later:
            measurement = measurement.with_(later[trial.number])
        trials.append(replace(trial, measurement=measurement))
    return tuple(trials)


def checked_data(run: StoredRun, data: Any, data_dir: Path | None) -> tuple[Task | None, DataCheck, str]:
    """The run's data with what was found in them when it began, and a sentence on why they are missing.

    Items that did not confirm in the run do not confirm now. See `data_again`.
    """
    task, without = data_again(run, data, data_dir)
    task = with_kept_items(task)
    if task is None:
        return None, run.record.data_check or DataCheck(), without
    check = run.record.data_check or examine(task)
    return replace(task, left_out=check.left_out), check, without


def data_again(run: StoredRun, data: Any, data_dir: Path | None) -> tuple[Task | None, str]:
    """The run's data, or None and a sentence on why they are missing.

    `data` is whatever `autocompress` takes. Without it the data that the run named are loaded again, unless the
    name is one of Python code: a folder from elsewhere must not decide what runs here.

    Raises:
        DataError: when `data` are not the run's.
    """
    named = run.record.inputs.named
    if data is not None:
        task = load_data(data, data_dir=data_dir) if isinstance(data, str) else as_task(data)
        task = for_inputs(task, run.example.arrays)
        difference = _difference(run, task)
        if difference:
            raise DataError(f"are not the data of the run: {difference}.", where="data", hint="Give the same data.")
        return task, ""
    spec = named.get("data")
    if spec is None:
        had_some = bool(run.record.identity["data"])
        return None, "The data of the run came from Python: give them as data." if had_some else ""
    if runs_code(spec):
        return None, f"The data of the run are code, which is not run unasked: give --data {spec}."
    try:
        task = for_inputs(_load_named(spec, Path(named["folder"]), data_dir, named.get("data_dir")), run.example.arrays)
        difference = _difference(run, task)
    except AutocompressError as error:
        return None, f"The data of the run cannot be loaded again: {error}"
    if difference:
        return None, f"{spec} does not hold the data of the run any more: {difference}."
    return task, ""


def _load_named(spec: str, folder: Path, data_dir: Path | None, noted_dir: str | None) -> Task:
    # relative names start from where the run was started; absolute ones stay
    if spec.lower().endswith(".npz"):
        return load_data(str(folder / Path(spec).expanduser()))
    return load_data(spec, data_dir=data_dir or folder / Path(noted_dir or DEFAULT_DATA_DIR).expanduser())


def _difference(run: StoredRun, task: Task | None) -> str:
    """A text on how a task differs from that of the run; empty when it does not."""
    splits = [task.validation, task.set_aside] if task is not None else []
    hashes = [split.hash for split in splits if split is not None]
    noted = run.record.identity["data"].split(",")
    if not hashes or noted[: len(hashes)] != hashes:
        return "other items" if noted != [""] else "it had none"
    changed = task is not None and task.score_code != run.record.identity["score"]
    return "the score computes something else" if changed else ""
