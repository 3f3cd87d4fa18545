"""Weights that are rounded to a learned table of values while a quantized file is trained.

The gradient of an entry is the sum of those of the weights that share it (Han, Mao and Dally, "Deep Compression", ICLR
2016, section 3), over the square root of their number, as Esser et al. ("Learned Step Size Quantization", ICLR 2020,
section 2.2) do it for scales; that of a weight passes unchanged, so that it may move to another entry.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autocompress.runtimes.palette_storage import Palette, palette_of
from autocompress.simulation.fake_quantization import StoredQuantizer, rounded
from autocompress.simulation.graph_module import GraphModule

Tensor = torch.Tensor


class PaletteRounding(nn.Module):
    """Rounds a weight's whole numbers, less its zero point, to entries of the table of their group.

    A group is a range of the first axis. `entries`, of shape `(groups, number of entries)`, are kept in about the unit
    of the weight, so that one learning rate suits both.
    """

    unit: Tensor

    def __init__(self, weight: StoredQuantizer, table: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("unit", weight.current_scale().mean())
        self.entries = nn.Parameter(torch.from_numpy(table) * self.unit)

    def forward(self, scaled: Tensor) -> Tensor:
        """The nearest entries, in whole numbers."""
        groups, count = self.entries.shape
        flat = scaled.reshape(groups, -1)
        share = 1 / math.sqrt(max(1.0, flat.shape[1] / count))
        # the gradient of an entry is scaled; its value is not
        entries = self.entries.detach() + share * (self.entries - self.entries.detach())
        ascending = entries.sort(dim=1).values / self.unit
        middles = ((ascending[:, 1:] + ascending[:, :-1]) / 2).detach().contiguous()
        places = torch.stack([torch.bucketize(one, middle) for one, middle in zip(flat.detach(), middles, strict=True)])
        chosen = rounded(ascending).gather(1, places)
        # straight through for the weight itself: the difference is 0
        return (chosen + (flat - flat.detach())).reshape(scaled.shape)


def use_palette(weight: StoredQuantizer, palette: Palette) -> None:
    """Round a weight to the entries of a palette from now on, and begin with what the palette holds."""
    zero = weight.levels.spread(weight.zero_point, 1).reshape(-1)[0].numpy()
    with torch.no_grad():
        whole = torch.from_numpy(palette.values().astype(np.float32) - zero)
        weight.value.copy_(whole * weight.steps(weight.value.dim(), 1))
    weight.rounding = PaletteRounding(weight, palette.entries.astype(np.float32) - zero)


def palettes_in(module: GraphModule) -> dict[str, Palette]:
    """The palettes of the weights that are rounded to some, as they are now, by the names of the tensors."""
    found: dict[str, Palette] = {}
    for name, weight in module.stored_weights().items():
        if isinstance(weight.rounding, PaletteRounding):
            values = weight.whole_numbers()
            found[name] = palette_of(values, len(weight.rounding.entries))
    return found
