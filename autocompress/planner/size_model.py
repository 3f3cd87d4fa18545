"""A size model of one network with one quantization: fitted to the sizes of a few structures of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from autocompress.facts import LayerFact

# sizes are exact, but what a layer costs beyond its weights differs between kinds of layers
SIZE_ERROR = 0.003
PRIOR_WIDTH = 1.0


@dataclass(frozen=True)
class SizeModel:
    """Size as so much for each parameter and each layer, shares of the baseline's bytes.

    A layer has nodes, scales and zero points, however few weights it has. Least squares with non-negative coefficients
    and a Gaussian prior, as in `LatencyModel`: a parameter has a byte, and what is left over belongs to the layers.
    """

    per_parameter: float
    per_layer: float

    @staticmethod
    def fit(measured: Sequence[tuple[Sequence[LayerFact], float]], baseline_bytes: int) -> SizeModel:
        """The model of structures with these layers and sizes; the first is the whole network."""
        counts = np.array([_counts(layers) for layers, _ in measured], dtype=np.float64)
        sizes = np.array([size for _, size in measured])
        parameters, layers = counts[0]
        byte = min(1 / baseline_bytes, sizes[0] / max(1.0, parameters))
        prior = np.array([byte, max(0.0, sizes[0] - byte * parameters) / max(1.0, layers)])
        # a coefficient's prior is as wide as it is large, but never without any width
        scale = np.maximum(prior, 1e-3 * sizes[0] / np.maximum(1.0, counts[0]))
        weight = SIZE_ERROR * sizes[0] / PRIOR_WIDTH
        rows = np.vstack([counts * scale, weight * np.eye(2)])
        found, _ = nnls(rows, np.concatenate([sizes, weight * prior / scale]))
        return SizeModel(*map(float, found * scale))

    def predict(self, layers: Sequence[LayerFact]) -> float:
        """Size of a structure with these layers, as a share of the baseline's."""
        parameters, count = _counts(layers)
        return self.per_parameter * parameters + self.per_layer * count


def _counts(layers: Sequence[LayerFact]) -> tuple[int, int]:
    return sum(layer.parameters for layer in layers), len(layers)
