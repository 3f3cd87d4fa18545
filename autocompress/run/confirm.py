"""Confirmation: the winner measured again, on data and runs that took no part in choosing it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.record import Journal
from autocompress.core.source import Split
from autocompress.core.verdict import Standing, Verdict
from autocompress.errors import RuntimeFailureError
from autocompress.evaluation.workbench import Workbench
from autocompress.statistics.bootstrap import RESAMPLING_SEED
from autocompress.statistics.bounds import spend
from autocompress.statistics.judging import judge_by, look_until_clear
from autocompress.system.progress import Event, Listener

SCHEMA = 2
MAX_LOOKS = 4


@dataclass(frozen=True, eq=False)
class Confirmation:
    """A plan judged on what only confirms. `certificate` is the content of certificate.json."""

    plan: Plan
    artifact: Artifact
    measurement: Measurement
    verdict: Verdict
    certificate: Mapping[str, Any]

    @property
    def hopeless(self) -> bool:
        """True when only unmeasured budgets stand in the way: no other candidate can do better."""
        standings = {finding.standing for finding in self.verdict.findings}
        return Standing.UNMEASURED in standings and standings <= {Standing.MET, Standing.UNMEASURED}


def confirm(workbench: Workbench, plan: Plan, journal: Journal, listener: Listener) -> Confirmation:
    """Fresh latency runs, the size of the file, and the holdout.

    The look is written down before it is taken; the accuracy test of look k has error probability
    `spend(alpha, k)`, so that all looks together keep the profile's confidence.

    Raises:
        RuntimeFailureError: when the artifact fails in the runtime now.
    """
    artifact = workbench.build(plan)
    split = workbench.task.holdout if workbench.task else None
    listener(Event("confirm", f"fresh latency runs of {plan.brief}"))
    measurement = workbench.measure_size(artifact).with_(workbench.measure_time(artifact))
    look = None
    if split is not None:
        number = journal.spend_look(artifact.hash)
        listener(Event("confirm", f"accuracy on up to {len(split)} items that took no part in the selection"))
        scores, look = take_look(workbench, artifact, split, number)
        measurement = measurement.with_(scores)
    return certify(workbench, plan, artifact, measurement, journal, look)


@dataclass(frozen=True)
class Look:
    """A look at the holdout: its number in the ledger, what was read of which data, and the error probability
    that its bounds hold at."""

    number: int
    level: float
    data: Mapping[str, Any]


def take_look(workbench: Workbench, artifact: Artifact, split: Split, number: int) -> tuple[Measurement, Look]:
    """The scores of as many items as it takes to be clear about the accuracy budgets."""
    profile = workbench.profile
    scores, level = look_until_clear(
        profile,
        len(split),
        spend(profile.alpha, number),
        lambda count: workbench.measure_score(artifact, split.first(count)),
    )
    reading = scores.readings["score"]
    read = len(reading.samples) if reading.items is None else reading.items
    return scores, Look(number, level, {"part": split.name, "items": len(split), "read": read, "hash": split.hash})


def certify(
    workbench: Workbench,
    plan: Plan,
    artifact: Artifact,
    measurement: Measurement,
    journal: Journal,
    look: Look | None,
) -> Confirmation:
    """Judge a measurement that took no part in the selection, its accuracy at the level of its look.

    The bounds do not depend on the limits, so the same measurement may be judged against other budgets later.
    """
    profile = workbench.profile
    verdict = judge_by(profile, measurement, look.level if look else profile.alpha)
    certificate = {
        "schema": SCHEMA,
        "status": str(verdict.status),
        "issued": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "plan": plan.to_json(),
        "plan_hash": plan.hash,
        "profile": profile.name,
        "confidence": profile.confidence,
        "findings": [finding.to_json() for finding in verdict.findings],
        "artifact_sha256": artifact.hash,
        "baseline_sha256": workbench.baseline.hash,
        "data": dict(look.data) if look else None,
        "look": look.number if look else 0,
        "accuracy_error_probability": look.level if look else None,
        "candidates_tried": len(journal.trials()),
        "machine": str(workbench.machine),
        "machine_fingerprint": workbench.machine.fingerprint,
        "conditions": measurement.conditions.to_json() if measurement.conditions else None,
        "versions": dict(workbench.tools.runtime.versions),
        # what a plan's own steps draw is in the plan
        "seeds": {
            "loading": measurement.conditions.loading_seed if measurement.conditions else None,
            "resampling": RESAMPLING_SEED,
        },
    }
    return Confirmation(plan, artifact, measurement, verdict, certificate)


def remembered(workbench: Workbench, plan: Plan, journal: Journal) -> Confirmation | None:
    """The confirmation of this plan that an earlier sitting of the run noted, None when there is none."""
    noted = (journal.noted("confirmations") or {}).get(plan.hash)
    if noted is None:
        return None
    artifact = workbench.build(plan)
    if artifact.hash != noted["certificate"]["artifact_sha256"]:
        raise RuntimeFailureError(
            "is no longer the file that was confirmed; the plan builds to other bytes now.", where=str(artifact.path)
        )
    measurement = Measurement.from_json(noted["measurement"])
    return Confirmation(plan, artifact, measurement, Verdict.from_json(noted["verdict"]), noted["certificate"])


def remember(confirmation: Confirmation, journal: Journal) -> None:
    """Note a confirmation, so that a resumed run does not look at the holdout again. The first one stands."""
    journal.note_first("confirmations", confirmation.plan.hash, record_of(confirmation))


def record_of(confirmation: Confirmation) -> dict[str, Any]:
    """A confirmation as the journal keeps it."""
    return {
        "measurement": confirmation.measurement.to_json(),
        "verdict": confirmation.verdict.to_json(),
        "certificate": dict(confirmation.certificate),
    }
