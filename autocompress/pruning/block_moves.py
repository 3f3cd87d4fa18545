"""The moves of block dropping: each leaves one whole block out of a network."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from torch import nn

from autocompress.core.facts import Facts
from autocompress.core.moves import GONE, Kept, Move, Moves, MoveSpace, Network
from autocompress.core.plan import Stage, Step
from autocompress.pruning.blocks import candidate_blocks, is_ignored, not_needed, skipping

# largest share of the blocks that may be dropped
LARGEST_SHARE = 0.8


class BlockMoves(MoveSpace):
    """Moves that each leave out one of the blocks the network runs without."""

    rebuilds: ClassVar[bool] = False

    def __init__(self, technique: str, network: Network) -> None:
        self._technique, self._facts = technique, network.facts
        module, example = network.module, network.example
        candidates = candidate_blocks(module, example)
        droppable = not_needed(module, example, candidates)
        self._gives_tuple = {n: gives for n, gives in droppable.items() if not is_ignored(module, n, network.ignore)}
        self.names: Sequence[str] = tuple(self._gives_tuple)
        layers = [layer.name for layer in network.facts.layers]
        self._kept = {name: {layer: GONE for layer in layers if _inside(layer, name)} for name in self.names}
        self.left_alone: Mapping[str, str] = {
            name: "the network does not run without it." for name in candidates if name not in droppable
        }

    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        """See `MoveSpace.options`: each further block."""
        dropped = {move.target for move in taken}
        if len(dropped) < int(LARGEST_SHARE * len(self.names)):
            yield from (Move(self._technique, name) for name in self.names if name not in dropped)

    def kept(self, move: Move) -> Mapping[str, Kept]:
        """See `MoveSpace.kept`: the block's layers are removed entirely."""
        return self._kept[move.target]

    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        """See `MoveSpace.steps`: one step, with the blocks in the order of the network."""
        dropped = {move.target for move in moves}
        names = " ".join(name for name in self.names if name in dropped)
        return (Step(self._technique, Stage.STRUCTURE, {"blocks": names}),) if names else ()

    @contextmanager
    def applied(self, module: nn.Module, moves: Moves) -> Iterator[nn.Module]:
        """See `MoveSpace.applied`."""
        with skipping(module, [move.target for move in moves], self._gives_tuple):
            yield module

    def samples(self) -> Iterator[Moves]:
        """See `MoveSpace.samples`: the first half of each kind of block."""
        kinds = block_kinds(self._facts, self.names)
        for kind in dict.fromkeys(kinds.values()):
            alike = [name for name, other in kinds.items() if other == kind]
            yield self._without(alike[: (len(alike) + 1) // 2])

    def smallest(self) -> Moves:
        """See `MoveSpace.smallest`: as many blocks as allowed, those with most work and weights first."""
        layers = self._facts.layers
        macs = max(1, sum(layer.macs for layer in layers))
        parameters = max(1, sum(layer.parameters for layer in layers))

        def weight(block: str) -> float:
            inside = [layer for layer in layers if _inside(layer.name, block)]
            return float(sum(layer.macs / macs + layer.parameters / parameters for layer in inside))

        heaviest = sorted(self.names, key=lambda block: -weight(block))
        return self._without(heaviest[: int(LARGEST_SHARE * len(self.names))])

    def _without(self, blocks: Sequence[str]) -> Moves:
        return Moves.of(Move(self._technique, name) for name in blocks)


def _inside(layer: str, block: str) -> bool:
    # a block may be a layer itself, as torch's attention is
    return f"{layer}.".startswith(f"{block}.")


def block_kinds(facts: Facts, names: Sequence[str]) -> dict[str, str]:
    """The kind of each block, by the block's name.

    Blocks of one kind hold layers of the same types and shapes.
    """
    kinds: dict[tuple[object, ...], str] = {}
    found = {}
    for name in names:
        inside = [layer for layer in facts.layers if _inside(layer.name, name)]
        signature = tuple((layer.type, layer.input_shape, layer.output_shape, layer.parameters) for layer in inside)
        found[name] = kinds.setdefault(signature, f"blocks like {name}")
    return found
