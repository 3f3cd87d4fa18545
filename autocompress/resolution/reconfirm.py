"""Confirming a stored file against other budgets: what is known of it already is not looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.core.budget import ACCURACY_METRICS, Budget
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.record import Journal
from autocompress.core.trial import Trial
from autocompress.core.verdict import Standing, Verdict
from autocompress.evaluation.workbench import Workbench
from autocompress.run.confirm import Confirmation, Look, certify, record_of, take_look
from autocompress.statistics.judging import judge_by
from autocompress.system.progress import Event, Listener

# a note of its own: `run --resume` must find its confirmations judged by the run's budgets
NOTE = "resolved"
TIMED = ("latency_ms", "memory_mb", "energy_mj")
SCORED = ("score", "answer", "label")
Record = Mapping[str, Any]


def confirm_stored(
    workbench: Workbench, plan: Plan, artifact: Artifact, journal: Journal, listener: Listener, *, quiet: bool
) -> Confirmation:
    """A stored file judged on what took no part in choosing it.

    Scores of an earlier confirmation of the same file are judged again at that look's error probability: their
    bounds do not depend on the limit, so this is no further look; nor is reading on where it was stopped early. Times
    are taken afresh, unless they were taken for the same limits on time: measuring ends by where the limits lie, and
    to repeat it for the same limits until it passes would favour chance. `quiet` measures nothing: what is
    not noted stays unmeasured.

    Raises:
        RuntimeFailureError: when the file fails in the runtime now.
    """
    records = [r for r in _records(journal, plan) if _same_file(r, artifact, workbench)]
    measurement = workbench.measure_size(artifact)
    timed = next((r for r in records if _time_limits(r) == _limits_on_time(workbench.profile.budgets)), None)
    fresh = False
    if timed is not None:
        measurement = measurement.with_(_part_of(timed, TIMED))
    elif not quiet:
        fresh = True
        listener(Event("confirm", f"fresh latency runs of {plan.brief}"))
        measurement = measurement.with_(workbench.measure_time(artifact))
    scored = next((r for r in records if r["certificate"]["look"]), None)
    split = workbench.task.holdout if workbench.task else None
    look = None
    if scored is not None:
        look = _look_of(scored)
        measurement = measurement.with_(_part_of(scored, SCORED))
    if split is not None and not quiet and (look is None or _goes_on(look, measurement, workbench)):
        fresh = True
        # what was stopped early is the same look, read on
        number = journal.spend_look(artifact.hash) if look is None else look.number
        listener(Event("confirm", f"accuracy on up to {len(split)} items that took no part in the selection"))
        scores, look = take_look(workbench, artifact, split, number)
        measurement = measurement.with_(scores)
    found = certify(workbench, plan, artifact, measurement, journal, look)
    if fresh:
        _note(found, journal)
    return found


def _look_of(record: Record) -> Look:
    certificate = record["certificate"]
    return Look(certificate["look"], certificate["accuracy_error_probability"], certificate["data"])


def _goes_on(look: Look, measurement: Measurement, workbench: Workbench) -> bool:
    """True when not all items were read and those that were leave an accuracy budget open."""
    if look.data["read"] == look.data["items"]:
        return False
    findings = judge_by(workbench.profile, measurement, look.level).findings
    return any(f.standing is Standing.UNDECIDED for f in findings if f.budget.metric in ACCURACY_METRICS)


def confirmed_scores(journal: Journal, trial: Trial) -> bool:
    """True when the holdout scores of the trial's file are noted."""
    return any(
        record["certificate"]["look"] and record["certificate"]["artifact_sha256"] == trial.artifact_hash
        for record in _records(journal, trial.plan)
    )


def _records(journal: Journal, plan: Plan) -> list[Record]:
    """Confirmations of a plan, the latest first: those of earlier resolutions, then that of the run."""
    resolved = (journal.noted(NOTE) or {}).get(plan.hash, [])
    own = (journal.noted("confirmations") or {}).get(plan.hash)
    return [*reversed(resolved), *([own] if own is not None else [])]


def _note(found: Confirmation, journal: Journal) -> None:
    key, record = found.plan.hash, record_of(found)

    def add(noted: dict[str, Any] | None) -> dict[str, Any]:
        return {**(noted or {}), key: [*(noted or {}).get(key, []), record]}

    journal.amend(NOTE, add)


def _same_file(record: Record, artifact: Artifact, workbench: Workbench) -> bool:
    """True when the record is of this file beside this baseline, in these versions of the runtime."""
    certificate = record["certificate"]
    return bool(
        certificate["artifact_sha256"] == artifact.hash
        and certificate["baseline_sha256"] == workbench.baseline.hash
        and certificate["versions"] == dict(workbench.tools.runtime.versions)
    )


def _time_limits(record: Record) -> set[Budget]:
    """The limits on time that a record was measured for."""
    return _limits_on_time([finding.budget for finding in Verdict.from_json(record["verdict"]).findings])


def _limits_on_time(budgets: Iterable[Budget]) -> set[Budget]:
    return {budget for budget in budgets if budget.metric in ("latency_ms", "throughput_per_s")}


def _part_of(record: Record, metrics: tuple[str, ...]) -> Measurement:
    whole = Measurement.from_json(record["measurement"])
    readings = {name: reading for name, reading in whole.readings.items() if name in metrics}
    baseline = {name: reading for name, reading in whole.baseline.items() if name in metrics}
    return Measurement(readings, baseline, whole.conditions, whole.unchanged)
