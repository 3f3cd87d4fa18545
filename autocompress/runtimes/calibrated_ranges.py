"""Ranges of a float file's tensors from calibration data, where onnxruntime's quantizer reads them.

Entropy ranges after Migacz, "8-bit Inference with TensorRT", GTC 2017; ranges of the least squared error: see
`runtimes.mse_ranges`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, TensorData, save_tensors_data

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Setting
from autocompress.core.runtime import feeds
from autocompress.core.source import Array, Split
from autocompress.runtimes.calibration import calibrator_of
from autocompress.runtimes.mse_ranges import MseCollector
from autocompress.system.locks import folder_lock
from autocompress.system.workspace import make_folder, write_atomically, write_text

METHODS: Mapping[Setting, Any] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
    # onnxruntime's calibrator with a collector of ours
    "mse": CalibrationMethod.Percentile,
}
CALIBRATION_BATCH = 16
ENTROPY_BINS = 512
LARGEST_VALUE = 1e30
# a mask adds so much to what is to vanish in a softmax; the other values lie within so small a share of it that no
# level would be left for them
MASKED, SHARE_BESIDE_MASK = -5e3, 0.01
# folder of the calibrated ranges, in that of the files that all plans of a run use
RANGES = "ranges"


def calibrated_ranges(
    artifact: Artifact, split: Split, method: Setting, destination: Path, shared: Path | None
) -> set[str]:
    """Calibrate the ranges of all tensors on a split; gives the names of tensors without bounds.

    They are those of a float file, and are saved in `destination`, where onnxruntime's quantizer reads them. In a
    `shared` folder they are kept for the same file, items and method. `method` is a key of `METHODS`.
    """
    if shared is None:
        return _calibrate(artifact, split, method, destination)
    folder = shared / RANGES
    make_folder(folder)
    key = hashlib.sha256(f"{artifact.hash} {method} {split.hash}".encode()).hexdigest()[:16]
    known, without_bounds = folder / f"{key}.json", folder / f"{key}.unbounded.json"
    with folder_lock(folder):
        if known.exists():
            shutil.copyfile(known, destination)
            return set(json.loads(without_bounds.read_text(encoding="utf-8")))
        unbounded = _calibrate(artifact, split, method, destination)
        write_text(without_bounds, json.dumps(sorted(unbounded)))
        write_atomically(known, partial(shutil.copyfile, destination))
    return unbounded


def _calibrate(artifact: Artifact, split: Split, method: Setting, destination: Path) -> set[str]:
    """Calibrate the ranges; see `calibrated_ranges`.

    One batch at a time: onnxruntime's histogram methods would otherwise hold every tensor of every item in memory, and
    its `CalibMaxIntermediateOutputs` throws collected ranges away (1.31). Its entropy method takes as many bins as
    quantization levels unless told otherwise, which makes it the same as MinMax.
    """
    size = min(CALIBRATION_BATCH, len(split))
    # histograms need batches of equal size, so the last items that fill no batch are left out
    whole = split.first(len(split) - len(split) % size)
    bins = {"num_bins": ENTROPY_BINS, "num_quantized_bins": 128} if method == "entropy" else {}
    with calibrator_of(artifact, METHODS[method], bins, destination.parent) as calibrator:
        if method == "mse":
            calibrator.collector = MseCollector()
        for feed, _ in feeds(whole, artifact, size):
            calibrator.collect_data(_Once(feed))
        found = calibrator.compute_data()
    unbounded = {name for name, data in found.data.items() if not _is_bounded(data)}
    for name in unbounded:
        # nodes of these tensors stay in float, but the quantizer requires a range for every tensor
        found.data[name] = TensorData(lowest=np.float32(0), highest=np.float32(1))
    save_tensors_data(found, destination)
    return unbounded


def _is_bounded(data: TensorData) -> bool:
    # attention masks hold minus infinity, the lowest float, or a number such as -10000
    lowest = np.min(data.lowest)
    is_masked = lowest <= MASKED and np.max(data.highest) <= SHARE_BESIDE_MASK * -lowest
    return bool(not is_masked and np.all(np.abs([data.lowest, data.highest]) < LARGEST_VALUE))


class _Once(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """A calibration data reader that delivers a single batch."""

    def __init__(self, feed: Mapping[str, Array]) -> None:
        self._feeds = iter((feed,))

    def get_next(self) -> Mapping[str, Array] | None:
        """The batch at the first call, then None."""
        return next(self._feeds, None)
