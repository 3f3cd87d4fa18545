"""All trials as a pandas frame, and their Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autocompress.core.trial import Outcome, Trial

COLUMNS = (
    "number", "name", "plan", "plan_hash", "outcome", "stopped_by", "size_mb", "size_ratio", "latency_p50_ms",
    "latency_ratio", "score", "score_drop", "pareto", "seconds", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class FrontRow:
    """A trial on the Pareto front; ratios are to the baseline.

    No other trial is at least as good in everything and better in something.
    """

    number: int
    name: str
    plan: str
    latency_ratio: float
    size_ratio: float
    score: float | None
    score_drop: float | None
    file: str


def trials_frame(trials: Sequence[Trial], names: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:
    """A frame with one row per trial; values that were not measured are NaN.

    `score` is that of the validation data. `names` are short descriptions of plans, by their hash. `pareto` is true
    where no other trial is at least as good in size, latency and score and better in one of them. A trial has to have
    all three; scores are left aside where plans were measured to the end without one, for want of data.
    """
    frame = pd.DataFrame([_row(trial, names) for trial in trials], columns=list(COLUMNS))
    needed = ["size_ratio", "latency_ratio"]
    if bool(frame["score"].notna().any()) or not any(trial.outcome is Outcome.MEASURED for trial in trials):
        needed.append("score")
    values = frame[needed].to_numpy(dtype=np.float64, copy=True)
    # what failed in the end is no file to choose, whatever was measured before
    values[np.array([trial.outcome is Outcome.FAILED for trial in trials], dtype=np.bool_)] = np.nan
    # higher is better for a score, lower for the others
    frame["pareto"] = undominated(values * [1.0, 1.0, -1.0][: len(needed)])
    return frame


def undominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The rows that no other row dominates; shape `(n, metrics)`, lower is better.

    Rows with NaN neither count nor dominate. A row dominates another when it is at most as large everywhere and smaller
    somewhere.
    """
    whole = np.asarray(~np.isnan(values).any(axis=1), dtype=np.bool_)
    others = values[whole]
    return np.array(
        [
            bool(is_whole) and not ((others <= row).all(axis=1) & (others < row).any(axis=1)).any()
            for row, is_whole in zip(values, whole, strict=True)
        ],
        dtype=np.bool_,
    )


def front_rows(frame: pd.DataFrame, file: str) -> list[FrontRow]:
    """The Pareto front of a frame of trials, the fastest first; their files are called `file`."""
    chosen = frame[frame["pareto"]].sort_values(["latency_ratio", "size_ratio", "number"])
    return [
        FrontRow(
            int(row["number"]),
            str(row["name"]),
            str(row["plan"]),
            float(row["latency_ratio"]),
            float(row["size_ratio"]),
            _value(row["score"]),
            _value(row["score_drop"]),
            f"checkpoints/{row['plan_hash']}/{file}",
        )
        for row in chosen.to_dict("records")
    ]


def _value(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _row(trial: Trial, names: Mapping[str, str]) -> dict[str, object]:
    readings, baseline = trial.measurement.readings, trial.measurement.baseline
    nothing = float("nan")
    size = readings["size_mb"].value if "size_mb" in readings else nothing
    latency = readings["latency_ms"].statistic("p50") if "latency_ms" in readings else nothing
    score = readings["score"].value if "score" in readings else nothing
    return {
        "number": trial.number,
        "name": names.get(trial.plan.hash, trial.plan.kind),
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
