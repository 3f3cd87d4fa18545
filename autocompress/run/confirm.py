"""Confirmation: measures the winner again, on data and in runs that took no part in choosing it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.record import ConfirmationNote
from autocompress.core.source import Split
from autocompress.core.verdict import Standing, Status, Verdict
from autocompress.errors import RuntimeFailureError
from autocompress.evaluation.run import Run
from autocompress.run.looks import SpentLook, spend_look
from autocompress.run.reserve import CONFIRMATION_SHARE, seconds_for_measuring
from autocompress.statistics.bootstrap import RESAMPLING_SEED
from autocompress.statistics.bounds import spend
from autocompress.statistics.judging import judge_by, look_until_clear
from autocompress.system.locks import folder_lock

SCHEMA = 3
MAX_LOOKS = 4


@dataclass(frozen=True, eq=False)
class Confirmation:
    """A plan judged on the holdout. `certificate` is the content of certificate.json."""

    plan: Plan
    artifact: Artifact
    measurement: Measurement
    verdict: Verdict
    certificate: Mapping[str, Any]

    @property
    def hopeless(self) -> bool:
        """True when only unmeasured budgets prevent the answer, so that no other candidate can do better."""
        standings = {finding.standing for finding in self.verdict.findings}
        return Standing.UNMEASURED in standings and standings <= {Standing.MET, Standing.UNMEASURED}

    @property
    def is_final(self) -> bool:
        """True when no further confirmation makes sense."""
        return self.verdict.status is Status.MET or self.hopeless

    @property
    def note(self) -> ConfirmationNote:
        """The confirmation as the record keeps it."""
        return ConfirmationNote(self.measurement, self.verdict, self.certificate)


def confirm_in_order(
    plans: Iterable[Plan],
    confirmed: Callable[[Plan], Confirmation | None],
    so_far: Sequence[Confirmation] = (),
) -> list[Confirmation]:
    """Confirm plans in order until one is met or no further look at the holdout makes sense.

    Returns all confirmations, those `so_far` included. `confirmed` returns None for a plan that cannot be confirmed.
    """
    confirmations = list(so_far)
    remaining = iter(plans)
    # asked before the next plan is taken: a search builds and measures to hand one out
    while len(confirmations) < MAX_LOOKS and not is_answered(confirmations):
        plan = next(remaining, None)
        if plan is None:
            break
        found = confirmed(plan)
        if found is not None:
            confirmations.append(found)
    return confirmations


def is_answered(confirmations: Sequence[Confirmation]) -> bool:
    """True when one of the confirmations ends the run."""
    return any(found.is_final for found in confirmations)


def confirm_once(run: Run, plan: Plan) -> Confirmation:
    """The confirmation of a plan, made now unless this or another worker made it before.

    Raises:
        RuntimeFailureError: as `confirm`.
    """
    # another worker may be confirming the same plan now: its verdict then counts
    with folder_lock(run.workspace.checkpoints, lambda: run.tell("confirm", "waiting for another worker")):
        found = _noted(run, plan)
        if found is None:
            found = confirm(run, plan)
            run.record.keep_confirmation(plan, found.note)
        return found


def confirm(run: Run, plan: Plan) -> Confirmation:
    """Confirm a plan by fresh latency runs, the size of its file, and its scores on the holdout.

    The look is written to the ledger and the record before it is taken; each bound of look k, on time as on accuracy,
    has error probability `spend(alpha, k)`, so that all looks together keep the profile's confidence.

    Raises:
        RuntimeFailureError: when the artifact fails in the runtime now.
    """
    artifact = run.artifacts.build(plan)
    split = run.task.holdout if run.task else None
    spent = spend_look(run, artifact)
    run.tell("confirm", f"fresh latency runs of {run.name_of(plan)}")
    seconds = seconds_for_measuring(run, CONFIRMATION_SHARE)
    taken = run.measurer.time(artifact, seconds, alpha=spend(run.profile.alpha, spent.number))
    measurement = run.measurer.size(artifact).with_(taken)
    look = None
    if split is not None:
        run.tell("confirm", f"accuracy on up to {len(split)} items that took no part in the selection")
        scores, look = take_look(run, artifact, split, spent)
        measurement = measurement.with_(scores)
    return certify(run, plan, artifact, measurement, spent, look)


@dataclass(frozen=True)
class Look:
    """A look at the holdout, the scoring of one file on it.

    `level` is the error probability of its bounds, `data` what was read of which split.
    """

    level: float
    data: Mapping[str, Any]


def take_look(run: Run, artifact: Artifact, split: Split, spent: SpentLook) -> tuple[Measurement, Look]:
    """Score as many holdout items as needed to decide the accuracy budgets."""
    profile = run.profile
    scores, level = look_until_clear(
        profile,
        len(split),
        spend(profile.alpha, spent.number),
        lambda count: run.measurer.score(artifact, split.first(count)),
    )
    reading = scores.readings["score"]
    read = len(reading.samples) if reading.items is None else reading.items
    return scores, Look(level, {"split": split.name, "items": len(split), "read": read, "hash": split.hash})


def certify(
    run: Run, plan: Plan, artifact: Artifact, measurement: Measurement, spent: SpentLook, look: Look | None
) -> Confirmation:
    """Judge a measurement that took no part in the selection.

    It is judged at the level of the look that was spent on it, its accuracy at the level at which that look ended.
    Number 0 means that none was.

    The bounds do not depend on the limits, so the same measurement may be judged against other budgets later.
    """
    profile = run.profile
    level = spend(profile.alpha, max(1, spent.number))
    verdict = judge_by(profile.at_level(level), measurement, look.level if look else level)
    certificate = {
        "schema": SCHEMA,
        "status": str(verdict.status),
        "issued": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "plan": plan.to_json(),
        "plan_hash": plan.hash,
        "plan_name": run.name_of(plan),
        "profile": profile.name,
        "confidence": profile.confidence,
        "findings": [finding.to_json() for finding in verdict.findings],
        "artifact_sha256": artifact.hash,
        "baseline_sha256": run.baseline.hash,
        "data": dict(look.data) if look else None,
        "ranges_from": run.ranges_from(plan) or None,
        "look": spent.number,
        "earlier_looks": [dict(one) for one in spent.earlier],
        "looks_warning": spent.warning,
        "error_probability": level,
        "accuracy_error_probability": look.level if look else None,
        "candidates_tried": len(run.record.trials()),
        "machine": str(run.machine),
        "machine_fingerprint": run.machine.fingerprint,
        "conditions": measurement.conditions.to_json() if measurement.conditions else None,
        "versions": dict(run.tools.runtime.versions),
        # seeds of the plan's own steps are in the plan
        "seeds": {
            "loading": measurement.conditions.loading_seed if measurement.conditions else None,
            "resampling": RESAMPLING_SEED,
        },
    }
    return Confirmation(plan, artifact, measurement, verdict, certificate)


def _noted(run: Run, plan: Plan) -> Confirmation | None:
    """The confirmation of this plan in the record, None when there is none."""
    note = run.record.confirmation(plan)
    if note is None:
        return None
    artifact = run.artifacts.build(plan)
    if artifact.hash != note.certificate["artifact_sha256"]:
        raise RuntimeFailureError(
            "is no longer the file that was confirmed; the plan builds to other bytes now.", where=str(artifact.path)
        )
    return Confirmation(plan, artifact, note.measurement, note.verdict, note.certificate)
