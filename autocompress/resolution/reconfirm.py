"""Confirms a stored file against other budgets, from earlier measurements where they hold."""

from __future__ import annotations

from collections.abc import Iterable

from autocompress.core.artifact import Artifact
from autocompress.core.budget import ACCURACY_METRICS, Budget
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.record import ConfirmationNote, Record
from autocompress.core.trial import Trial
from autocompress.core.verdict import Standing
from autocompress.evaluation.run import Run
from autocompress.run.confirm import Confirmation, Look, certify, take_look
from autocompress.run.looks import SpentLook, spend_look
from autocompress.statistics.accuracy import ScoreKind, score_kind
from autocompress.statistics.bounds import spend
from autocompress.statistics.judging import judge_by

TIMED = ("latency_ms", "throughput_per_s", "memory_mb", "energy_mj")
TIME_LIMITS = ("latency_ms", "throughput_per_s", "memory_mb")
SCORED = ("score", "answer", "label")


def confirm_stored(run: Run, plan: Plan, artifact: Artifact, *, quiet: bool) -> Confirmation:
    """Confirm a stored file on the holdout and in fresh runs, which took no part in choosing it.

    Scores of an earlier confirmation of the same file are judged again at that look's error probability: their bounds
    do not depend on the limit, so this is no further look; nor is reading on where it was stopped early. Times are
    measured again, unless they were measured for the same limits on time: measuring ends by where the limits lie, and
    to repeat it for the same limits until it passes would favour chance. `quiet` measures nothing: values that are not
    in the record stay unmeasured.

    Raises:
        RuntimeFailureError: when the file fails in the runtime now.
    """
    notes = [note for note in _notes(run.record, plan) if _is_same_file(note, artifact, run)]
    spent = next((_spent_look_of(note) for note in notes), SpentLook(0, (), ""))
    if not (spent.number or quiet):
        spent = spend_look(run, artifact)
    measurement = run.measurer.size(artifact)
    timed = next((note for note in notes if _time_limits(note) == _limits_on_time(run.profile.budgets)), None)
    fresh = False
    if timed is not None:
        measurement = measurement.with_(_readings_of(timed, TIMED))
    elif not quiet:
        fresh = True
        run.tell("confirm", f"fresh latency runs of {run.name_of(plan)}")
        measurement = measurement.with_(run.measurer.time(artifact, alpha=spend(run.profile.alpha, spent.number)))
    scored = next((note for note in notes if note.certificate["data"]), None)
    split = run.task.holdout if run.task else None
    look = None
    if scored is not None:
        look = _look_of(scored)
        measurement = measurement.with_(_readings_of(scored, SCORED))
    if split is not None and not quiet and (look is None or _goes_on(look, measurement, run)):
        fresh = True
        # a look that was stopped early is continued under its own number
        run.tell("confirm", f"accuracy on up to {len(split)} items that took no part in the selection")
        scores, look = take_look(run, artifact, split, spent)
        measurement = measurement.with_(scores)
    found = certify(run, plan, artifact, measurement, spent, look)
    if fresh:
        run.record.add_confirmation_for_other_budgets(plan, found.note)
    return found


def _spent_look_of(note: ConfirmationNote) -> SpentLook:
    certificate = note.certificate
    return SpentLook(certificate["look"], certificate["earlier_looks"], certificate["looks_warning"])


def _look_of(note: ConfirmationNote) -> Look:
    return Look(note.certificate["accuracy_error_probability"], note.certificate["data"])


def _goes_on(look: Look, measurement: Measurement, run: Run) -> bool:
    """True when a look did not read all items and leaves an accuracy budget undecided.

    Bounds that hold only when everything is read decide nothing earlier.
    """
    if look.data["read"] == look.data["items"]:
        return False
    asked = [budget for budget in run.profile.budgets if budget.metric in ACCURACY_METRICS]
    if any(score_kind(budget, measurement) is ScoreKind.OPEN for budget in asked):
        return True
    findings = judge_by(run.profile, measurement, look.level).findings
    return any(f.standing is Standing.UNDECIDED for f in findings if f.budget.metric in ACCURACY_METRICS)


def has_holdout_scores(record: Record, trial: Trial) -> bool:
    """True when the record has holdout scores of the trial's file."""
    certificates = [note.certificate for note in _notes(record, trial.plan)]
    return any(one["data"] and one["artifact_sha256"] == trial.artifact_hash for one in certificates)


def _notes(record: Record, plan: Plan) -> list[ConfirmationNote]:
    """The recorded confirmations of a plan, the latest first: those for other budgets, then the run's own."""
    own = record.confirmation(plan)
    return [*reversed(record.confirmations_for_other_budgets(plan)), *([own] if own is not None else [])]


def _is_same_file(note: ConfirmationNote, artifact: Artifact, run: Run) -> bool:
    """True when a confirmation is of this file, this baseline and these versions of the runtime."""
    certificate = note.certificate
    return bool(
        certificate["artifact_sha256"] == artifact.hash
        and certificate["baseline_sha256"] == run.baseline.hash
        and certificate["versions"] == dict(run.tools.runtime.versions)
    )


def _time_limits(note: ConfirmationNote) -> set[Budget]:
    """The limits on time and memory that a confirmation was measured for."""
    return _limits_on_time([finding.budget for finding in note.verdict.findings])


def _limits_on_time(budgets: Iterable[Budget]) -> set[Budget]:
    return {budget for budget in budgets if budget.metric in TIME_LIMITS}


def _readings_of(note: ConfirmationNote, metrics: tuple[str, ...]) -> Measurement:
    full = note.measurement
    readings = {name: reading for name, reading in full.readings.items() if name in metrics}
    baseline = {name: reading for name, reading in full.baseline.items() if name in metrics}
    smaller = full.smaller if metrics == TIMED else {}
    return Measurement(readings, baseline, full.conditions, full.unchanged, smaller)
