"""The moves of channel pruning: each narrows one kind of channel groups to the next level."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import ClassVar

from torch import nn

from autocompress.core.facts import Facts
from autocompress.core.moves import Kept, Move, Moves, MoveSpace, Network
from autocompress.core.plan import Setting, Stage, Step
from autocompress.errors import ModelError, TechniqueError
from autocompress.pruning.channel_groups import Group, cut, outlined, prunable_groups
from autocompress.pruning.selection import Selection

# levels of a move, the share of a kind's channels that is cut; each leaves less than the one before
WIDTH_LEVELS = (0.25, 0.5, 0.75)
# limits on the kinds of groups that get moves: those whose layers do most of the work
MOST_KINDS = 5
LEAST_WORK = 0.02
# target of the move that narrows the groups of all kinds, including kinds without moves of their own
ALL_GROUPS = "all groups"
IMPORTANCE = "group_magnitude"
SCOPE = "uniform"


class ChannelMoves(MoveSpace):
    """Moves that narrow a kind of channel groups to one of three widths.

    The kinds that do most of the work have moves of their own. Once the network's `out_of_time` returns True, no
    further kinds and levels are looked at.
    """

    rebuilds: ClassVar[bool] = True

    def __init__(self, technique: str, network: Network) -> None:
        self._technique, self._network = technique, network
        groups: Sequence[Group] = ()
        self.left_alone: Mapping[str, str]
        try:
            prunable = prunable_groups(network.module, network.example, network.ignore, network.out_of_time)
            groups, self.left_alone = prunable.groups, prunable.left_alone
        except (TechniqueError, ModelError) as error:
            self.left_alone = {"the whole network": error.message}
        self.names: Sequence[str] = tuple(group.name for group in groups)
        self.kinds = worthwhile_kinds(groups, network.facts)
        self._names = {group.name: group.names for group in groups}
        self._kept: dict[tuple[str, float], Mapping[str, Kept]] = {}
        looked = False
        for kind, level in product(self.kinds, WIDTH_LEVELS):
            if looked and network.out_of_time():
                break
            looked = True
            kept = self._kept_by(self.kinds[kind], level)
            if kept:
                self._kept[kind, level] = kept
        # the last network made: the same moves are often asked for again, and making them takes seconds
        self._last: tuple[Moves, nn.Module] = (Moves(), network.module)

    def _kept_by(self, groups: Sequence[str], level: float) -> Mapping[str, Kept]:
        """The share that each changed layer keeps; empty where the level cannot be reached."""
        selection = self._selection(" ".join(groups), level)
        try:
            narrowed = self._network.inspect(outlined(self._network.module, self._network.example, selection))
        except (TechniqueError, ModelError):
            return {}
        before = {layer.name: layer for layer in self._network.facts.layers}
        return {
            layer.name: Kept(_share(layer.macs, before[layer.name].macs), _share(layer.parameters, old))
            for layer in narrowed.layers
            if (old := before[layer.name].parameters) != layer.parameters
        }

    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        """See `MoveSpace.options`: the next level of each kind."""
        for kind, groups in self.kinds.items():
            wider = [level for level in WIDTH_LEVELS if level > taken.level(kind) and (kind, level) in self._kept]
            if wider and self._left(groups, gone):
                yield Move(self._technique, kind, wider[0])

    def kept(self, move: Move) -> Mapping[str, Kept]:
        """See `MoveSpace.kept`."""
        if move.target != ALL_GROUPS:
            return self._kept.get((move.target, move.level), {})
        found: dict[str, Kept] = {}
        # levels ascend, so the largest one of each kind remains
        last = {kind: level for kind, level in self._kept if level <= move.level}
        for kind, level in last.items():
            for layer, kept in self._kept[kind, level].items():
                before = found.get(layer, Kept(1.0, 1.0))
                found[layer] = Kept(before.macs * kept.macs, before.parameters * kept.parameters)
        return found

    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        """See `MoveSpace.steps`: one step for each kind."""
        steps = []
        for move in moves:
            groups = self.names if move.target == ALL_GROUPS else self.kinds[move.target]
            if names := " ".join(self._left(groups, gone)):
                steps.append(Step(self._technique, Stage.STRUCTURE, self._settings(names, move.level)))
        return tuple(steps)

    def _left(self, groups: Sequence[str], gone: Collection[str]) -> list[str]:
        """Present names of the groups that still have a layer which can name them."""
        left = ([name for name in self._names[group] if name not in gone] for group in groups)
        return [names[0] for names in left if names]

    def _settings(self, groups: str, level: float) -> dict[str, Setting]:
        """Settings that cut these groups alike, the channels with the smallest group norm first."""
        return {
            "groups": groups,
            "ratio": level,
            "scope": SCOPE,
            "importance": IMPORTANCE,
            "multiple": self._network.multiple,
        }

    def _selection(self, groups: str, level: float) -> Selection:
        return Selection(level, tuple(groups.split()), SCOPE, IMPORTANCE, self._network.multiple)

    @contextmanager
    def applied(self, module: nn.Module, moves: Moves) -> Iterator[nn.Module]:
        """See `MoveSpace.applied`."""
        original = module is self._network.module
        if original and self._last[0] == moves:
            yield self._last[1]
            return
        narrowed = module
        for move in moves:
            groups = self.names if move.target == ALL_GROUPS else self.kinds[move.target]
            narrowed = cut(narrowed, self._network.example, self._selection(" ".join(groups), move.level))
        if original:
            self._last = moves, narrowed
        yield narrowed

    def samples(self) -> Iterator[Moves]:
        """See `MoveSpace.samples`: each kind at half of its width."""
        for kind in self.kinds:
            if (kind, WIDTH_LEVELS[1]) in self._kept:
                yield Moves.of([Move(self._technique, kind, WIDTH_LEVELS[1])])

    def smallest(self) -> Moves:
        """See `MoveSpace.smallest`: all groups that remain at the last level."""
        return Moves.of([Move(self._technique, ALL_GROUPS, WIDTH_LEVELS[-1])] if self.names else [])


def worthwhile_kinds(groups: Sequence[Group], facts: Facts) -> dict[str, tuple[str, ...]]:
    """Groups by kind, the kinds with most work first; kinds with hardly any work are left out."""
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


def _share(now: int, before: int) -> float:
    return now / before if before else 1.0
