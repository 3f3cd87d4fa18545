"""The CI gate: measures an artifact before it is deployed, and judges it.

Missing evidence never passes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.core.budget import ACCURACY_METRICS, TIME_METRICS, Direction, GateRule
from autocompress.core.device import require_described
from autocompress.core.measurement import Measurement
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, Runtime
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.verdict import Finding, Standing, Verdict
from autocompress.data.example_inputs import example_for, feed_of
from autocompress.data.input_shapes import timed_examples
from autocompress.data.item_lengths import require_free
from autocompress.data.kept_items import with_kept_items
from autocompress.data.model_columns import for_inputs
from autocompress.data.repeated_items import require_stable
from autocompress.devices import device_of
from autocompress.errors import ArtifactError, AutocompressError, FreeDimensionError, UsageError
from autocompress.evaluation.measurer import Measurer
from autocompress.runtimes import runtime_of
from autocompress.statistics.judging import decide_again, judge_by, look_until_clear
from autocompress.statistics.prediction_flips import PredictionFlips, prediction_flips_of

SCHEMA = 3
# how many tensors or operators are named when a budget is broken
NAMED = 3
# metrics that are taken while calls are timed
TIMED = (*TIME_METRICS, "memory_mb")


class Grade(StrEnum):
    """The grade of a finding at the gate."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Graded:
    """A finding with its grade, the rule behind it, and the cause of a broken budget."""

    finding: Finding
    rule: GateRule
    grade: Grade
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """The graded finding as a JSON object."""
        return {
            **self.finding.to_json(),
            "margin": margin(self.finding),
            "severity": self.rule.severity,
            "on_undecided": self.rule.on_undecided,
            "message": self.rule.message,
            "grade": str(self.grade),
            "why": self.why,
        }


