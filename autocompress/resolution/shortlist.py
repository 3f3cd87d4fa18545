"""The stored candidates of a run, judged by other budgets; what is lacking for that is measured on their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.core.budget import ACCURACY_METRICS
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Standing
from autocompress.errors import PlanError, RuntimeFailureError
from autocompress.evaluation.workbench import Workbench
from autocompress.resolution.stored_run import StoredRun, candidates
from autocompress.run.search import NEAREST, cost, distance, measurements
from autocompress.statistics.judging import judge_by
from autocompress.system.progress import Deadline, Event, Listener

# nothing more is measured for the selection after that, so that a minute suffices with the confirmation
MEASURING_SECONDS = 30.0
LATENCY_SECONDS = 5.0
WORDS = {"download_mb": "download size", "latency_ms": "latency", "score": "accuracy"}


@dataclass(eq=False)
class Shortlist:
    """Trials by their number, judged by the bench's profile. `quiet` measures nothing."""

    run: StoredRun
    bench: Workbench
    deadline: Deadline
    listener: Listener
    quiet: bool
    out_of_time: bool = False
    trials: dict[int, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for trial in candidates(self.run):
            try:
                cost(trial, self.bench)
            except PlanError as error:
                self._leave_out(trial, str(error))
                continue
            self.trials[trial.number] = self._judged(trial)

    def cheapest_first(self) -> list[Trial]:
        """Candidates that break no budget as far as is known; what is unknown counts as dear."""
        ones = [trial for trial in self.trials.values() if trial.outcome is Outcome.MEASURED]
        return sorted(ones, key=lambda trial: cost(trial, self.bench))

    def fill(self) -> None:
        """Measure what the budgets need and the journal lacks, most promising first, while there is time."""
        if self.quiet:
            return
        for trial in self.cheapest_first():
            if not self.lacking(trial) or self._dearer(trial):
                continue
            if self.deadline.spent > MEASURING_SECONDS:
                self.out_of_time = True
                break
            self._measure(trial, to_the_end=False)

    def lacking(self, trial: Trial) -> list[str]:
        """Readings that budgets or objective ask for and the trial lacks, cheapest first."""
        profile, task = self.bench.profile, self.bench.task
        timed = profile.limits("latency_ms", "throughput_per_s", "memory_mb")
        scored = profile.limits(*ACCURACY_METRICS) or profile.objective == "accuracy"
        wanted = {
            "download_mb": profile.limits("download_mb"),
            "latency_ms": timed or profile.objective in ("effort", "latency", "serving_cost"),
            "score": scored and task is not None and task.validation is not None,
        }
        return [name for name, asked in wanted.items() if asked and name not in trial.measurement.readings]

    def artifact(self, trial: Trial) -> Artifact | None:
        """The trial's file; a trial whose file does not hold any more is left out."""
        if trial.plan == Plan():
            return self.run.baseline
        artifact = self.run.artifact(trial)
        if artifact is None:
            self.trials.pop(trial.number, None)
        return artifact

    def nearest_miss(self) -> Trial | None:
        """The candidate that comes closest to the budgets, measured to the end if there is time."""
        ones = sorted(self.trials.values(), key=distance)
        # the model as it is only where nothing was made of it
        for trial in ([trial for trial in ones if trial.plan != Plan()] or ones)[:NEAREST]:
            if not self.quiet and not self.deadline.over:
                self._measure(trial, to_the_end=True)
        left = [trial for trial in self.trials.values() if trial.plan != Plan()] or list(self.trials.values())
        return min(left, key=distance, default=None)

    def _judged(self, trial: Trial) -> Trial:
        verdict = judge_by(self.bench.profile, trial.measurement)
        broken = next((finding for finding in verdict.findings if finding.standing is Standing.EXCEEDED), None)
        told = [broken] if broken is not None else verdict.findings
        return replace(
            trial,
            outcome=Outcome.MEASURED if broken is None else Outcome.STOPPED,
            verdict=verdict,
            stopped_by="" if broken is None else broken.budget.metric,
            reason="; ".join(f"{finding.budget.metric}: {finding.sentence}" for finding in told),
        )

    def _dearer(self, trial: Trial) -> bool:
        """True when a candidate that keeps the budgets costs no more, whatever would be measured of this one."""
        if self.bench.profile.objective not in ("effort", "size"):
            return False
        least = cost(trial, self.bench)[0]
        kept = (other for other in self.cheapest_first() if other.promising and not self.lacking(other))
        return any(cost(other, self.bench)[0] <= least for other in kept)

    def _measure(self, trial: Trial, *, to_the_end: bool) -> None:
        """Take what the trial lacks, cheapest measurement first, else up to the first broken budget."""
        artifact = self.artifact(trial) if self.lacking(trial) else None
        if artifact is None:
            return
        for name in self.lacking(trial):
            if name == "score" and self._too_long():
                self.out_of_time = True
                return
            self.listener(Event("search", f"measuring {WORDS[name]} of {trial.plan.brief}, as stored"))
            try:
                taken = self._ways(artifact)[name]()
            except RuntimeFailureError as error:
                self._leave_out(trial, str(error))
                return
            self._keep(trial, taken)
            trial = self._judged(replace(trial, measurement=trial.measurement.with_(taken)))
            self.trials[trial.number] = trial
            if trial.outcome is not Outcome.MEASURED and not to_the_end:
                return

    def _ways(self, artifact: Artifact) -> dict[str, Callable[[], Measurement]]:
        seconds = min(self.bench.profile.protocol.max_seconds, LATENCY_SECONDS)
        ways = dict(measurements(self.bench, artifact, seconds))
        # both sizes are taken together
        return {**ways, "download_mb": ways["size_mb"]}

    def _too_long(self) -> bool:
        """True when scoring, by what it took in the run, does not fit the time left."""
        took = [trial.seconds["accuracy"] for trial in self.run.trials if "accuracy" in trial.seconds]
        return bool(took) and self.deadline.left is not None and max(took) > self.deadline.left

    def _keep(self, trial: Trial, taken: Measurement) -> None:
        """Note what was measured, for the next budgets."""
        key = str(trial.number)

        def add(kept: dict[str, Any] | None) -> dict[str, Any]:
            before = Measurement.from_json(kept[key]) if kept and key in kept else Measurement()
            return {**(kept or {}), key: before.with_(taken).to_json()}

        self.run.journal.amend("measured_later", add)

    def _leave_out(self, trial: Trial, why: str) -> None:
        self.run.left_out.append(f"Trial {trial.number} ({trial.plan.brief}) is left out: {why}")
        self.trials.pop(trial.number, None)
