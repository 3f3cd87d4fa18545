"""Measurements: raw samples, never a statistic alone, with the conditions under which they were taken."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATISTICS = ("p50", "mean", "p90", "p95", "p99")


def is_binary(*arrays: NDArray[np.float64]) -> bool:
    """True when every score is a right or a wrong answer, 1 or 0."""
    return all(bool(np.isin(array, (0.0, 1.0)).all()) for array in arrays)


@dataclass(frozen=True, eq=False)
class Reading:
    """Raw samples of one metric.

    `samples` has shape `(n,)`, or `(blocks, calls)` for what is timed in blocks: calls of one block are
    correlated, so blocks are the unit of repetition. With `items` it is a score of so many items together: first its
    value, then its values on samples of the items drawn with replacement, the same draws for every model. `bounds` are
    the least and the greatest value that a sample can have, None where they are not known.

    `loads` has shape `(blocks,)` and numbers the loading of the file that each block was taken under. A file is faster
    or slower for as long as it stays loaded, so loads, and not blocks, are the unit of intervals. None means that every
    sample is independent of the others.
    """

    unit: str
    samples: NDArray[np.float64]
    items: int | None = None
    loads: NDArray[np.int64] | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.loads is not None and self.loads.shape != self.samples.shape[:1]:
            raise ValueError(f"{len(self.samples)} blocks, but load numbers of shape {self.loads.shape}")

    def statistic(self, name: str) -> float:
        """`mean` or a percentile (`p50`, `p90`, `p95`, `p99`) over all samples."""
        if name not in STATISTICS:
            raise ValueError(f"unknown statistic {name!r}; known: {', '.join(STATISTICS)}")
        values = self.samples.ravel()
        return float(values.mean()) if name == "mean" else float(np.percentile(values, float(name[1:])))

    def block_statistic(self, name: str) -> NDArray[np.float64]:
        """The statistic of each block, shape `(blocks,)`."""
        if name not in STATISTICS:
            raise ValueError(f"unknown statistic {name!r}; known: {', '.join(STATISTICS)}")
        blocks = self.samples if self.samples.ndim == 2 else self.samples[:, None]
        result = blocks.mean(axis=1) if name == "mean" else np.percentile(blocks, float(name[1:]), axis=1)
        return np.asarray(result, dtype=np.float64)

    def load_statistic(self, name: str) -> NDArray[np.float64]:
        """The statistic of each load, the median of its blocks' statistics, shape `(loads,)`."""
        return _medians_by_load(self.block_statistic(name), self.loads)

    @property
    def value(self) -> float:
        """The mean of the samples, or the first sample where the reading is one score of all items together."""
        return float(self.samples.mean() if self.items is None else self.samples[0])

    def to_json(self) -> dict[str, Any]:
        """The reading as a JSON object that holds the samples exactly."""
        packed = zlib.compress(np.ascontiguousarray(self.samples, dtype="<f8").tobytes(), 6)
        return {
            "unit": self.unit,
            "items": self.items,
            "loads": None if self.loads is None else self.loads.tolist(),
            "bounds": None if self.bounds is None else list(self.bounds),
            "shape": list(self.samples.shape),
            "float64_zlib_base64": base64.b64encode(packed).decode("ascii"),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Reading:
        """The reading that `to_json` wrote."""
        raw = zlib.decompress(base64.b64decode(data["float64_zlib_base64"]))
        samples = np.frombuffer(raw, dtype="<f8").reshape(data["shape"]).astype(np.float64)
        loads = None if data["loads"] is None else np.array(data["loads"], dtype=np.int64)
        bounds = data["bounds"]
        known = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        return Reading(str(data["unit"]), samples, data["items"], loads, known)

    @staticmethod
    def one(unit: str, value: float) -> Reading:
        """A reading of a single exact number."""
        return Reading(unit, np.array([value], dtype=np.float64))


@dataclass(frozen=True)
class Conditions:
    """Conditions under which a measurement was taken.

    `dropped_blocks` were left out because the machine was disturbed around them. `loads` is how often the file was
    loaded for the measurement, at places in memory drawn with `loading_seed`; `max_seconds` how long it was to last.
    """

    artifact_hash: str
    runtime: str
    versions: Mapping[str, str]
    threads: int
    batch: int
    machine: str
    dropped_blocks: int = 0
    loads: int = 1
    loading_seed: int = 0
    max_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The conditions as a JSON object."""
        return {
            "artifact_hash": self.artifact_hash,
            "runtime": self.runtime,
            "versions": dict(self.versions),
            "threads": self.threads,
            "batch": self.batch,
            "machine": self.machine,
            "dropped_blocks": self.dropped_blocks,
            "loads": self.loads,
            "loading_seed": self.loading_seed,
            "max_seconds": self.max_seconds,
        }


@dataclass(frozen=True, eq=False)
class Measurement:
    """Readings by metric.

    `baseline` holds the baseline's readings that were taken alternating with them. `unchanged` marks the baseline
    measured as a candidate: it differs from itself by exactly nothing. Where calls are timed at several sets of input
    shapes, the readings are those of the largest, and `smaller` are the measurements at the others by their names.
    """

    readings: Mapping[str, Reading] = field(default_factory=dict)
    baseline: Mapping[str, Reading] = field(default_factory=dict)
    conditions: Conditions | None = None
    unchanged: bool = False
    smaller: Mapping[str, Measurement] = field(default_factory=dict)

    def with_(self, other: Measurement) -> Measurement:
        """Both measurements combined; readings of `other` replace those of the same metric."""
        return Measurement(
            {**self.readings, **other.readings},
            {**self.baseline, **other.baseline},
            other.conditions or self.conditions,
            self.unchanged or other.unchanged,
            {**self.smaller, **other.smaller},
        )

    def latency_ratios(self, statistic: str) -> NDArray[np.float64]:
        """Latency ratios to the baseline, load by load; see `load_ratios`."""
        return self.load_ratios("latency_ms", statistic)

    def load_ratios(self, metric: str, statistic: str) -> NDArray[np.float64]:
        """Ratios to the baseline of a metric that is measured in blocks, shape `(loads,)`.

        Both must have been measured. Block i of one was taken right beside block i of the other, so drift of the
        machine cancels in their ratio; the ratio of a load is the median of its blocks' ratios.
        """
        after, before = self.readings[metric], self.baseline[metric]
        rounds = min(len(after.samples), len(before.samples))
        ratios = after.block_statistic(statistic)[:rounds] / before.block_statistic(statistic)[:rounds]
        return _medians_by_load(ratios, None if after.loads is None else after.loads[:rounds])

    def to_json(self) -> dict[str, Any]:
        """The measurement as a JSON object that holds all samples."""
        return {
            "readings": {name: reading.to_json() for name, reading in self.readings.items()},
            "baseline": {name: reading.to_json() for name, reading in self.baseline.items()},
            "conditions": self.conditions.to_json() if self.conditions else None,
            "unchanged": self.unchanged,
            "smaller": {name: one.to_json() for name, one in self.smaller.items()},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_json` wrote."""
        conditions = data.get("conditions")
        return Measurement(
            {name: Reading.from_json(value) for name, value in data["readings"].items()},
            {name: Reading.from_json(value) for name, value in data["baseline"].items()},
            Conditions(**conditions) if conditions else None,
            bool(data["unchanged"]),
            {name: Measurement.from_json(one) for name, one in data.get("smaller", {}).items()},
        )


def _medians_by_load(values: NDArray[np.float64], loads: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """The median of each load's values, in the order of the numbers; without numbers the values."""
    if loads is None:
        return np.asarray(values, dtype=np.float64)
    return np.array([np.median(values[loads == load]) for load in np.unique(loads)], dtype=np.float64)