@dataclass(frozen=True, eq=False)
class Check:
    """An artifact judged against one profile's budgets; `notes` are sentences beside the findings."""

    profile: str
    confidence: float
    artifact: Artifact
    baseline: Artifact | None
    measurement: Measurement
    graded: tuple[Graded, ...]
    machine: str
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The findings as a verdict."""
        return Verdict(tuple(one.finding for one in self.graded))

    @property
    def prediction_flips(self) -> PredictionFlips | None:
        """The prediction flips between artifact and baseline, None where they cannot be told."""
        return prediction_flips_of(self.measurement)

    @property
    def exit_code(self) -> int:
        """The exit code: 0 when there are findings and none failed, 1 for a broken budget, 3 for an open one."""
        failed = [one.finding.standing for one in self.graded if one.grade is Grade.FAILED]
        if Standing.EXCEEDED in failed:
            return 1
        return 3 if failed or not self.graded else 0

    def to_json(self) -> dict[str, Any]:
        """The check as a JSON object, as in docs/check.schema.json."""
        conditions = self.measurement.conditions
        return {
            "artifact": str(self.artifact.path),
            "artifact_sha256": self.artifact.hash,
            "baseline_sha256": self.baseline.hash if self.baseline else None,
            "profile": self.profile,
            "confidence": self.confidence,
            "machine": self.machine,
            "exit_code": self.exit_code,
            "status": str(self.verdict.status),
            "findings": [one.to_json() for one in self.graded],
            "prediction_flips": self.prediction_flips.to_json() if self.prediction_flips else None,
            "conditions": conditions.to_json() if conditions else None,
            "notes": list(self.notes),
        }


def margin(finding: Finding) -> float | None:
    """The distance of the deciding bound from the limit, as a share of the limit; negative beyond it."""
    at_most = finding.budget.direction is Direction.AT_MOST
    bound = finding.high if at_most else finding.low
    if bound is None or finding.limit == 0:
        return None
    left = (finding.limit - bound) / abs(finding.limit)
    return left if at_most else -left


def grade_of(finding: Finding, rule: GateRule) -> Grade:
    """The grade of a finding: only findings that are met pass without a warning."""
    if finding.standing is Standing.MET:
        return Grade.PASSED
    lenient = rule.severity == "warn" or (finding.standing is Standing.UNDECIDED and rule.on_undecided == "warn")
    return Grade.WARNING if lenient else Grade.FAILED


def tools_without_techniques(profile: Profile) -> Tools:
    """The profile's runtime and device, without techniques, which take time to load and are not used here.

    Raises:
        ProfileError: when there is no such runtime or device.
        DeviceError: when the machine is not the profile's.
    """
    runtime = runtime_of(profile)
    device = device_of(profile, runtime)
    require_described(device, profile)
    return Tools(runtime, device, ())


@dataclass(frozen=True, eq=False)
class Gauge:
    """Measures a file on the profile's device, at the shapes that profile, data and file itself give.

    `unsized` says why nothing can be timed: a free dimension whose size none of them gives; else it is empty.
    """

    measurer: Measurer
    examples: Mapping[str, Example | None]
    unsized: str = ""

    @staticmethod
    def of(profile: Profile, tools: Tools, task: Task | None, artifact: Artifact, baseline: Artifact | None) -> Gauge:
        """A gauge of the artifact, beside the baseline where there is one.

        Raises:
            UsageError: when a shape in the profile's inputs does not fit the file.
            DataError: when the data do not fit it.
        """
        data = example_for(None, task, None, ()) if task is not None else None
        examples: Mapping[str, Example | None] = {"": None}
        unsized = ""
        try:
            examples = timed_examples(artifact, profile, data, baseline)
        except FreeDimensionError as error:
            unsized = error.message
        return Gauge(Measurer(tools.device, profile, task, examples, baseline), examples, unsized)

    def measure(self, artifact: Artifact, also: Collection[str] = ()) -> Measurement:
        """Measure the artifact's size and, where its inputs have sizes, latency, memory and energy.

        What is named in `also` is measured as if it had a budget.

        Raises:
            RuntimeFailureError: when the artifact fails in the runtime.
        """
        timed = Measurement() if self.unsized else self.measurer.time(artifact, also=also)
        return timed.with_(self.measurer.size(artifact))

    def explain(self, finding: Finding) -> Finding:
        """The finding, with the reason where it is one on what could not be timed."""
        if not self.unsized or finding.standing is not Standing.UNMEASURED or finding.budget.metric not in TIMED:
            return finding
        return replace(finding, sentence=f"{finding.budget.metric.split('_')[0]} was not measured: {self.unsized}")


def check(
    artifact: Artifact,
    baseline: Artifact | None,
    profile: Profile,
    tools: Tools,
    task: Task | None,
    certified: Certified | None = None,
) -> Check:
    """Measure and judge an artifact.

    Accuracy may use all test items: nothing was chosen with them here. Without data a certificate of the same file,
    machine and versions stands in for accuracy.

    Raises:
        DataError: when the data do not fit the artifact, or are others each time they are read.
        DeviceError, RuntimeFailureError: when it cannot be measured.
    """
    task = for_inputs(task, {spec.name for file in (artifact, baseline) if file is not None for spec in file.inputs})
    for file in (artifact, baseline):
        if file is not None:
            require_free(task, file)
    task = with_kept_items(task)
    gauge = Gauge.of(profile, tools, task, artifact, baseline)
    machine = tools.device.machine()
    measurement = gauge.measure(artifact)
    level = profile.alpha
    if task is not None and task.test is not None:
        require_stable(task.test, f"{task.name}: test")
        split = task.everything
        scores, level = look_until_clear(
            profile, len(split), profile.alpha, lambda count: gauge.measurer.score(artifact, split.first(count))
        )
        measurement = measurement.with_(scores)
    verdict = judge_by(profile, measurement, level)
    notes = []
    if certified is not None and "score" not in measurement.readings:
        void = certified.void(profile, tools.runtime, machine.fingerprint)
        notes = [void] if void else []
        verdict = verdict if void else Verdict(tuple(_or_certified(one, certified) for one in verdict.findings))
    verdict = Verdict(tuple(map(gauge.explain, verdict.findings)))
    spots = _HotSpots.of(verdict, artifact, profile, tools, gauge.examples)
    graded = tuple(
        Graded(finding, rule, grade_of(finding, rule), _why(finding, spots, measurement))
        for finding in verdict.findings
        for rule in [profile.rule(finding.budget.metric)]
    )
    return Check(profile.name, profile.confidence, artifact, baseline, measurement, graded, str(machine), tuple(notes))


def _or_certified(finding: Finding, certified: Certified) -> Finding:
    open_accuracy = finding.standing is Standing.UNMEASURED and finding.budget.metric in ACCURACY_METRICS
    return certified.finding(finding) if open_accuracy else finding


@dataclass(frozen=True, eq=False)
class Certified:
    """A verified certificate of the file at hand; `where` is the file it was read from."""

    verdict: Verdict
    confidence: float
    issued: str
    versions: Mapping[str, str]
    where: str

    @staticmethod
    def verify(content: Any, where: str, artifact: Artifact, baseline: Artifact | None) -> Certified:
        """Verify that the content is a certificate of this file whose budgets were met.

        Raises:
            ArtifactError: when it is of another file or another baseline.
            UsageError: when it is no certificate, or says that the budgets were not met.
        """
        try:
            issued_for, compared_with = str(content["artifact_sha256"]), str(content["baseline_sha256"])
            status, issued = content["status"], str(content["issued"])
            verdict = Verdict.from_json({"findings": content["findings"]})
            confidence = float(content["confidence"])
            versions = {**content["versions"], "machine": content["machine_fingerprint"]}
        except (KeyError, TypeError, ValueError, AttributeError, AutocompressError):
            raise UsageError("is no certificate of this version of autocompress.", where=where) from None
        if issued_for != artifact.hash:
            raise ArtifactError(
                f"is not the file that {where} vouches for (sha256 {artifact.hash[:12]}, there {issued_for[:12]}).",
                where=str(artifact.path),
                hint="Compress again, or give the certificate of this file.",
            )
        if baseline is not None and compared_with != baseline.hash:
            raise ArtifactError(
                f"is not the baseline that {where} compares with.",
                where=str(baseline.path),
                hint="Give baseline.onnx of the same run.",
            )
        if status != "met":
            raise UsageError(f"says {status!r} of {issued}: it certifies nothing.", where=where)
        return Certified(verdict, confidence, issued, versions, where)

    def void(self, profile: Profile, runtime: Runtime, fingerprint: str) -> str:
        """A text on why the certificate does not show what the profile asks for; empty when it does."""
        if self.confidence < profile.confidence:
            return (
                f"{self.where} was certified at {self.confidence:g}, the profile asks {profile.confidence:g}: "
                "measure accuracy again with --data."
            )
        now = {**runtime.versions, "machine": fingerprint}
        changed = [
            f"{name} {then}, now {now.get(name)}" for name, then in self.versions.items() if now.get(name) != then
        ]
        return f"{self.where} is stale ({'; '.join(changed)}): measure accuracy again with --data." if changed else ""

    def finding(self, unmeasured: Finding) -> Finding:
        """The certificate's finding on an accuracy budget that was not measured now."""
        earlier = self.verdict.of(unmeasured.budget.metric)
        if earlier is None:
            return unmeasured
        return decide_again(unmeasured.budget, earlier, f"certified on {self.issued}")


