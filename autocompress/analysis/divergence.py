"""Divergence: how far a changed network's outputs move away from the original's."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.outputs import main_output
from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.data.module import call_by, inference_mode_of, place_of, returned
from autocompress.data.named_outputs import floating
from autocompress.system.locks import working

MOST_ITEMS = 256
LEAST_ITEMS = 32
SECONDS = 0.4


class Divergence:
    """Measures how far a changed network's outputs lie from the original's on calibration items.

    KL(original || changed) of the class probabilities, or the squared distance over the original's variance for other
    outputs; of several, the main one may be of classes, and the mean over all floating ones counts. The number of items
    is what one forward pass handles in 0.4 s, between 32 and 256.
    """

    def __init__(self, module: nn.Module, example: Example, split: Split) -> None:
        self._example = example
        place = place_of(module)
        some = _inputs(split.first(LEAST_ITEMS), example, place)
        with inference_mode_of(module):
            start = time.monotonic()
            returned(module, some, example)
            affordable = int(SECONDS / max(time.monotonic() - start, 1e-9) * LEAST_ITEMS)
        self._inputs = _inputs(split.first(max(LEAST_ITEMS, min(MOST_ITEMS, affordable))), example, place)
        self._wanted = self._outputs(module)

    def of(self, module: nn.Module) -> float:
        """The divergence of a module, at least 0; infinite where its outputs are not finite."""
        with working():
            found = self._outputs(module)
        value = _divergence(self._wanted, found)
        return max(0.0, value) if np.isfinite(value) else float("inf")

    def _outputs(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """The floating outputs for all calibration items, computed a few items at a time to save memory.

        All but classes are flattened, since the items need not be their first axis.
        """
        splits = zip(*(torch.split(tensor, LEAST_ITEMS) for tensor in self._inputs.values()), strict=True)
        parts: dict[str, list[torch.Tensor]] = {}
        with inference_mode_of(module):
            for split in splits:
                outputs = floating(call_by(module, dict(zip(self._inputs, split, strict=True)), self._example))
                main = main_output(outputs)
                for name, values in outputs.items():
                    parts.setdefault(name, []).append(values if name == main and _classes(values) else values.flatten())
        return {name: torch.cat(portions) for name, portions in parts.items()}


def _inputs(split: Split, example: Example, place: torch.device) -> dict[str, torch.Tensor]:
    (read, _), *_ = split.batches(len(split))
    arrays = Example(read).arrays
    known = example.arrays
    return {
        name: torch.from_numpy(np.asarray(array, dtype=known[name].dtype)).to(place) for name, array in arrays.items()
    }


def _classes(values: torch.Tensor) -> bool:
    return values.ndim == 2 and values.shape[1] > 1


def _divergence(wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> float:
    if any(name not in found or found[name].shape != values.shape for name, values in wanted.items()):
        return float("inf")
    distances = [_distance(values, found[name]) for name, values in wanted.items() if values.numel() > 1]
    return sum(distances) / max(1, len(distances))


def _distance(wanted: torch.Tensor, found: torch.Tensor) -> float:
    if wanted.ndim == 2:
        log_wanted, log_found = (functional.log_softmax(values, 1) for values in (wanted, found))
        return float(functional.kl_div(log_found, log_wanted, log_target=True, reduction="batchmean"))
    return float((wanted - found).square().mean() / wanted.var().clamp_min(1e-12))
