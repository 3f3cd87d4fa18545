"""The result of a run: an answer with its evidence, also when the budgets are not met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.core.artifact import Artifact
from autocompress.core.data_check import NAMED_IN_RESULT, DataCheck
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile
from autocompress.core.runtime import Contents
from autocompress.core.search_space import SearchSpace
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.trial import Trial
from autocompress.core.verdict import Finding, Status, Verdict
from autocompress.errors import BudgetsNotMetError, UndecidedError
from autocompress.run.diagnosis import binding_budget
from autocompress.run.predicted_vs_measured import Predicted, predictions
from autocompress.statistics.prediction_flips import PredictionFlips, prediction_flips_of

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2


@dataclass(frozen=True)
class StageRow:
    """One row of the stage table; None stands for not measured. Ratios are to the baseline's row."""

    name: str
    size_mb: float
    parameters: int
    nonzero: int
    score: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    latency_ratio: float | None
    size_ratio: float

    def to_json(self) -> dict[str, Any]:
        """The stage row as a JSON object."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a run.

    `plan`, `artifact`, `verdict` and `measurement` belong to the answer: the confirmed winner, or the nearest
    miss when nothing was met (`met` tells which). `certificate` is there when the holdout was looked at.
    `data_check` is what was found in the data when the run began. `plan_name` describes the plan in a few words,
    `names` the plans of all trials, by their hash. `sensitivities` are those of the layers, none where there was no
    reason to measure it. `download_bytes` is the size
    of `model.onnx.acz` where the profile asked for it. `trials` is `history` as a pandas frame, one row per trial.
    """

    status: Status
    plan: Plan
    plan_name: str
    artifact: Artifact | None
    baseline: Artifact
    verdict: Verdict
    measurement: Measurement
    certificate: Mapping[str, Any] | None
    history: Sequence[Trial]
    names: Mapping[str, str]
    stages: Sequence[StageRow]
    facts: Facts
    search_space: SearchSpace
    profile: Profile
    explanation: Sequence[str]
    machine: str
    data: str
    score_is_rate: bool
    seconds: float
    out_of_time: bool
    folder: Path
    data_check: DataCheck = field(default_factory=DataCheck)
    sensitivities: tuple[Sensitivity, ...] = ()
    download_bytes: int | None = None
    trials: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def met(self) -> bool:
        """True when every budget is met at the profile's confidence."""
        return self.status is Status.MET

    @property
    def prediction_flips(self) -> PredictionFlips | None:
        """The prediction flips between answer and baseline, None where they cannot be told."""
        return prediction_flips_of(self.measurement)

    @property
    def predictions(self) -> list[Predicted]:
        """The search space's predictions for the trials, with the measured values."""
        return predictions(self.search_space, self.history, self.profile.protocol.statistic)

    @property
    def binding(self) -> Finding | None:
        """The finding that is farthest from being met, None when all are met."""
        return binding_budget(self.verdict, self.search_space)

    def unwrap(self) -> Artifact:
        """The artifact, if the budgets are met.

        Raises:
            BudgetsNotMetError: when a budget is exceeded.
            UndecidedError: when the data or runs do not decide.
        """
        if self.met and self.artifact is not None:
            return self.artifact
        binding = f" {self.binding.name}: {self.binding.sentence}." if self.binding else ""
        kind = UndecidedError if self.status is Status.UNDECIDED else BudgetsNotMetError
        raise kind(f"the budgets are {self.status}.{binding}", where=str(self.folder))

    def __str__(self) -> str:
        lines = [f"{self.status}: {self.plan_name}"]
        lines += [f"  {finding.name}: {finding.standing}, {finding.sentence}" for finding in self.verdict.findings]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The content of result.json."""
        return {
            "schema": SCHEMA,
            "status": str(self.status),
            "plan": self.plan.to_json(),
            "plan_name": self.plan_name,
            "plan_text": str(self.plan),
            "artifact": None if self.artifact is None else {"file": self.artifact.entry, "sha256": self.artifact.hash},
            "download_bytes": self.download_bytes,
            "baseline_sha256": self.baseline.hash,
            "verdict": self.verdict.to_json(),
            "binding": self.binding.budget.metric if self.binding else None,
            "stages": [stage.to_json() for stage in self.stages],
            "prediction_flips": self.prediction_flips.to_json() if self.prediction_flips else None,
            "explanation": list(self.explanation),
            "profile": self.profile.name,
            "objective": self.profile.objective.name,
            "confidence": self.profile.confidence,
            "machine": self.machine,
            "data": self.data,
            "data_check": self.data_check.to_json(NAMED_IN_RESULT),
            "score_is_rate": self.score_is_rate,
            "seconds": round(self.seconds, 3),
            "out_of_time": self.out_of_time,
            "facts": {key: value for key, value in self.facts.to_json().items() if key != "layers"},
            "search_space": self.search_space.to_json(),
            "predictions": [row.to_json() for row in self.predictions],
            "sensitivities": [one.to_json() for one in self.sensitivities],
            "trials": [
                {
                    "number": trial.number,
                    "name": self.names.get(trial.plan.hash, trial.plan.kind),
                    "plan": str(trial.plan),
                    "plan_hash": trial.plan.hash,
                    "outcome": str(trial.outcome),
                    "reason": trial.reason,
                    "seconds": {key: round(value, 3) for key, value in trial.seconds.items()},
                }
                for trial in self.history
            ],
        }


def stage_row(
    name: str,
    contents: Contents,
    readings: Mapping[str, Reading],
    baseline: Mapping[str, Reading],
) -> StageRow:
    """A row of the stage table from readings; scores are means, times over all calls of all blocks."""
    latency, before = readings.get("latency_ms"), baseline.get("latency_ms")
    ratio = None
    if latency is not None and before is not None:
        ratio = latency.statistic("p50") / before.statistic("p50")
    size = readings["size_mb"].value
    return StageRow(
        name,
        size,
        contents.parameters,
        contents.nonzero,
        readings["score"].value if "score" in readings and readings["score"].samples.size else None,
        latency.statistic("mean") if latency else None,
        latency.statistic("p50") if latency else None,
        latency.statistic("p95") if latency else None,
        ratio,
        size / baseline["size_mb"].value,
    )
