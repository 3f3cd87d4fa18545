"""onnxruntime's calibrators, also for graphs whose weights lie in their own file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import create_calibrator
from onnxruntime.quantization.calibrate import (
    CalibraterBase,
    CalibrationMethod,
    EntropyCalibrater,
    MinMaxCalibrater,
    PercentileCalibrater,
)

from autocompress.core.artifact import Artifact
from autocompress.runtimes.external_weights import without_folders
from autocompress.runtimes.onnx_file import open_model
from autocompress.runtimes.values_on_demand import values_on_demand, with_references
from autocompress.system.workers import Worker

# with the settings that `create_calibrator` gives them
CALIBRATORS: Mapping[Any, tuple[Any, Mapping[str, Any]]] = {
    CalibrationMethod.MinMax: (MinMaxCalibrater, {}),
    CalibrationMethod.Percentile: (PercentileCalibrater, {"symmetric": True}),
    CalibrationMethod.Entropy: (EntropyCalibrater, {}),
}


@contextmanager
def calibrator_of(artifact: Artifact, method: Any, bins: Mapping[str, int], folder: Path) -> Iterator[CalibraterBase]:
    """A calibrator for a file; it writes its graph, which gives all tensors out, to `folder`.

    Where the weights lie in their own file it does not read them: its graph is written beside that file for the block.
    """
    augmented = folder / "augmented.onnx"
    if len(artifact.files) == 1:
        yield create_calibrator(
            artifact.path, augmented_model_path=str(augmented), calibrate_method=method, extra_options=dict(bins)
        )
        augmented.unlink(missing_ok=True)
        return
    model = open_model(artifact.path)
    plain = folder / "without_values.onnx"
    with values_on_demand(model):
        onnx.save(model, plain)
    kind, settings = CALIBRATORS[method]
    calibrator = kind(plain, augmented_model_path=str(augmented), **settings, **bins)
    calibrator.augment_graph()
    beside = with_references(augmented)
    without_folders(beside)
    for path in (plain, augmented):
        path.unlink()
    with tempfile.NamedTemporaryFile(dir=artifact.root, prefix=f".calibrating{Worker.me().tag}") as file:
        onnx.save(beside, file.name, format="protobuf")
        calibrator.augmented_model_path = file.name
        calibrator.create_inference_session()
        yield calibrator
