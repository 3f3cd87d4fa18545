"""The float weights that quantized ones were made from, found in the file before quantization."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from autocompress.core.source import Array
from autocompress.runtimes.onnx_layers import FLOATS
from autocompress.simulation.fake_quantization import StoredQuantizer
from autocompress.simulation.graph_module import GraphModule

# steps of a scale by which a weight may differ from what it was made from: rounded up, down, or by a zero point too
MOST_STEPS = 1.01
# how many times as large a value may be that was cut off at the end of the levels
MOST_CUT = 4.0


def float_weights(module: GraphModule, model: onnx.ModelProto) -> dict[StoredQuantizer, str]:
    """The names of the float tensors from which quantized weights and biases were made.

    Two tensors belong together if they have the same shape and no value differs by more than a step of its scale, or by
    what lies beyond the levels. Weights that something changed before quantization are missing.
    """
    by_shape: dict[tuple[int, ...], list[tuple[str, Array]]] = defaultdict(list)
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS:
            by_shape[tuple(tensor.dims)].append((tensor.name, numpy_helper.to_array(tensor)))
    found: dict[StoredQuantizer, str] = {}
    for quantizer in module.stored_quantizers():
        value = quantizer.value.detach().cpu().numpy()
        fitting = {name: array for name, array in by_shape[value.shape] if _belong(quantizer, value, array)}
        if fitting:
            found[quantizer] = min(fitting, key=lambda name: float(np.abs(fitting[name] - value).sum()))
    return found


def _belong(quantizer: StoredQuantizer, value: Array, array: Array) -> bool:
    """True where no value differs by more than a step, but for those cut off at the ends."""
    steps = quantizer.levels.spread(quantizer.current_scale(), value.ndim).cpu().numpy()
    # float32 has fewer digits than a bias in int32
    near = np.abs(array - value) <= MOST_STEPS * steps + 1e-6 * np.abs(array)
    stored = quantizer.stored
    above = (stored == stored.max(initial=0)) & (array > value)
    below = (stored == stored.min(initial=0)) & (array < value)
    return bool((near | ((above | below) & (np.abs(array) <= MOST_CUT * np.abs(value)))).all())


@torch.no_grad()
def load_float_weights(module: GraphModule, model: onnx.ModelProto) -> set[StoredQuantizer]:
    """Begin with the float weights of the file before quantization; gives the quantizers that got theirs."""
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    found = float_weights(module, model)
    for quantizer, name in found.items():
        array = numpy_helper.to_array(arrays[name])
        quantizer.value.copy_(torch.from_numpy(array.astype(np.float32)))
    return set(found)
