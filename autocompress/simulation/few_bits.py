"""Weights of fewer bits than the type that stores them: levels in use, and scales that fit.

The scale of each channel is the one with the least squared error among shares of that which reaches the largest weight
(Banner, Nahshan and Soudry, "Post Training 4-bit Quantization of Convolutional Networks for Rapid-Deployment", NeurIPS
2019, cut weights off in the same way, by a formula).
"""

from __future__ import annotations

import torch

from autocompress.errors import TechniqueError
from autocompress.simulation.fake_quantization import BiasQuantizer, Levels, StoredQuantizer
from autocompress.simulation.graph_module import GraphModule

# shares of the scale that reaches the largest weight
SHARES = tuple(share / 40 for share in range(16, 43))


def limit_bits(module: GraphModule, bits: int) -> None:
    """Let each layer's weights use 2^bits whole numbers around zero, with scales that fit.

    The file's tensors keep their type.

    Raises:
        TechniqueError: when a weight has zero points that differ by channel.
    """
    weights = dict.fromkeys(layer.weight for layer in module.layers())
    for weight in weights:
        if not isinstance(weight, BiasQuantizer):
            _limit(weight, bits)


@torch.no_grad()
def _limit(weight: StoredQuantizer, bits: int) -> None:
    zeros = weight.zero_point.reshape(-1)
    if not bool((zeros == zeros[0]).all()):
        raise TechniqueError(f"weights of {bits} bits need the same zero point in all channels.", where="simulation")
    zero, full = float(zeros[0]), weight.levels.high - weight.levels.low
    steps = 2.0**bits - 1
    # zero stays at its share of the range
    below = round((zero - weight.levels.low) / full * steps)
    weight.levels = Levels(zero - below, zero - below + steps, weight.levels.axis)
    weight.scale.copy_(_best_scale(weight, float(below), steps - below))


def _best_scale(weight: StoredQuantizer, below: float, above: float) -> torch.Tensor:
    """The scales with the least squared error of the weights, in the shape of those that are stored."""
    value, scale = weight.value, weight.scale
    rank, axis = value.dim(), weight.levels.axis
    axes = [place for place in range(rank) if axis is None or scale.numel() == 1 or place != axis % rank]

    def over(x: torch.Tensor, kind: str) -> torch.Tensor:
        found: torch.Tensor = (x.amax(axes) if kind == "largest" else x.sum(axes)) if axes else x
        return found.reshape(scale.shape)

    high = over(value.clamp_min(0), "largest") / max(above, 0.5)
    low = over((-value).clamp_min(0), "largest") / max(below, 0.5)
    # a channel of zeros keeps its scale
    reach = torch.where(torch.maximum(high, low) > 0, torch.maximum(high, low), scale)
    best, least = reach, torch.full_like(reach, torch.inf)
    for share in SHARES:
        steps = weight.levels.spread(reach * share, rank)
        error = over(((value / steps).round().clamp(-below, above) * steps - value).square(), "sum")
        best = torch.where(error < least, reach * share, best)
        least = torch.minimum(error, least)
    return best
