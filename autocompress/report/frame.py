"""All trials as a pandas frame."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from autocompress.trial import Trial

COLUMNS = (
    "number", "plan", "plan_hash", "outcome", "stopped_by", "size_mb", "size_ratio", "latency_p50_ms",
    "latency_ratio", "score", "score_drop", "seconds", "reason",
)  # fmt: skip


def trials_frame(trials: Sequence[Trial]) -> pd.DataFrame:
    """One row per trial; what was not measured is NaN. `score` is that of the data that select."""
    return pd.DataFrame([_row(trial) for trial in trials], columns=list(COLUMNS))


def _row(trial: Trial) -> dict[str, object]:
    readings, baseline = trial.measurement.readings, trial.measurement.baseline
    nothing = float("nan")
    size = readings["size_mb"].value if "size_mb" in readings else nothing
    latency = readings["latency_ms"].statistic("p50") if "latency_ms" in readings else nothing
    score = readings["score"].value if "score" in readings else nothing
    return {
        "number": trial.number,
        "plan": str(trial.plan),
        "plan_hash": trial.plan.hash,
        "outcome": str(trial.outcome),
        "stopped_by": trial.stopped_by,
        "size_mb": size,
        "size_ratio": size / baseline["size_mb"].value if "size_mb" in baseline else nothing,
        "latency_p50_ms": latency,
        "latency_ratio": latency / baseline["latency_ms"].statistic("p50") if "latency_ms" in baseline else nothing,
        "score": score,
        "score_drop": baseline["score"].value - score if "score" in baseline else nothing,
        "seconds": sum(trial.seconds.values()),
        "reason": trial.reason,
    }
