"""A file's outputs with other weights in it, without making a file and a session for each of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnxruntime

from autocompress.core.source import Array
from autocompress.runtimes.external_weights import duplicate
from autocompress.system.scratch import scratch


class WeightsAsInputs:
    """A session of a model whose stored tensors of these names may be given with each call.

    The model is not changed. What may be given is not packed beforehand, so that calls are slower than those of the
    file.
    """

    def __init__(self, model: onnx.ModelProto, names: Collection[str]) -> None:
        copied = duplicate(model)
        stored = {tensor.name: tensor for tensor in copied.graph.initializer}
        given = {value.name for value in copied.graph.input}
        copied.graph.input.extend(
            onnx.helper.make_tensor_value_info(name, stored[name].data_type, list(stored[name].dims))
            for name in names
            if name not in given
        )
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with scratch("weights") as folder:
            path = folder / "model.onnx"
            path.write_bytes(copied.SerializeToString())
            self._session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self._outputs = [value.name for value in model.graph.output]

    def outputs(self, feed: Mapping[str, Array], weights: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs by name for inputs of the file and these weights; the others are as stored."""
        found = self._session.run(self._outputs, {**feed, **weights})
        return {name: value for name, value in zip(self._outputs, found, strict=True) if isinstance(value, np.ndarray)}
