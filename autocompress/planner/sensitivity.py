"""Which blocks matter least: greedy, by the measured change of the network's outputs when a block is skipped."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autocompress.blocks import droppable_blocks, skipping
from autocompress.module import inference_mode_of
from autocompress.probes import BlockProbe
from autocompress.recovery import call_by
from autocompress.runtime import Example
from autocompress.source import Part
from autocompress.turns import working

ITEMS = 256
LARGEST_SHARE = 0.6


def order_blocks(
    module: nn.Module, example: Example, part: Part, said: Callable[[str], None] = lambda sentence: None
) -> tuple[BlockProbe, ...]:
    """Blocks in the order in which they can go, with the divergence of the outputs once they and all before are gone.

    Divergence is KL(original || changed) of the class probabilities, or the squared distance over the original's
    variance for other outputs, on `ITEMS` calibration items. It is measured again as blocks go; a block that was
    worse than the best before is not measured again before its turn (lazy greedy; Minoux 1978), since skipping more
    hardly makes a block matter less. Stops at `LARGEST_SHARE` of the blocks.
    """
    kinds = droppable_blocks(module, example)
    most = int(LARGEST_SHARE * len(kinds))
    if most == 0:
        return ()
    inputs = _inputs(part, example)
    with inference_mode_of(module):
        wanted = _outputs(module, inputs, example)

        def divergence(blocks: list[str]) -> float:
            with working(), skipping(module, blocks, kinds):
                return _divergence(wanted, _outputs(module, inputs, example))

        order: list[BlockProbe] = []
        queue = [(divergence([name]), 0, name) for name in kinds]
        heapq.heapify(queue)
        while queue and len(order) < most:
            _, measured_at, name = heapq.heappop(queue)
            dropped = [probe.name for probe in order]
            if measured_at == len(order):
                found = divergence([*dropped, name])
                order.append(BlockProbe(name, found))
                said(f"{len(order)} of {most} blocks ordered")
            else:
                heapq.heappush(queue, (divergence([*dropped, name]), len(order), name))
    return tuple(order)


def _inputs(part: Part, example: Example) -> dict[str, torch.Tensor]:
    (read, _), *_ = part.first(ITEMS).batches(ITEMS)
    arrays = Example(read).arrays
    known = example.arrays
    return {name: torch.from_numpy(np.asarray(array, dtype=known[name].dtype)) for name, array in arrays.items()}


def _outputs(module: nn.Module, inputs: dict[str, torch.Tensor], example: Example) -> torch.Tensor:
    return call_by(module, inputs, by_name=example.by_name).float()


def _divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
    if wanted.ndim == 2 and wanted.shape[1] > 1:
        log_wanted, log_found = (functional.log_softmax(values, 1) for values in (wanted, found))
        return float(functional.kl_div(log_found, log_wanted, log_target=True, reduction="batchmean"))
    return float((wanted - found).square().mean() / wanted.var().clamp_min(1e-12))
