"""Ranges of activations with the least mean squared error in eight bits, from histograms.

Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1 (the error over a grid of clipped
ranges); Banner et al., "Post Training 4-bit Quantization of Convolutional Networks for Rapid-Deployment", NeurIPS 2019
(clipping against rounding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import CalibrationDataCollector

from autocompress.core.source import Array

Doubles = NDArray[np.floating[Any]]
# bins over both signs; a range is a whole number of doublings of the first batch's, so at least half of them are used
BINS = 4096
LEVELS = 256
# shares of the range that are tried, of both sides together and then of each; the whole of it first, so that it stays
# where nothing is better
SHARES: Doubles = np.linspace(1.0, 0.1, 91)


class Histogram:
    """Counts of values in `BINS` bins between -reach and reach, without zeros, which cost no error."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS)
        self.reach = 0.0
        self.lowest = self.highest = 0.0

    def add(self, values: Array) -> None:
        """Count the values; where they lie beyond the bins, neighbouring bins are put together."""
        values = values[values != 0]
        if not values.size:
            return
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        furthest = max(-self.lowest, self.highest)
        if not np.isfinite(furthest):
            return
        if self.reach == 0:
            self.reach = furthest
        while self.reach < furthest:
            self.counts = np.pad(self.counts.reshape(-1, 2).sum(axis=1), BINS // 4)
            self.reach *= 2
        self.counts += np.histogram(values, BINS, range=(-self.reach, self.reach))[0]

    def best_range(self) -> tuple[float, float]:
        """The range around zero with the least mean squared error, at most that of all values."""
        lowest, highest = self.lowest, self.highest
        if not np.isfinite(highest - lowest) or highest == lowest:
            return lowest, highest
        used = np.flatnonzero(self.counts)
        centers: Doubles = (2 * used + 1 - BINS) * (self.reach / BINS)
        counts = self.counts[used]

        def error(low: float, high: float) -> float:
            return squared_error(centers, counts, low, high)

        share = min(SHARES, key=lambda one: error(one * lowest, one * highest))
        high = min(_ends(highest), key=lambda one: error(share * lowest, one))
        low = min(_ends(lowest), key=lambda one: error(one, high))
        return float(low), float(high)


def _ends(furthest: float) -> Doubles:
    return SHARES * furthest if furthest else np.zeros(1)


def squared_error(values: Doubles, counts: Doubles, low: float, high: float) -> float:
    """The sum of squared errors of these values, so many of each, in `LEVELS` levels from `low` to `high`."""
    step = (high - low) / (LEVELS - 1)
    if step <= 0:
        return float(counts @ values**2)
    rounded = np.round(values / step) * step
    return float(counts @ (np.clip(rounded, low, high) - values) ** 2)


class MseCollector(CalibrationDataCollector):  # type: ignore[misc]  # onnxruntime has no types
    """Collects values by batches for onnxruntime's calibrator, and gives each tensor's best range."""

    def __init__(self) -> None:
        self._histograms: dict[str, Histogram] = {}

    def collect(self, name_to_arr: Mapping[str, Sequence[Array]]) -> None:
        """Count the values of some batches, by the name of their tensor."""
        for name, arrays in name_to_arr.items():
            histogram = self._histograms.setdefault(name, Histogram())
            for array in arrays:
                histogram.add(np.asarray(array))

    def compute_collection_result(self) -> dict[str, tuple[Any, ...]]:
        """Lowest and highest value by tensor, as onnxruntime takes them, with an empty histogram."""
        empty = np.zeros(1, np.float32)
        ranges = {name: histogram.best_range() for name, histogram in self._histograms.items()}
        return {name: (np.float32(low), np.float32(high), empty, empty) for name, (low, high) in ranges.items()}
