"""Export by tracing, for modules that `torch.export` cannot export: a record of one call.

A trace fixes every decision that forward() takes in Python, so it is only good where it holds on other inputs too:
see `other_values`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.source import Array
from autocompress.data.module import FlatModule, inference_mode_of, place_of
from autocompress.data.transformer_encoders import masks_as_given
from autocompress.errors import ExportError
from autocompress.system.quiet import quiet
from autocompress.system.scratch import scratch

# far beyond what data usually hold: limits that forward() compares with are passed
FAR = 1000
CHANGES: tuple[Callable[[Array], Array], ...] = (
    np.zeros_like,
    lambda array: ~array if array.dtype.kind == "b" else np.roll(array, 1, axis=array.ndim - 1),
    lambda array: -array if array.dtype.kind == "f" else array,
    lambda array: FAR * np.abs(array) if array.dtype.kind == "f" else array,
    lambda array: -FAR * np.abs(array) if array.dtype.kind == "f" else array,
)


def traced_graph(
    module: nn.Module, example: Example, output_names: tuple[str, ...], failure: ExportError
) -> onnx.ModelProto:
    """Export the module as the ONNX graph of one call, with a free batch.

    Raises:
        ExportError: `failure`, the error of the export that was tried first, when it cannot be traced either.
    """
    # a batch of one would be taken for a constant
    example = example.with_batch(max(2, example.batch))
    tensors = example.tensors()
    flat = FlatModule(module, example)
    flat.training = module.training
    place = place_of(module)
    try:
        with (
            inference_mode_of(module),
            quiet("torch.onnx"),
            _unlogged(),
            masks_as_given(module),
            scratch("trace") as folder,
        ):
            flat.eval()
            torch.onnx.export(
                flat,
                tuple(tensor.to(place) for tensor in tensors.values()),
                folder / "traced.onnx",
                dynamo=False,
                input_names=list(tensors),
                output_names=list(output_names),
                dynamic_axes={name: {0: "batch"} for name, tensor in tensors.items() if tensor.ndim},
            )
            model = onnx.load(folder / "traced.onnx")
    except Exception:  # noqa: BLE001 - whatever the exporter raises, the first error is the user's
        raise failure from failure.__cause__
    for node in model.graph.node:
        # names are paths of layers: /module/body/layers.0/linear/MatMul
        *layers, own = node.name.strip("/").split("/")
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str([".".join(layers), own]))
    return model


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the exporter from printing its graph when it fails.

    It does so whatever its settings say (torch 2.13).
    """
    library: Any = torch._C
    log, library._jit_onnx_log = library._jit_onnx_log, lambda *_: None
    try:
        yield
    finally:
        library._jit_onnx_log = log


def other_values(example: Example) -> Iterator[Example]:
    """The example with other values: zeros, shifted, of the other sign, far greater and far less."""
    for change in CHANGES:
        inputs = example.inputs
        if isinstance(inputs, dict):
            yield replace(example, inputs={name: change(array) for name, array in inputs.items()})
        else:
            yield replace(example, inputs=tuple(change(array) for array in inputs))


def sentence_on(failure: ExportError) -> str:
    """What a run says about a traced model: why, and what that means."""
    return (
        f"torch.export cannot export the model ({failure.where}), so one call of it was traced: what forward() decides "
        "in Python is fixed as the example has it. The file computes the same on other values and other batches"
    )
