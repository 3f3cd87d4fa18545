"""Second moments of the inputs of layers, E[x x^T] over the places where a weight is multiplied.

They weigh the error of a weight by what it does to the layer's output (Hassibi and Stork, "Second order derivatives for
network pruning: Optimal Brain Surgeon", NIPS 1992; Frantar et al., "GPTQ", ICLR 2023, eq. 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import feeds
from autocompress.core.source import Array, Split
from autocompress.packing.layer_weights import CONVOLUTIONS, LayerWeight
from autocompress.runtimes.observed_values import observed
from autocompress.runtimes.onnx_file import attributes_of

BATCH = 16
# places of one batch that are taken, evenly spaced: neighbours are nearly alike
MOST_PLACES = 4096


def second_moments(artifact: Artifact, layers: Sequence[LayerWeight], split: Split) -> dict[str, torch.Tensor]:
    """The moments of each layer's input by the name of its weight, of shape `(groups, columns, columns)`.

    Only layers whose weights have a matrix and an input are included.
    """
    wanted = [layer for layer in layers if layer.has_matrix and layer.input]
    found: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    names = list(dict.fromkeys(layer.input for layer in wanted if layer.input))
    batches = (feed for feed, _ in feeds(split, artifact, BATCH))
    for values in observed(artifact, names, batches):
        for layer in wanted:
            if layer.input is not None and layer.input in values:
                columns = _columns(layer, values[layer.input])
                count = columns.shape[-1]
                total = columns @ columns.transpose(1, 2)
                found[layer.tensor] = found[layer.tensor] + total if layer.tensor in found else total
                counts[layer.tensor] = counts.get(layer.tensor, 0) + count
    return {name: total / max(1, counts[name]) for name, total in found.items()}


def _columns(layer: LayerWeight, values: Array) -> torch.Tensor:
    """What the weight's columns are multiplied with, as `(groups, columns, places)`."""
    given = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    if layer.node.op_type not in CONVOLUTIONS:
        flat = given.reshape(-1, given.shape[-1]).T[None]
        return flat[:, :, :: _stride(flat.shape[-1])]
    made = _unfolded(layer, given)
    groups = layer.groups
    # (items, columns of all groups, places) -> (groups, columns, items x places)
    items, columns, places = made.shape
    return made.reshape(items, groups, columns // groups, places).permute(1, 2, 0, 3).flatten(2)


def _unfolded(layer: LayerWeight, given: torch.Tensor) -> torch.Tensor:
    options = attributes_of(layer.node)
    axes = len(layer.shape) - 2
    strides, dilations = (tuple(options.get(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = list(options.get("pads", [0] * 2 * axes))
    # torch counts from the last axis: begin and end of each
    given = functional.pad(given, [pads[place] for axis in reversed(range(axes)) for place in (axis, axis + axes)])
    kernel = layer.shape[2:]
    if axes == 1:
        given, kernel, strides, dilations = given[:, :, None], (1, *kernel), (1, *strides), (1, *dilations)
    found = functional.unfold(given, kernel, dilation=dilations, stride=strides)
    return found[:, :, :: _stride(len(found) * found.shape[-1])]


def _stride(places: int) -> int:
    return max(1, places // MOST_PLACES)
