"""How weights are distributed, which decides how well quantization, pruning and low rank work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from autocompress.analysis.inspection import WORK
from autocompress.core.facts import Facts, WeightFact

NEAR_ZERO = 0.01
OUTLIER = 6.0
ENERGY = 0.9
# the time for a spectrum grows with the cube of the matrix's narrower side: only the largest layers, up to this width
MOST_SPECTRA = 8
WIDEST = 1024


def with_weights(facts: Facts, module: nn.Module) -> Facts:
    """Add to the facts how the largest weight tensor of every layer with work is distributed.

    Output channels come first. The spectrum is that of the matrix of output channels by everything else, of the largest
    layers that are not depthwise, through the eigenvalues of its Gram matrix in double precision.
    """
    tensors = {layer.name: _largest(module.get_submodule(layer.name)) for layer in facts.layers if layer.kind in WORK}
    return with_distributions(facts, {name: weight for name, weight in tensors.items() if weight is not None})


def with_distributions(facts: Facts, tensors: Mapping[str, torch.Tensor]) -> Facts:
    """Add to the facts how these weights of layers are distributed; see `with_weights`."""
    found = {name: _distribution(weight) for name, weight in tensors.items()}
    for name in sorted(tensors, key=lambda name: -tensors[name].numel())[:MOST_SPECTRA]:
        matrix = tensors[name].flatten(1)
        if 1 < min(matrix.shape) <= WIDEST:
            found[name] = replace(found[name], rank=_rank(matrix))
    return replace(facts, weights=found)


def _largest(part: nn.Module) -> torch.Tensor | None:
    weights = [tensor.detach() for tensor in part.parameters() if tensor.dim() > 1 and tensor.is_floating_point()]
    return max(weights, key=torch.numel, default=None)


def _distribution(weight: torch.Tensor) -> WeightFact:
    rows = weight.flatten(1)
    std, mean = torch.std_mean(rows.float(), correction=0)
    ranges = rows.abs().amax(dim=1).float()
    largest, median = float(ranges.max()), float(ranges.median())
    near_zero = int((rows.abs() < NEAR_ZERO * largest).sum()) if largest > 0 else rows.numel()
    return WeightFact(
        float(mean),
        float(std),
        near_zero / rows.numel(),
        float((ranges > OUTLIER * float(std)).float().mean()) if float(std) > 0 else 0.0,
        largest / median if median > 0 else 1.0,
    )


def _rank(matrix: torch.Tensor) -> float | None:
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    # float32 sums of long rows lose the small singular values
    energy = torch.linalg.eigvalsh((wide @ wide.T).double()).flip(0).clamp(min=0)
    total = float(energy.sum())
    if not math.isfinite(total) or total <= 0:
        return None
    needed = int((energy.cumsum(0) < ENERGY * total).sum()) + 1
    return needed / len(energy)
