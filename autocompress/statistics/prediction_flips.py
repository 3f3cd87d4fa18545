"""Prediction flips: items whose predicted class or correctness changed, which equal accuracy can hide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.core.measurement import Measurement, is_binary


@dataclass(frozen=True)
class PredictionFlips:
    """Predictions of the artifact compared with those of the original, on the same items.

    `lost` items were right before and are wrong now, `gained` the other way round. `agreement` is the share that both
    put into the same class, right or wrong. `worst_class` lost most: `worst_lost` of its `worst_items`, net.
    """

    items: int
    lost: int
    gained: int
    agreement: float | None = None
    worst_class: int | None = None
    worst_items: int = 0
    worst_lost: int = 0

    def __str__(self) -> str:
        sentences = [f"{self.lost} of {self.items:,} items lost, {self.gained} won"]
        if self.agreement is not None:
            sentences.append(f"{self.agreement:.2%} answered as by the original")
        if self.worst_class is not None:
            share = 100 * self.worst_lost / self.worst_items
            sentences.append(f"class {self.worst_class} lost most, {share:.1f} points of {self.worst_items:,} items")
        return "; ".join(sentences)

    def to_json(self) -> Mapping[str, Any]:
        """The prediction flips as a JSON object."""
        return dict(vars(self))


def prediction_flips_of(measurement: Measurement) -> PredictionFlips | None:
    """The prediction flips of a measurement, None without scores or where scores are not right or wrong."""
    after, before = measurement.readings.get("score"), measurement.baseline.get("score")
    if after is None or before is None or after.items is not None or after.samples.shape != before.samples.shape:
        return None
    now, then = after.samples, before.samples
    if not len(now) or not is_binary(now, then):
        return None
    counts = PredictionFlips(len(now), int((then > now).sum()), int((now > then).sum()))
    answers = [side["answer"].samples for side in (measurement.readings, measurement.baseline) if "answer" in side]
    labels = measurement.readings.get("label")
    if len(answers) < 2 or labels is None:
        return counts
    classes, places = np.unique(labels.samples, return_inverse=True)
    lost = np.bincount(places, weights=then - now)
    sizes = np.bincount(places)
    worst = int(np.argmax(lost / sizes))
    agreement = float((answers[0] == answers[1]).mean())
    if lost[worst] <= 0:
        return PredictionFlips(counts.items, counts.lost, counts.gained, agreement)
    return PredictionFlips(
        counts.items, counts.lost, counts.gained, agreement, int(classes[worst]), int(sizes[worst]), int(lost[worst])
    )
