"""A size model of one network with one quantization, fitted to the sizes of a few of its structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from autocompress.core.facts import LayerFact

# sizes are exact, but what a layer costs beyond its weights differs between kinds of layers
SIZE_ERROR = 0.003
PRIOR_WIDTH = 1.0
ValueBytes = Callable[[LayerFact], float]


@dataclass(frozen=True)
class SizeModel:
    """Predicts file size as so much per byte of weights and per layer, as shares of the baseline's bytes.

    A layer has nodes, scales and zero points, however few weights it has. Least squares with non-negative coefficients
    and a Gaussian prior, as in `LatencyModel`: weights take the bytes that they are stored in, `value_bytes` each, and
    the remainder belongs to the layers.
    """

    per_byte: float
    per_layer: float
    value_bytes: ValueBytes

    @staticmethod
    def fit(
        measured: Sequence[tuple[Sequence[LayerFact], float]], baseline_bytes: int, value_bytes: ValueBytes
    ) -> SizeModel:
        """Fit the model to structures, given as their layers and sizes; the first is the whole network."""
        counts = np.array([_counts(layers, value_bytes) for layers, _ in measured])
        sizes = np.array([size for _, size in measured])
        weights, layers = np.maximum(1.0, counts[0])
        byte = min(1 / baseline_bytes, sizes[0] / weights)
        prior = np.array([byte, max(0.0, sizes[0] - byte * weights) / layers])
        # the prior's width for a coefficient is its prior mean, but never 0
        scale = np.maximum(prior, 1e-3 * sizes[0] / np.maximum(1.0, counts[0]))
        weight = SIZE_ERROR * sizes[0] / PRIOR_WIDTH
        rows = np.vstack([counts * scale, weight * np.eye(2)])
        found, _ = nnls(rows, np.concatenate([sizes, weight * prior / scale]))
        per_byte, per_layer = map(float, found * scale)
        return SizeModel(per_byte, per_layer, value_bytes)

    def predict(self, layers: Sequence[LayerFact]) -> float:
        """Predicted size of a structure with these layers, as a share of the baseline's."""
        weights, count = _counts(layers, self.value_bytes)
        return self.per_byte * weights + self.per_layer * count


def _counts(layers: Sequence[LayerFact], value_bytes: ValueBytes) -> tuple[float, float]:
    return sum(layer.parameters * value_bytes(layer) for layer in layers), float(len(layers))
