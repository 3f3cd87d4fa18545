"""Facts about the ranges of a float ONNX file's channels, which share a scale in eight bits.

With one scale, a channel whose range is 1/r of the largest has 256/r of the 256 levels (Xiao et al., "SmoothQuant",
ICML 2023, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from autocompress.core.artifact import Artifact
from autocompress.core.source import Array
from autocompress.runtimes.external_weights import values_of
from autocompress.runtimes.graph_weights import linear_weights
from autocompress.runtimes.observed_values import observed
from autocompress.runtimes.onnx_file import load_model


def range_spread(model: onnx.ModelProto) -> float:
    """The largest ratio, over all weights, of the widest output channel's range to the median channel's.

    A range is a largest absolute value. Channels without any weight but zeros do not count, and the median is not moved
    by a few that are nearly so; 1 without weights.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    ranges = (one.output_ranges(values_of(stored[one.tensor])) for one in linear_weights(model.graph))
    return max((_ratio(one.astype(np.float64)) for one in ranges), default=1.0)


def outlier_ratio(artifact: Artifact, feeds: Iterable[Mapping[str, Array]]) -> float:
    """The largest ratio of the widest channel's range to the median's in what layers read.

    A range is the largest absolute value over all `feeds`, which are batches as the file takes them. Channels that are
    always zero do not count; 1 without such layers.
    """
    weights = list(linear_weights(load_model(artifact.path, with_weights=False).graph))
    axes = {weight.node.input[0]: weight.channel_axis for weight in weights}
    ranges: dict[str, Array] = {}
    for values in observed(artifact, list(axes), feeds):
        for name, value in values.items():
            found = np.moveaxis(np.abs(value), axes[name], 0).reshape(value.shape[axes[name]], -1).max(axis=1)
            ranges[name] = np.maximum(ranges[name], found) if name in ranges else found
    return max(map(_ratio, ranges.values()), default=1.0)


def _ratio(ranges: Array) -> float:
    """The largest range over the median one; zeros do not count."""
    used = ranges[ranges > 0]
    return float(used.max() / np.median(used)) if used.size else 1.0
