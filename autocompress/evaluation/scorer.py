"""Scores artifacts item by item, in the runtime that will run them; nothing is scored twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.outputs import as_given
from autocompress.core.padded_source import by_shape
from autocompress.core.profile import Profile
from autocompress.core.runtime import feeds
from autocompress.core.score_bounds import RATE, Bounds, require_inside
from autocompress.core.source import Array, Split
from autocompress.core.targets import Targets, rows_in
from autocompress.core.task import Task
from autocompress.errors import RuntimeFailureError
from autocompress.evaluation.item_checks import items_end_no_run, labels_end_the_run, require_counted
from autocompress.statistics.bootstrap import replicates
from autocompress.system.locks import working

BATCH = 64
# fewer items do not tell how long scoring takes
TIMED_ITEMS = 32


@dataclass(eq=False)
class _Sheet:
    """The scores known of one artifact on one split, as rows by the index of their item."""

    items: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, items: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]]) -> None:
        """Add rows for further items."""
        every = np.concatenate([self.items, items])
        order = np.argsort(every, kind="stable")
        joined = {
            name: np.concatenate([self.columns[name], rows]) if name in self.columns else rows
            for name, rows in columns.items()
        }
        self.items, self.columns = every[order], {name: rows[order] for name, rows in joined.items()}


@dataclass(eq=False)
class Scorer:
    """Scores artifacts on splits of a task's data, shape `(n,)` in the order of the split's items."""

    device: Device
    profile: Profile
    task: Task
    _sheets: dict[tuple[str, str], _Sheet] = field(default_factory=dict)
    _per_item: float | None = None

    def measurement(self, artifact: Artifact, baseline: Artifact | None, split: Split) -> Measurement:
        """The readings of an artifact and of its baseline on the same items; raises as `readings` does."""
        if baseline is None:
            return Measurement(self.readings(artifact, split))
        with labels_end_the_run():
            before = self.readings(baseline, split)
        # the baseline took these items, so what does not fit now is the artifact's fault
        with items_end_no_run():
            return Measurement(self.readings(artifact, split), before)

    def readings(self, artifact: Artifact, split: Split) -> dict[str, Reading]:
        """The artifact's scores on a split: `score`, and in classification `answer` and `label`.

        `answer` is the predicted class and `label` the right one.

        Raises:
            DataError: when the data do not fit the artifact or its outputs, or a score lies outside of its bounds.
            RuntimeFailureError: when outputs are not finite.
        """
        sheet = self._sheets.setdefault((artifact.hash, split.name), _Sheet())
        missing = split.without(sheet.items)
        if len(missing) or not sheet.columns:
            sheet.add(missing.indices, self._scored(artifact, missing))
        places = np.searchsorted(sheet.items, split.indices)
        units = {"score": "score", "answer": "class", "label": "class"}
        found = {name: Reading(units[name], rows[places]) for name, rows in sheet.columns.items()}
        aggregate = self.task.aggregate
        if aggregate is None:
            found["score"] = replace(found["score"], bounds=self._bounds(found["score"].samples))
        else:
            drawn = replicates(found["score"].samples, self.task.value)
            found["score"] = Reading(aggregate.name, drawn, len(split))
        return found

    def seconds_per_item(self, artifact: Artifact, split: Split) -> float:
        """Seconds that scoring an item took last; a few items of the split are scored where nothing was yet."""
        if self._per_item is None:
            self._scored(artifact, split.first(TIMED_ITEMS))
        return self._per_item or 0.0

    def try_out(self, artifact: Artifact, split: Split, batch: int) -> None:
        """Score the split's first and last `batch` items, to find errors of the task's score; nothing is kept.

        Raises:
            DataError: when the score fails, or the data do not fit the artifact.
            RuntimeFailureError: when outputs are not finite.
        """
        self._scored(artifact, split.ends(batch), batch)

    def _bounds(self, scores: NDArray[np.float64]) -> Bounds | None:
        """The bounds of a score: the task's, else 0 and 1 where a budget in points says that it is a rate."""
        if self.task.bounds is not None or not self.profile.limits("max_accuracy_drop_pp", "min_accuracy"):
            return self.task.bounds
        return RATE if len(scores) and scores.min() >= 0 and scores.max() <= 1 else None

    def _scored(self, artifact: Artifact, split: Split, batch: int = BATCH) -> dict[str, NDArray[np.float64]]:
        began, session = time.monotonic(), self.device.load(artifact, self.profile)
        found: dict[str, list[Any]] = {}
        names = [spec.name for spec in artifact.outputs]
        taken: list[int] = []
        for items, feed, targets in _batches(split, artifact, batch):
            taken += items
            require_counted(self.task, targets, f"data ({split.name})", items)
            fed = len(next(iter(feed.values())))
            with working():
                outputs = [_without_filling(output, fed, rows_in(targets)) for output in session.run(feed)]
            if not all(np.isfinite(output).all() for output in outputs if output.dtype.kind == "f"):
                raise RuntimeFailureError(
                    "gives outputs that are not finite (NaN or infinity).",
                    where=str(artifact.path),
                    hint="Check the model.",
                )
            given = as_given(dict(zip(names, outputs, strict=True)), lambda output: output.dtype.kind == "f")
            for name, rows in self.task.columns(given, targets).items():
                found.setdefault(name, []).append(rows)
        if len(taken) >= min(TIMED_ITEMS, len(split)) > 0:
            self._per_item = (time.monotonic() - began) / len(taken)
        order = np.argsort(taken, kind="stable")[np.argsort(np.argsort(split.indices, kind="stable"), kind="stable")]
        scored = {name: np.concatenate(rows)[order] for name, rows in found.items()} or {"score": np.zeros(0)}
        if self.task.bounds is not None:
            require_inside(scored["score"], split.indices, self.task.bounds)
        return scored


def _without_filling(output: Array, fed: int, items: int) -> Array:
    """An output without the rows of items that only filled the batch up.

    The batch is the first axis of its size.
    """
    if fed == items or fed not in output.shape:
        return output
    return np.take(output, np.arange(items), axis=output.shape.index(fed))


def _batches(split: Split, artifact: Artifact, size: int) -> Iterator[tuple[list[int], dict[str, Array], Targets]]:
    """Batches of a split with their items' numbers, of one length at a time, so that none is padded."""
    for part in by_shape(split):
        read = 0
        for feed, targets in feeds(part, artifact, size):
            items = part.indices[read : read + rows_in(targets)].tolist()
            read += len(items)
            yield items, feed, targets
