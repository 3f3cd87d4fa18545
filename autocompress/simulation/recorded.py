"""Values of a graph's tensors on calibration items, computed from one layer to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import feeds
from autocompress.core.source import Split
from autocompress.simulation.graph_module import GraphModule

Tensor = torch.Tensor
BATCH = 64
# bytes of the tensors that are kept to compute later ones from, and of one tensor on all items
MOST_BYTES = 400_000_000


class Recorded:
    """Tensors of a module on all items; some are kept, so that the next need not begin anew.

    `quantized` says whether the module rounds while they are computed. What comes before a tensor that was asked for
    must not change afterwards.
    """

    def __init__(self, module: GraphModule, inputs: Mapping[str, Tensor], *, quantized: bool) -> None:
        self._module, self._quantized = module, quantized
        rows = len(next(iter(inputs.values())))
        # in batches, since the first axis of a tensor inside need not be that of the items
        starts = range(0, rows, BATCH)
        self._inputs = [{name: value[start : start + BATCH] for name, value in inputs.items()} for start in starts]
        self._kept: dict[str, list[Tensor]] = {}

    @torch.no_grad()
    def values(self, names: Sequence[str]) -> dict[str, Tensor]:
        """These tensors on all items, one behind the other along their first axis."""
        missing = tuple(name for name in dict.fromkeys(names) if name not in self._kept)
        if missing:
            self._module.enable_quantization(weights=self._quantized, activations=self._quantized)
            made = []
            for number, batch in enumerate(self._inputs):
                known = batch | {name: parts[number] for name, parts in self._kept.items()}
                made.append(self._module.compute(known, missing))
            self._kept |= {name: [part[name] for part in made] for name in missing}
            self._module.enable_quantization()
        for name in [name for name in self._kept if name not in names]:
            if sum(part.nbytes for parts in self._kept.values() for part in parts) > MOST_BYTES:
                del self._kept[name]
        return {name: torch.cat(self._kept[name]) for name in names}

    @torch.no_grad()
    def each(self, name: str, wanted: str) -> Iterator[Tensor]:
        """A tensor on each batch of items, computed from another one; it is not kept, so that it may change."""
        self.values([name])
        for part in self._kept[name]:
            self._module.enable_quantization(weights=self._quantized, activations=self._quantized)
            found = self._module.compute({name: part}, (wanted,))[wanted]
            self._module.enable_quantization()
            yield found


def inputs_of(split: Split, artifact: Artifact) -> dict[str, Tensor]:
    """The inputs of all items of a split, by name."""
    batches = [feed for feed, _ in feeds(split, artifact, BATCH)]
    return {name: torch.from_numpy(np.concatenate([feed[name] for feed in batches])) for name in batches[0]}


def inputs_that_fit(module: GraphModule, split: Split, artifact: Artifact, names: Sequence[str]) -> dict[str, Tensor]:
    """The inputs of as many items of a split as `items_that_fit` allows for these tensors, by name."""
    inputs = inputs_of(split, artifact)
    fit = items_that_fit(module, inputs, names)
    return {name: values[:fit] for name, values in inputs.items()}


@torch.no_grad()
def items_that_fit(module: GraphModule, inputs: Mapping[str, Tensor], names: Sequence[str]) -> int:
    """How many items may be taken so that none of these tensors exceeds `MOST_BYTES`; at least one."""
    found = module.compute({name: value[:1] for name, value in inputs.items()}, names)
    rows = len(next(iter(inputs.values())))
    return max(1, min(rows, MOST_BYTES // max(value.nbytes for value in found.values())))
