"""Divergence: how far a changed network's outputs move away from the original's."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.data.module import call_by, inference_mode_of
from autocompress.system.locks import working

MOST_ITEMS = 256
LEAST_ITEMS = 32
SECONDS = 0.4


class Divergence:
    """Measures how far a changed network's outputs lie from the original's on calibration items.

    KL(original || changed) of the class probabilities, or the squared distance over the original's variance for other
    outputs. The number of items is what one forward pass handles in 0.4 s, between 32 and 256.
    """

    def __init__(self, module: nn.Module, example: Example, split: Split) -> None:
        self._example = example
        some = _inputs(split.first(LEAST_ITEMS), example)
        with inference_mode_of(module):
            start = time.monotonic()
            call_by(module, some, by_name=example.by_name)
            affordable = int(SECONDS / max(time.monotonic() - start, 1e-9) * LEAST_ITEMS)
        self._inputs = _inputs(split.first(max(LEAST_ITEMS, min(MOST_ITEMS, affordable))), example)
        self._wanted = self._outputs(module)

    def of(self, module: nn.Module) -> float:
        """The divergence of a module, at least 0; infinite where its outputs are not finite."""
        with working():
            found = self._outputs(module)
        value = _divergence(self._wanted, found)
        return max(0.0, value) if np.isfinite(value) else float("inf")

    def _outputs(self, module: nn.Module) -> torch.Tensor:
        """The first output for all calibration items, computed a few items at a time to save memory."""
        splits = zip(*(torch.split(tensor, LEAST_ITEMS) for tensor in self._inputs.values()), strict=True)
        with inference_mode_of(module):
            return torch.cat(
                [
                    call_by(module, dict(zip(self._inputs, split, strict=True)), by_name=self._example.by_name).float()
                    for split in splits
                ]
            )


def _inputs(split: Split, example: Example) -> dict[str, torch.Tensor]:
    (read, _), *_ = split.batches(len(split))
    arrays = Example(read).arrays
    known = example.arrays
    return {name: torch.from_numpy(np.asarray(array, dtype=known[name].dtype)) for name, array in arrays.items()}


def _divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        log_wanted, log_found = (functional.log_softmax(values, 1) for values in (wanted, found))
        return float(functional.kl_div(log_found, log_wanted, log_target=True, reduction="batchmean"))
    return float((wanted - found).square().mean() / wanted.var().clamp_min(1e-12))
