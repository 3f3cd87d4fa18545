"""Shapes of the values inside an ONNX graph, found by running it once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from autocompress.core.source import Array
from autocompress.data.module import first_line
from autocompress.errors import ModelError
from autocompress.runtimes.external_weights import duplicate, has_references, move_weights
from autocompress.system.scratch import scratch


def shapes_of(model: onnx.ModelProto, feed: Mapping[str, Array], names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of the named values for these inputs; sequences of tensors have none.

    The graph is run and not only looked at: shapes that follow from other shapes, as behind a reshape, are often left
    open by shape inference.

    Raises:
        ModelError: when onnxruntime cannot run it.
    """
    known = {value.name for value in model.graph.output}
    given = {name: array.shape for name, array in feed.items()}
    given |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = [name for name in dict.fromkeys(names) if name and name not in given]
    shown = duplicate(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    try:
        with scratch("shapes") as folder:
            session = onnxruntime.InferenceSession(_written(shown, folder), settings, ["CPUExecutionProvider"])
            found = session.run(wanted, dict(feed)) if wanted else []
    except Exception as error:  # onnxruntime raises types of its own, without a common base
        raise ModelError(f"fails in onnxruntime: {first_line(error)}", where="model") from error
    arrays = ((name, value) for name, value in zip(wanted, found, strict=True) if isinstance(value, np.ndarray))
    return given | {name: value.shape for name, value in arrays}


def _written(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "shapes.onnx"
    if has_references(model):
        move_weights(model, folder)
        onnx.save(model, path)
    else:
        # weights go to a file of their own, since one file holds no more than 2 GB
        onnx.save(model, path, save_as_external_data=True, size_threshold=1 << 20, location="weights")
    return str(path)
