"""Places of outputs that count: those with a label, and those that are no padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from autocompress.core.output_kinds import OutputFact
from autocompress.core.outputs import main_output

MASK, DECODER, ENCODER = "attention_mask", "decoder_", "encoder"


def counted_places(
    facts: Mapping[str, OutputFact],
    outputs: Mapping[str, torch.Tensor],
    targets: Any,
    inputs: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Which places of each output count, where not all do, by output name.

    Labels below 0 leave their places out, in the output that they belong to: the main one, or that of their name.
    Places whose `attention_mask` is 0 are left out of all outputs of as many places; beside a decoder its
    `decoder_attention_mask` counts instead, but for outputs named after the encoder. Shape `(n, ...)` as `rows_of`
    takes it.
    """
    found: dict[str, torch.Tensor] = {}
    for name, fact in facts.items():
        if name not in outputs:
            continue
        shape = tuple(outputs[name].shape)
        labels, mask = _labels(name, outputs, targets), _mask(name, inputs)
        if labels is not None and tuple(labels.shape) == _places(shape, fact.axis):
            found[name] = labels >= 0
        if mask is not None and mask.shape[:1] == shape[:1] and _fits(mask, shape, fact.axis):
            # labels of whole numbers have the mask's places, or more than these
            both = found.get(name)
            found[name] = mask if both is None else both & mask.reshape(*mask.shape, *[1] * (both.ndim - 2))
    return {name: places for name, places in found.items() if not bool(places.all())}


def _places(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])


def _labels(name: str, outputs: Mapping[str, torch.Tensor], targets: Any) -> torch.Tensor | None:
    """The labels of an output for each of its places; whole numbers with more axes than the items'."""
    own = targets.get(name) if isinstance(targets, Mapping) else targets if name == main_output(outputs) else None
    labels = isinstance(own, torch.Tensor) and not own.is_floating_point() and own.ndim > 1
    return own if labels else None


def _mask(name: str, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    decodes = any(one.startswith(DECODER) for one in inputs)
    mask = inputs.get(DECODER + MASK if decodes and not name.startswith(ENCODER) else MASK)
    return mask > 0 if mask is not None and mask.ndim == 2 and not mask.is_floating_point() else None


def _fits(mask: torch.Tensor, shape: tuple[int, ...], axis: int | None) -> bool:
    places = _places(shape, axis)
    return tuple(mask.shape) in (places[:2], shape)
