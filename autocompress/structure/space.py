"""What of a network can go: blocks and channels, by kind, and what is left of it then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from autocompress.core.facts import Facts, LayerFact
from autocompress.core.plan import Setting, Stage, Step

# shares of a kind's channels that may go; each leaves less than the one before
WIDTH_LEVELS = (0.25, 0.5, 0.75)
LARGEST_SHARE = 0.8


@dataclass(frozen=True)
class Cut:
    """Blocks that are left out, in the order they went, and the share of channels cut from kinds of groups."""

    blocks: tuple[str, ...] = ()
    widths: tuple[tuple[str, float], ...] = ()

    def without(self, block: str) -> Cut:
        """This cut with one block more left out."""
        return replace(self, blocks=(*self.blocks, block))

    def narrowed(self, kind: str, share: float) -> Cut:
        """This cut with a kind of groups at another width."""
        return replace(self, widths=tuple(sorted({**dict(self.widths), kind: share}.items())))


@dataclass(frozen=True, eq=False)
class PruningSpace:
    """The network's layers, its blocks by name with their kind, and its groups of channels by kind.

    `shares` says for a kind of groups at one level which share of its MACs and parameters each layer keeps; layers
    that are not named keep all. `all_groups` are those of every kind, `members` the layers of each.
    """

    facts: Facts
    blocks: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]]
    shares: Mapping[tuple[str, float], Mapping[str, tuple[float, float]]]
    multiple: int
    all_groups: tuple[str, ...] = ()
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def layers(self, cut: Cut) -> list[LayerFact]:
        """The layers that are left, with what is left of their MACs and parameters."""
        left = []
        for layer in self.facts.layers:
            if _inside(layer.name, cut.blocks):
                continue
            macs, parameters = float(layer.macs), float(layer.parameters)
            for level in cut.widths:
                kept = self.shares[level].get(layer.name, (1.0, 1.0))
                macs, parameters = macs * kept[0], parameters * kept[1]
            left.append(replace(layer, macs=round(macs), parameters=round(parameters)))
        return left

    def steps(self, cut: Cut) -> tuple[Step, ...]:
        """The cut as steps of a plan: blocks first, then the channels of what is left."""
        steps = []
        if cut.blocks:
            # the order in which they went makes no difference to what is left
            names = " ".join(name for name in self.blocks if name in cut.blocks)
            steps.append(Step("block_dropping", Stage.STRUCTURE, {"blocks": names}))
        for kind, share in cut.widths:
            names = " ".join(self._left(self.groups[kind], cut))
            if names:
                steps.append(channel_step(names, share, self.multiple))
        return tuple(steps)

    def _left(self, groups: Sequence[str], cut: Cut) -> list[str]:
        """The groups that still have a layer, by the names that they have then: that of their first layer."""
        layers = (self.members.get(name, (name,)) for name in groups)
        left = ([name for name in names if not _inside(name, cut.blocks)] for names in layers)
        return [names[0] for names in left if names]

    def block_moves(self, cut: Cut) -> Iterator[Cut]:
        """The cut with one block more gone."""
        if len(cut.blocks) < int(LARGEST_SHARE * len(self.blocks)):
            for name in self.blocks:
                if name not in cut.blocks:
                    yield cut.without(name)

    def width_moves(self, cut: Cut) -> Iterator[Cut]:
        """The cut with one kind of groups at its next level."""
        levels = dict(cut.widths)
        for kind in self.groups:
            wider = [share for share in WIDTH_LEVELS if share > levels.get(kind, 0.0) and (kind, share) in self.shares]
            if wider and self._left(self.groups[kind], cut):
                yield cut.narrowed(kind, wider[0])

    def smallest(self) -> tuple[Cut, tuple[Step, ...]]:
        """What leaves least of the network: as many blocks as may go, those with most work first, and the last level of
        every group that is left. The steps narrow groups of all kinds, the cut only names those worth a look."""
        macs = max(1, sum(layer.macs for layer in self.facts.layers))
        parameters = max(1, sum(layer.parameters for layer in self.facts.layers))

        def weight(block: str) -> float:
            inside = [layer for layer in self.facts.layers if _inside(layer.name, (block,))]
            return float(sum(layer.macs / macs + layer.parameters / parameters for layer in inside))

        heaviest = sorted(self.blocks, key=lambda block: -weight(block))
        blocks = Cut(tuple(heaviest[: int(LARGEST_SHARE * len(self.blocks))]))
        names = " ".join(self._left(self.all_groups, blocks))
        narrow = (channel_step(names, WIDTH_LEVELS[-1], self.multiple),) if names else ()
        # levels ascend, so the last one of a kind stays
        levels = {kind: level for kind, level in self.shares if self._left(self.groups[kind], blocks)}
        return replace(blocks, widths=tuple(sorted(levels.items()))), (*self.steps(blocks), *narrow)

    def samples(self) -> Iterator[Cut]:
        """Cuts that tell what each kind of block and of groups costs: half of it gone, those with most work first."""
        work = {layer.name: layer.macs for layer in self.facts.layers}
        weighed: list[tuple[int, Cut]] = []
        for kind in dict.fromkeys(self.blocks.values()):
            names = [name for name, other in self.blocks.items() if other == kind]
            gone = tuple(names[: (len(names) + 1) // 2])
            macs = sum(value for layer, value in work.items() if _inside(layer, gone))
            weighed.append((macs, Cut(gone)))
        for kind in self.groups:
            if (kind, WIDTH_LEVELS[1]) in self.shares:
                kept = self.shares[kind, WIDTH_LEVELS[1]]
                macs = round(sum((1 - share) * work[name] for name, (share, _) in kept.items()))
                weighed.append((macs, Cut(widths=((kind, WIDTH_LEVELS[1]),))))
        yield from (cut for _, cut in sorted(weighed, key=lambda pair: -pair[0]))


def _inside(layer: str, blocks: Sequence[str]) -> bool:
    return layer.startswith(tuple(f"{block}." for block in blocks))


def channel_step(groups: str, share: float, multiple: int) -> Step:
    """Channels of these groups cut alike, the least important by the norm of their group first."""
    settings: dict[str, Setting] = {
        "groups": groups,
        "ratio": share,
        "scope": "uniform",
        "importance": "group_magnitude",
        "multiple": multiple,
    }
    return Step("channel_pruning", Stage.STRUCTURE, settings)


def block_kinds(facts: Facts, names: Sequence[str]) -> dict[str, str]:
    """Blocks by name with a word for their kind: blocks of one kind hold layers of the same types and shapes."""
    kinds: dict[tuple[object, ...], str] = {}
    found = {}
    for name in names:
        inside = [layer for layer in facts.layers if _inside(layer.name, (name,))]
        signature = tuple((layer.type, layer.input_shape, layer.output_shape, layer.parameters) for layer in inside)
        found[name] = kinds.setdefault(signature, f"blocks like {name}")
    return found