@dataclass(frozen=True)
class _HotSpots:
    """Texts on where an artifact's time and bytes go; empty where no budget on them is broken."""

    time: str = ""
    size: str = ""

    @staticmethod
    def of(
        verdict: Verdict, artifact: Artifact, profile: Profile, tools: Tools, examples: Mapping[str, Example | None]
    ) -> _HotSpots:
        broken = [f.budget for f in verdict.findings if f.standing is Standing.EXCEEDED and f.budget.structural]
        time = size = ""
        if any(budget.metric in TIME_METRICS for budget in broken):
            # where budgets at several input shapes are broken, those at the largest of them
            shapes = next(f.shapes for f in reversed(verdict.findings) if _breaks_time(f))
            inputs = feed_of(artifact, examples[shapes], profile.protocol.batch)
            slowest = tools.device.slowest_operators(artifact, profile, inputs)
            named = [f"{kind} {name} {share:.0%}" for name, kind, share in slowest[:NAMED]]
            time = f"slowest operators: {', '.join(named)}"
        if any(budget.metric not in TIME_METRICS for budget in broken):
            named = [f"{name}: {count / 1e6:.3g} MB" for name, count in tools.runtime.largest_tensors(artifact)[:NAMED]]
            size = f"largest tensors: {'; '.join(named)}"
        return _HotSpots(time, size)


def _breaks_time(finding: Finding) -> bool:
    return finding.standing is Standing.EXCEEDED and finding.budget.metric in TIME_METRICS


def _why(finding: Finding, spots: _HotSpots, measurement: Measurement) -> str:
    if finding.standing is not Standing.EXCEEDED:
        return ""
    metric = finding.budget.metric
    if finding.budget.structural:
        return spots.time if metric in TIME_METRICS else spots.size
    changes = prediction_flips_of(measurement)
    return str(changes) if changes is not None else ""


def worst(checks: Sequence[Check]) -> int:
    """The exit code of several checks: a broken budget comes before an open one."""
    codes = {one.exit_code for one in checks}
    return next((code for code in (1, 3) if code in codes), 0 if codes else 3)
