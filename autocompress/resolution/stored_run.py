"""A run of earlier, opened again without its model: what the folder holds, checked before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.device import Device, require_described
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile, parse_profile
from autocompress.core.record import SCHEMA, Journal
from autocompress.core.runtime import Example, Runtime
from autocompress.core.task import Task
from autocompress.core.trial import Outcome, Trial
from autocompress.data.data_spec import DEFAULT_DATA_DIR, load_data, runs_code
from autocompress.data.example_inputs import as_task, made_up
from autocompress.errors import ArtifactError, AutocompressError, DataError, DeviceError, JournalError, UsageError
from autocompress.system.workspace import Workspace

AGAIN = "Run it again with this version of autocompress."


@dataclass(frozen=True, eq=False)
class StoredRun:
    """What a run left, and what does not hold any more: `left_out`, one sentence each."""

    workspace: Workspace
    journal: Journal
    runtime: Runtime
    profile: Profile
    facts: Facts
    example: Example
    baseline: Artifact
    measured: Measurement
    trials: tuple[Trial, ...]
    left_out: list[str] = field(default_factory=list)

    def artifact(self, trial: Trial) -> Artifact | None:
        """The trial's file, if it is there and still the one that was measured; else it is left out by name."""
        path = self.workspace.checkpoints / trial.plan.hash / "model.onnx"
        try:
            artifact = self.runtime.read(path)
        except ArtifactError as error:
            why = str(error)
        else:
            if artifact.hash == trial.artifact_hash:
                return artifact
            why = f"{path} is no longer the file that was measured."
        self.left_out.append(f"Trial {trial.number} ({trial.plan.brief}) is left out: {why}")
        return None


def open_stored(folder: Path, runtime: Runtime, device: Device) -> StoredRun:
    """The run in `folder`.

    Raises:
        UsageError, JournalError: when there is none, or none that this version can read.
        ArtifactError: when its baseline is gone or changed: nothing could be compared with it.
        DeviceError: when it was measured on another machine.
    """
    workspace = Workspace(folder)
    journal = _open_journal(workspace)
    try:
        _require_readable(journal, folder)
        profile = parse_profile(journal.noted("profile"), where=f"{workspace.journal}: profile")
        _require_same_machine(journal, profile, device)
        baseline = _baseline(workspace, journal, runtime)
        specs = [TensorSpec.parse(text, where=f"{workspace.journal}: example") for text in journal.noted("example")]
        measured, facts = journal.noted("baseline"), journal.noted("facts")
        trials = _trials(journal)
        return StoredRun(
            workspace,
            journal,
            runtime,
            profile,
            Facts.from_json(facts),
            made_up(specs),
            baseline,
            Measurement.from_json(measured),
            trials,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        journal.close()
        reason = f"{type(error).__name__}: {error}"
        raise JournalError(
            f"cannot be understood ({reason[:200]}).", where=str(workspace.journal), hint=AGAIN
        ) from error
    except BaseException:
        journal.close()
        raise


def _open_journal(workspace: Workspace) -> Journal:
    if not workspace.root.is_dir():
        raise UsageError("there is no such folder.", where=str(workspace.root), hint="Give the folder of a run.")
    path = workspace.journal
    # opening would make what is missing
    if not path.is_file():
        raise JournalError("holds no journal.db.", where=str(workspace.root), hint="Give the folder of a run.")
    if path.stat().st_size == 0:
        raise JournalError("is empty.", where=str(path), hint=AGAIN)
    return Journal(path)


def _require_readable(journal: Journal, folder: Path) -> None:
    schema, identity = journal.noted("schema"), journal.noted("identity")
    if identity is None:
        raise JournalError("is empty: no run has begun in it.", where=str(folder), hint="Give the folder of a run.")
    if schema is None:
        raise JournalError("was written before its runs could be resolved.", where=str(folder), hint=AGAIN)
    if schema != SCHEMA:
        raise JournalError(f"has schema {schema}, this version reads {SCHEMA}.", where=str(folder), hint=AGAIN)
    if journal.noted("baseline") is None or journal.noted("facts") is None:
        raise JournalError(
            "holds no measurements yet.", where=str(folder), hint="Go on with `autocompress run --resume`."
        )


def _require_same_machine(journal: Journal, profile: Profile, device: Device) -> None:
    machine = require_described(device, profile)
    noted: Mapping[str, str] = journal.noted("machine")
    if noted["fingerprint"] != machine.fingerprint:
        raise DeviceError(
            f"was measured on another machine ({noted['name']}, here {machine}).",
            where="the run",
            hint="Resolve it there, or run it again here.",
        )


def _baseline(workspace: Workspace, journal: Journal, runtime: Runtime) -> Artifact:
    baseline = runtime.read(workspace.checkpoints / Plan().hash / "model.onnx")
    if baseline.hash != journal.noted("identity")["model"]:
        raise ArtifactError("is not the baseline that the run measured.", where=str(baseline.path), hint=AGAIN)
    return baseline


def _trials(journal: Journal) -> tuple[Trial, ...]:
    """All trials, with what was measured after they had ended."""
    nearest = journal.noted("nearest_misses") or {}
    later = journal.noted("measured_later") or {}
    trials = []
    for trial in journal.trials():
        measurement = trial.measurement
        if str(trial.number) in nearest:
            measurement = Trial.from_json(trial.number, nearest[str(trial.number)]).measurement
        if str(trial.number) in later:
            measurement = measurement.with_(Measurement.from_json(later[str(trial.number)]))
        trials.append(replace(trial, measurement=measurement))
    return tuple(trials)


def candidates(run: StoredRun) -> list[Trial]:
    """Every plan that was built and measured, and the baseline as trial -1."""
    baseline = Trial(-1, Plan(), Outcome.MEASURED, run.measured, artifact_hash=run.baseline.hash)
    return [baseline, *(trial for trial in run.trials if trial.outcome in (Outcome.MEASURED, Outcome.STOPPED))]


def data_again(run: StoredRun, data: Any, data_dir: Path | None) -> tuple[Task | None, str]:
    """The run's data, and where they are not at hand the sentence that says why.

    `data` is whatever `autocompress` takes. Without it the data that the run named are loaded again, unless the
    name is one of Python code: a folder from elsewhere must not decide what runs here.

    Raises:
        DataError: when `data` are not the run's.
    """
    named = run.journal.noted("named")
    if data is not None:
        task = load_data(data, data_dir=data_dir) if isinstance(data, str) else as_task(data)
        difference = _difference(run, task)
        if difference:
            raise DataError(f"are not the data of the run: {difference}.", where="data", hint="Give the same data.")
        return task, ""
    spec = named.get("data")
    if spec is None:
        had_some = bool(run.journal.noted("identity")["data"])
        return None, "The data of the run came from Python: give them as data." if had_some else ""
    if runs_code(spec):
        return None, f"The data of the run are code, which is not run unasked: give --data {spec}."
    try:
        task = _load_named(spec, Path(named["folder"]), data_dir, named.get("data_dir"))
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
    """What tells a task from that of the run; empty when nothing does."""
    splits = [task.validation, task.holdout] if task is not None else []
    hashes = [split.hash for split in splits if split is not None]
    noted = run.journal.noted("identity")["data"].split(",")
    if not hashes or noted[: len(hashes)] != hashes:
        return "other items" if noted != [""] else "it had none"
    score = task.score_name if task is not None else ""
    return f"scored by {score}" if score != run.journal.noted("score") else ""
