"""Compares the search space's predictions with measurements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial


@dataclass(frozen=True)
class Predicted:
    """Predicted and measured values of a trial; None is not predicted, or not measured.

    Latency and size are shares of the baseline, `seconds` are those of training.
    """

    number: int
    recipe: str
    predicted_latency: float | None
    latency: float | None
    predicted_size: float | None
    size: float | None
    predicted_seconds: float | None
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """The row as a JSON object."""
        return dict(vars(self))


def predictions(search_space: SearchSpace, history: Iterable[Trial], statistic: str) -> list[Predicted]:
    """A row for the first trial of every recipe and structure, if its size was measured."""
    rows: dict[tuple[object, ...], Predicted] = {}
    for trial in history:
        recipe = search_space.recipe_of(trial.plan)
        found = trial.measurement
        if recipe is None or "size_mb" not in found.readings or "size_mb" not in found.baseline:
            continue
        latency, size = recipe.predicted(trial.plan)
        timed = "latency_ms" in found.readings and "latency_ms" in found.baseline
        row = Predicted(
            trial.number,
            recipe.name,
            latency,
            float(np.median(found.latency_ratios(statistic))) if timed else None,
            size,
            found.readings["size_mb"].value / found.baseline["size_mb"].value,
            recipe.seconds_of(trial.plan),
            trial.seconds.get("training"),
        )
        rows.setdefault((recipe.name, trial.plan.structure), row)
    return list(rows.values())
