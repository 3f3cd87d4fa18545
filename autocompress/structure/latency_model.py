"""A latency model of one network on one device, fitted to measurements of a few of its structures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from autocompress.analysis.inspection import WORK
from autocompress.core.facts import Facts, Kind, LayerFact

# a measurement errs by a hundredth of the baseline, and a coefficient may well be twice its prior
MEASUREMENT_ERROR = 0.01
PRIOR_WIDTH = 1.0
FIXED_SHARE = 0.04
# share of the latency that layers cost regardless of their width: the default where it was not measured, which is also
# its upper bound, and its lower bound
LAYER_SHARE, LEAST_LAYER_SHARE = 0.5, 0.05

Work = Mapping[str, float]


def work_of(layers: Iterable[LayerFact]) -> dict[str, float]:
    """The work of a network by kind of layer and spatial size: number of layers, and their MACs.

    FLOPs alone mispredict time: a layer costs something however thin it is, and a MAC costs more where images are
    large and channels few. Layers of one type that give outputs of one spatial size cost alike.
    """
    found: dict[str, float] = {}
    for layer in layers:
        if layer.kind in WORK and layer.macs:
            place = "x".join(map(str, layer.output_shape[1:] if layer.kind is Kind.CONVOLUTION else ()))
            grouped = " grouped" if layer.detail.get("groups", 1) > 1 else ""
            key = f"{layer.type}{grouped} {place}".strip()
            found[f"{key}: layers"] = found.get(f"{key}: layers", 0.0) + 1
            found[f"{key}: MACs"] = found.get(f"{key}: MACs", 0.0) + layer.macs
    return found


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Predicts latency as a fixed part plus a part for each kind of work, as shares of the baseline's.

    All parts are at least 0. Least squares with non-negative coefficients (Lawson and Hanson 1974) and a Gaussian
    prior: without measurements time follows MACs, except for the share of it that layers cost however thin they are.
    """

    whole: Work
    coefficients: Mapping[str, float]

    @staticmethod
    def fit(facts: Facts, measured: Sequence[tuple[Work, float]], layer_share: float | None = None) -> LatencyModel:
        """Fit the model of a network with these facts; `measured` begins with the whole network's latency.

        `layer_share` is the cost of layers however thin they are, as a share of the baseline's latency.
        """
        whole = work_of(facts.layers)
        names = ["fixed", *whole]
        full = measured[0][1]
        macs = sum(value for name, value in whole.items() if name.endswith("MACs"))
        layers = sum(value for name, value in whole.items() if name.endswith("layers"))
        rest = full * (1 - FIXED_SHARE)
        thin = LAYER_SHARE if layer_share is None else min(LAYER_SHARE, max(LEAST_LAYER_SHARE, layer_share / full))
        prior = [full * FIXED_SHARE]
        prior += [
            rest * ((1 - thin) * value / macs if name.endswith("MACs") else thin * value / layers)
            for name, value in whole.items()
        ]
        rows = np.array([[1.0, *(_share(work, whole, name) for name in whole)] for work, _ in measured])
        targets = np.array([latency for _, latency in measured])
        weight = MEASUREMENT_ERROR / PRIOR_WIDTH
        # the prior's width for a coefficient is its prior mean
        scale = np.maximum(np.array(prior), 1e-9)
        stacked = np.vstack([rows * scale, weight * np.eye(len(names))])
        found, _ = nnls(stacked, np.concatenate([targets, weight * np.ones(len(names))]))
        return LatencyModel(whole, dict(zip(names, map(float, found * scale), strict=True)))

    def predict(self, work: Work) -> float:
        """Predicted latency of a structure that does this work, as a share of the baseline's."""
        return self.coefficients["fixed"] + sum(
            self.coefficients[name] * _share(work, self.whole, name) for name in self.whole
        )


def _share(work: Work, whole: Work, name: str) -> float:
    return work.get(name, 0.0) / whole[name]
