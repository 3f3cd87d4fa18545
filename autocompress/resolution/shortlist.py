"""The stored candidates of a run, judged by other budgets; missing values are measured on their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from autocompress.core.artifact import Artifact
from autocompress.core.budget import ACCURACY_METRICS
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Standing
from autocompress.errors import ENDS_THE_RUN, PlanError
from autocompress.evaluation.run import Run
from autocompress.resolution.stored_run import StoredArtifacts
from autocompress.run.search import distance, measurements, nearest_miss
from autocompress.statistics.bounds import least_values
from autocompress.statistics.judging import judge_by

# no measurement for the selection begins after so many seconds, so that a minute suffices with the confirmation
MEASURING_SECONDS = 30.0
LATENCY_SECONDS = 5.0
WORDS = {"download_mb": "download size", "latency_ms": "latency", "score": "accuracy"}


@dataclass(eq=False)
class Shortlist:
    """Trials by their number, judged by the new budgets; with `quiet` nothing is measured.

    `stored` are the trials of the run with everything in the record about them; `artifacts` gives their files.
    """

    run: Run
    stored: Sequence[Trial]
    artifacts: StoredArtifacts
    quiet: bool
    out_of_time: bool = False
    trials: dict[int, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for trial in self.stored:
            try:
                self.run.cost(trial)
            except PlanError as error:
                self.leave_out(trial, str(error))
                continue
            self.trials[trial.number] = self._judged(trial)

    def cheapest_first(self) -> list[Trial]:
        """Candidates not known to break a budget, the cheapest first; unknown costs count as infinite."""
        ones = [trial for trial in self.trials.values() if trial.outcome is Outcome.MEASURED]
        return sorted(ones, key=self.run.cost)

    def fill(self) -> None:
        """Measure what the budgets need and the record lacks, while there is time.

        The most promising trials come first.
        """
        if self.quiet:
            return
        for trial in self.cheapest_first():
            if not self.lacking(trial) or self._is_dearer(trial):
                continue
            if self.run.deadline.spent > MEASURING_SECONDS:
                self.out_of_time = True
                break
            self._measure(trial, to_the_end=False)

    def lacking(self, trial: Trial) -> list[str]:
        """Readings that budgets or objective ask for and the trial lacks, cheapest first."""
        profile, task = self.run.profile, self.run.task
        needed = profile.objective.needs
        timed = profile.limits("latency_ms", "throughput_per_s", "memory_mb")
        wanted = {
            "download_mb": profile.limits("download_mb"),
            "latency_ms": timed or "latency_ms" in needed,
            "score": (profile.limits(*ACCURACY_METRICS) or "score" in needed)
            and task is not None
            and task.validation is not None,
        }
        lacks = {name for name in wanted if name not in trial.measurement.readings}
        memory = trial.measurement.readings.get("memory_mb")
        if profile.limits("memory_mb") and (memory is None or len(memory.samples) < least_values(profile.alpha)):
            # without a budget it is taken once, which is too few to judge it; it is taken together with latency
            lacks.add("latency_ms")
        if profile.limits("throughput_per_s") and "throughput_per_s" not in trial.measurement.readings:
            lacks.add("latency_ms")
        return [name for name, asked in wanted.items() if asked and name in lacks]

    def artifact(self, trial: Trial) -> Artifact | None:
        """The trial's file; a trial whose file is missing or changed is left out."""
        if trial.plan == Plan():
            return self.run.baseline
        artifact = self.artifacts.verified(trial)
        if artifact is None:
            self.trials.pop(trial.number, None)
        return artifact

    def nearest_miss(self) -> Trial | None:
        """The candidate that comes closest to the budgets, measured to the end if there is time."""
        # the unchanged model counts only where there is no other candidate
        ones = [trial for trial in self.trials.values() if trial.plan != Plan()] or list(self.trials.values())
        nearest_miss(ones, self._measured_to_the_end)
        # trials with missing or changed files were left out meanwhile
        left = [trial for trial in self.trials.values() if trial.plan != Plan()] or list(self.trials.values())
        nearest = min(left, key=distance, default=None)
        # a trial whose file is gone is no answer: its figures would be shown with another file
        return None if nearest is None or self.artifact(nearest) is None else nearest

    def _measured_to_the_end(self, trial: Trial) -> Trial:
        if not self.quiet and not self.run.deadline.over:
            self._measure(trial, to_the_end=True)
        return self.trials.get(trial.number, trial)

    def _judged(self, trial: Trial) -> Trial:
        verdict = judge_by(self.run.profile, trial.measurement)
        broken = next((finding for finding in verdict.findings if finding.standing is Standing.EXCEEDED), None)
        told = [broken] if broken is not None else verdict.findings
        return replace(
            trial,
            outcome=Outcome.MEASURED if broken is None else Outcome.STOPPED,
            verdict=verdict,
            stopped_by="" if broken is None else broken.budget.metric,
            reason="; ".join(f"{finding.name}: {finding.sentence}" for finding in told),
        )

    def _is_dearer(self, trial: Trial) -> bool:
        """True when a candidate that keeps the budgets costs no more, whatever this trial's measurements show."""
        if not self.run.objective.known_unmeasured:
            return False
        least = self.run.cost(trial)[0]
        kept = (other for other in self.cheapest_first() if other.promising and not self.lacking(other))
        return any(self.run.cost(other)[0] <= least for other in kept)

    def _measure(self, trial: Trial, *, to_the_end: bool) -> None:
        """Measure what the trial lacks, cheapest first, up to the first broken budget unless `to_the_end`."""
        artifact = self.artifact(trial) if self.lacking(trial) else None
        if artifact is None:
            return
        for name in self.lacking(trial):
            if name == "score" and self._takes_too_long():
                self.out_of_time = True
                return
            self.run.tell("search", f"measuring {WORDS[name]} of {self.run.name_of(trial.plan)}, as stored")
            try:
                taken = self._measurements(artifact)[name]()
            except ENDS_THE_RUN:
                raise
            except Exception as error:  # noqa: BLE001 - the other files are still there
                self.leave_out(trial, self.run.failed(f"measuring {trial.plan}", error))
                return
            # kept for later budgets
            self.run.record.add_later_measurement(trial.number, taken)
            trial = self._judged(replace(trial, measurement=trial.measurement.with_(taken)))
            self.trials[trial.number] = trial
            if trial.outcome is not Outcome.MEASURED and not to_the_end:
                return

    def _measurements(self, artifact: Artifact) -> dict[str, Callable[[], Measurement]]:
        seconds = min(self.run.profile.protocol.max_seconds, LATENCY_SECONDS)
        taken = dict(measurements(self.run, artifact, seconds))
        # both sizes are taken together
        return {**taken, "download_mb": taken["size_mb"]}

    def _takes_too_long(self) -> bool:
        """True when scoring takes longer than the time left, judging by the times in the run."""
        took = [trial.seconds["accuracy"] for trial in self.stored if "accuracy" in trial.seconds]
        left = self.run.deadline.left
        return bool(took) and left is not None and max(took) > left

    def leave_out(self, trial: Trial, why: str) -> None:
        """Leave a trial out of the answer, with the reason."""
        self.artifacts.leave_out(trial, why)
        self.trials.pop(trial.number, None)
