"""All trials as a pandas frame, and the front of those that nothing beats."""

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
    """A trial that no other is as good as in everything and better in something; ratios are to the baseline."""

    number: int
    name: str
    plan: str
    latency_ratio: float
    size_ratio: float
    score: float | None
    score_drop: float | None
    file: str


def trials_frame(trials: Sequence[Trial], names: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:
    """One row per trial; what was not measured is NaN. `score` is that of the validation data. `names` says plans in a
    few words, by their hash.

    `pareto` is true where no other trial is at least as good in size, latency and score and better in one of them.
    A trial has to have all three; scores are left aside where plans were measured to the end without one, for want
    of data.
    """
    frame = pd.DataFrame([_row(trial, names) for trial in trials], columns=list(COLUMNS))
    needed = ["size_ratio", "latency_ratio"]
    if bool(frame["score"].notna().any()) or not any(trial.outcome is Outcome.MEASURED for trial in trials):
        needed.append("score")
    values = frame[needed].to_numpy(dtype=np.float64)
    # of a score more is better
    frame["pareto"] = undominated(values * [1.0, 1.0, -1.0][: len(needed)])
    return frame


def undominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows, shape `(n, metrics)` and less is better, are whole and beaten by no other whole row.

    A row beats another when it is at most as large everywhere and smaller somewhere.
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
    """The front of a frame of trials, the quickest first; their files are called `file`."""
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
