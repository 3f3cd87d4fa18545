"""Divergence: how far a changed network's outputs move away from the original's."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.core.output_kinds import OF_CLASSES, OF_YES_OR_NO, OutputFact, OutputKind
from autocompress.core.runtime import Example
from autocompress.core.source import Array, Inputs, Split
from autocompress.core.targets import mapped
from autocompress.data.counted_places import counted_places
from autocompress.data.module import call_by, inference_mode_of, place_of, returned
from autocompress.data.named_outputs import floating
from autocompress.data.output_divergence import distance, rows_of, spread
from autocompress.data.output_recognition import with_kinds
from autocompress.system.locks import working

MOST_ITEMS = 256
LEAST_ITEMS = 32
SECONDS = 0.4
LEAST_SPREAD = 1e-12


class Reference:
    """Outputs that others are compared with, by name, as `compared_rows` gives them; `kinds` are theirs."""

    def __init__(self, kinds: Mapping[str, OutputFact], wanted: Mapping[str, torch.Tensor]) -> None:
        self._kinds, self._wanted = kinds, wanted
        compared = [name for name, values in wanted.items() if values.numel() > 1]
        # the KL divergence of a single output stays in nats
        self._spreads = {
            name: float(spread(kinds[name].kind, wanted[name]).clamp_min(LEAST_SPREAD))
            if len(compared) > 1 or kinds[name].kind not in OF_CLASSES
            else 1.0
            for name in compared
        }

    def divergence(self, found: Mapping[str, torch.Tensor]) -> float:
        """The divergence of other outputs, at least 0; infinite where they cannot be compared."""
        if any(name not in found or found[name].shape != values.shape for name, values in self._wanted.items()):
            return float("inf")
        distances = [
            _distance(self._kinds[name].kind, found[name], self._wanted[name]) / by
            for name, by in self._spreads.items()
        ]
        value = sum(distances) / max(1, len(distances))
        return max(0.0, value) if np.isfinite(value) else float("inf")


class Divergence:
    """Measures how far a changed network's outputs lie from the original's on calibration items.

    The divergence is that of the only floating output, by its kind: the KL divergence of classes in nats, of all others
    over the original's spread. Of several outputs it is the mean, each over its spread. Places whose label is below 0
    and padded ones count for nothing. The number of items is what one forward pass handles in 0.4 s, between 32 and
    256. Kinds that the example does not hold are recognised without the task.
    """

    def __init__(self, module: nn.Module, example: Example, split: Split) -> None:
        self._example = example
        place = place_of(module)
        some, _ = _read(split.first(LEAST_ITEMS), example, place)
        with inference_mode_of(module):
            start = time.monotonic()
            returned(module, some, example)
            affordable = int(SECONDS / max(time.monotonic() - start, 1e-9) * LEAST_ITEMS)
        few = split.first(max(LEAST_ITEMS, min(MOST_ITEMS, affordable)))
        self._inputs, self._targets = _read(few, example, place)
        self._kinds = example.kinds or with_kinds(replace(example, inputs=_arrays(some, example)), module, None).kinds
        self._reference = Reference(self._kinds, self._outputs(module))

    def of(self, module: nn.Module) -> float:
        """The divergence of a module, at least 0; infinite where its outputs are not finite."""
        with working():
            found = self._outputs(module)
        return self._reference.divergence(found)

    def _outputs(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """The floating outputs for all calibration items, computed a few items at a time to save memory.

        Those without an axis of classes are flattened, since the items need not be their first axis; a yes or no for
        each keeps its items where they are.
        """
        parts: dict[str, list[torch.Tensor]] = {}
        starts = range(0, len(next(iter(self._inputs.values()))), LEAST_ITEMS)
        with inference_mode_of(module):
            for start in starts:
                some = slice(start, start + LEAST_ITEMS)
                inputs = {name: tensor[some] for name, tensor in self._inputs.items()}
                targets = mapped(operator.itemgetter(some), self._targets)
                outputs = floating(call_by(module, inputs, self._example))
                counted = counted_places(self._kinds, outputs, targets, inputs)
                for name, values in outputs.items():
                    fact = self._kinds.get(name)
                    if fact is not None:
                        parts.setdefault(name, []).append(compared_rows(fact, values, counted.get(name), inputs))
        return {name: torch.cat(portions) for name, portions in parts.items()}


def _distance(kind: OutputKind, found: torch.Tensor, wanted: torch.Tensor) -> float:
    value = distance(kind, found, wanted)
    assert value is not None
    return float(value)


def compared_rows(
    fact: OutputFact, values: torch.Tensor, counted: torch.Tensor | None, inputs: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """An output as it is compared; batches of it can be joined along the first axis. See `rows_of`."""
    rows = rows_of(fact, values, counted)
    if fact.axis is not None:
        return rows
    items = len(next(iter(inputs.values())))
    by_item = fact.kind in OF_YES_OR_NO and counted is None and values.shape[:1] == (items,)
    return rows.flatten(1) if by_item and rows.ndim > 1 else rows.flatten()


def _read(split: Split, example: Example, place: torch.device) -> tuple[dict[str, torch.Tensor], Any]:
    (read, targets), *_ = split.batches(len(split))
    arrays = Example(read).arrays
    known = example.arrays
    inputs = {
        name: torch.from_numpy(np.asarray(array, dtype=known[name].dtype)).to(place) for name, array in arrays.items()
    }
    return inputs, mapped(lambda array: torch.as_tensor(array).to(place), targets)


def _arrays(tensors: Mapping[str, torch.Tensor], example: Example) -> Inputs:
    arrays: dict[str, Array] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    return arrays if example.by_name else tuple(arrays.values())
