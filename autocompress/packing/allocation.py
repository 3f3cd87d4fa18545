"""How many entries each layer's palette gets: bytes go where they keep the outputs closest.

Each layer alone is clustered with several numbers of entries, and the squared error of the network's outputs measured:
that of answers in which a network is sure, as on items that it was trained on, moves before any probability does.
Errors of layers are taken to add up (as in Dong et al., "HAWQ", ICCV 2019), and the numbers with the least sum that
fit the bytes are found by a Lagrange multiplier (Shoham and Gersho, "Efficient Bit Allocation for an Arbitrary Set of
Quantizers", IEEE Trans. ASSP 1988).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import feeds
from autocompress.core.source import Array, Split
from autocompress.runtimes.weights_as_inputs import WeightsAsInputs

BATCH = 16
LEAST_VARIANCE = 1e-12
# halvings of the range of the multiplier
HALVINGS = 60


@dataclass(frozen=True)
class Offer:
    """What a layer costs with so many entries: bytes in the file, and divergence of the network's outputs."""

    entries: int
    stored_bytes: int
    divergence: float


class OutputDivergence:
    """How far a network's outputs move when some weights are replaced, on a few items."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str], artifact: Artifact, split: Split) -> None:
        self._session = WeightsAsInputs(model, names)
        self._feeds = [dict(feed) for feed, _ in feeds(split, artifact, BATCH)]
        self._wanted = self._outputs({})

    def of(self, weights: Mapping[str, Array]) -> float:
        """The squared error over the variance, the sum over outputs; infinite where it is no number."""
        total = 0.0
        for name, values in self._outputs(weights).items():
            wanted = self._wanted[name]
            total += float((values - wanted).square().mean() / wanted.var().clamp_min(LEAST_VARIANCE))
        return total if np.isfinite(total) else float("inf")

    def _outputs(self, weights: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        parts: dict[str, list[torch.Tensor]] = {}
        for feed in self._feeds:
            for name, values in self._session.outputs(feed, weights).items():
                if values.dtype.kind == "f":
                    parts.setdefault(name, []).append(torch.from_numpy(values.astype(np.float32)))
        # sequences may be padded to another length in each batch
        whole = {name: some for name, some in parts.items() if len({one.shape[1:] for one in some}) == 1}
        return {name: torch.cat(some) for name, some in whole.items()}


def allocated(offers: Mapping[str, Sequence[Offer]], most_bytes: int) -> dict[str, int]:
    """The number of entries of each layer with the least sum of divergences in at most so many bytes.

    Where not even the smallest offers fit, these are taken.
    """
    smallest = {name: min(some, key=lambda one: (one.stored_bytes, one.divergence)) for name, some in offers.items()}
    chosen, low, high = smallest, 0.0, 1.0
    while _bytes(_at(offers, high)) > most_bytes and high < 1e12:
        high *= 16
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = _at(offers, middle)
        if _bytes(found) <= most_bytes:
            chosen, high = found, middle
        else:
            low = middle
    return {name: one.entries for name, one in _filled(offers, chosen, most_bytes).items()}


def _at(offers: Mapping[str, Sequence[Offer]], price: float) -> dict[str, Offer]:
    """The offers with the least divergence at a price for each byte."""
    return {
        name: min(some, key=lambda one: (one.divergence + price * one.stored_bytes, one.stored_bytes))
        for name, some in offers.items()
    }


def _bytes(chosen: Mapping[str, Offer]) -> int:
    return sum(one.stored_bytes for one in chosen.values())


def _filled(offers: Mapping[str, Sequence[Offer]], chosen: Mapping[str, Offer], most_bytes: int) -> dict[str, Offer]:
    """The choice with the bytes that are left spent where each saves most divergence."""
    result = dict(chosen)
    while True:
        left = most_bytes - _bytes(result)
        better = [
            ((result[name].divergence - one.divergence) / (one.stored_bytes - result[name].stored_bytes), name, one)
            for name, some in offers.items()
            for one in some
            if 0 < one.stored_bytes - result[name].stored_bytes <= left and one.divergence < result[name].divergence
        ]
        if not better:
            return result
        _, name, one = max(better, key=lambda found: (found[0], found[1]))
        result[name] = one
