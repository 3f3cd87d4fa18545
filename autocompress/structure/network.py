"""A network that cuts are tried on: its anatomy, and itself with a cut made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.facts import Facts
from autocompress.core.runtime import Example
from autocompress.errors import ModelError, TechniqueError
from autocompress.pruning.blocks import candidate_blocks, is_ignored, not_needed, skipping
from autocompress.pruning.channel_groups import Group, cut, outlined, prunable_groups
from autocompress.pruning.selection import Selection
from autocompress.structure.space import WIDTH_LEVELS, Cut, PruningSpace, block_kinds, channel_step
from autocompress.techniques.channel_pruning import selection_of

# kinds of groups whose widths are worth a look: those whose layers do most of the work
MOST_KINDS = 5
LEAST_WORK = 0.02


class PrunableNetwork:
    """The original network, which is left as it is, with what can go from it and why the rest cannot.

    Channels that are left are a multiple of `multiple`. Layers that `ignore` names stay. Once `out_of_time`, no further
    kinds and levels of widths are looked at; those that do most of the work come first.
    """

    def __init__(
        self,
        module: nn.Module,
        example: Example,
        facts: Facts,
        multiple: int,
        ignore: Sequence[str] = (),
        out_of_time: Callable[[], bool] = lambda: False,
    ) -> None:
        self._module, self._example, self._multiple = module, example, multiple
        candidates = candidate_blocks(module, example)
        blocks = not_needed(module, example, candidates)
        needed = (name for name in candidates if name not in blocks)
        self._blocks = {name: kind for name, kind in blocks.items() if not is_ignored(module, name, ignore)}
        self._narrowed: tuple[tuple[tuple[str, float], ...], nn.Module] = ((), module)
        try:
            prunable = prunable_groups(module, example, ignore, out_of_time)
            groups, self.left_alone = prunable.groups, prunable.left_alone
        except (TechniqueError, ModelError) as error:
            groups, self.left_alone = (), {"the whole network": error.message}
        self.left_alone = {**dict.fromkeys(needed, "the network does not run without it."), **self.left_alone}
        kinds = _worthwhile(groups, facts)
        shares: dict[tuple[str, float], Mapping[str, tuple[float, float]]] = {}
        for kind, level in product(kinds, WIDTH_LEVELS):
            if not shares or not out_of_time():
                shares[kind, level] = self._shares(kinds[kind], level, facts)
        self.pruning_space = PruningSpace(
            facts,
            block_kinds(facts, list(self._blocks)),
            kinds,
            {level: kept for level, kept in shares.items() if kept},
            multiple,
            tuple(group.name for group in groups),
            {group.name: group.layers for group in groups},
        )

    def with_cut(self, cut: Cut, look: Callable[[nn.Module], float]) -> float:
        """What `look` sees in the network with a cut made, nothing trained; infinite where it cannot be made."""
        try:
            narrowed = self._at(cut.widths)
        except TechniqueError:
            return float("inf")
        with skipping(narrowed, cut.blocks, self._blocks):
            return look(narrowed)

    def _at(self, widths: tuple[tuple[str, float], ...]) -> nn.Module:
        if self._narrowed[0] != widths:
            module = self._module
            for kind, share in widths:
                module = self._narrow(module, self.pruning_space.groups[kind], share)
            self._narrowed = widths, module
        return self._narrowed[1]

    def _narrow(self, module: nn.Module, groups: Sequence[str], share: float) -> nn.Module:
        return cut(module, self._example, self._selection(groups, share))

    def _selection(self, groups: Sequence[str], share: float) -> Selection:
        # of the very step that a plan will hold
        return selection_of(channel_step(" ".join(groups), share, self._multiple).settings)

    def _shares(self, groups: Sequence[str], level: float, facts: Facts) -> Mapping[str, tuple[float, float]]:
        """What each layer that changes keeps of its MACs and parameters; nothing where the level cannot be had."""
        try:
            outline = outlined(self._module, self._example, self._selection(groups, level))
            narrowed = inspect_module(outline, self._example)
        except (TechniqueError, ModelError):
            return {}
        before = {layer.name: layer for layer in facts.layers}
        return {
            layer.name: (_share(layer.macs, before[layer.name].macs), _share(layer.parameters, old))
            for layer in narrowed.layers
            if (old := before[layer.name].parameters) != layer.parameters
        }


def _share(now: int, before: int) -> float:
    return now / before if before else 1.0


def _worthwhile(groups: Sequence[Group], facts: Facts) -> dict[str, tuple[str, ...]]:
    """Groups by kind, the kinds with most work first; those with hardly any are left out."""
    work = {layer.name: layer.macs for layer in facts.layers}
    total = max(1, sum(work.values()))
    kinds: dict[str, list[Group]] = {}
    for group in groups:
        kinds.setdefault(group.kind, []).append(group)
    weight = {
        kind: sum(work.get(name, 0) for group in members for name in group.layers) / total
        for kind, members in kinds.items()
    }
    heaviest = sorted((kind for kind in kinds if weight[kind] >= LEAST_WORK), key=lambda kind: -weight[kind])
    return {kind: tuple(group.name for group in kinds[kind]) for kind in heaviest[:MOST_KINDS]}
