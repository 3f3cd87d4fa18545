"""The space of structures: the moves of all structure techniques in one network, combined."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.core.facts import LayerFact
from autocompress.core.moves import Kept, Move, Moves, MoveSpace, Network
from autocompress.core.plan import Step
from autocompress.errors import ModelError, TechniqueError, raised_as

ALL = Kept(1.0, 1.0)


class NoMoves(MoveSpace):
    """The empty space of a technique that failed on the network; `reason` says how."""

    rebuilds: ClassVar[bool] = False
    names: Sequence[str] = ()

    def __init__(self, reason: str) -> None:
        self.left_alone = {"all of them": reason}

    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        """See `MoveSpace.options`."""
        return iter(())

    def kept(self, move: Move) -> Mapping[str, Kept]:
        """See `MoveSpace.kept`."""
        return {}

    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        """See `MoveSpace.steps`."""
        return ()

    def applied(self, module: nn.Module, moves: Moves) -> AbstractContextManager[nn.Module]:
        """See `MoveSpace.applied`."""
        return nullcontext(module)

    def samples(self) -> Iterator[Moves]:
        """See `MoveSpace.samples`."""
        return iter(())

    def smallest(self) -> Moves:
        """See `MoveSpace.smallest`."""
        return Moves()


@dataclass(frozen=True, eq=False)
class PruningSpace:
    """A network with the moves of each structure technique, in the techniques' order in a plan."""

    network: Network
    spaces: Mapping[str, MoveSpace]

    def layers(self, moves: Moves) -> list[LayerFact]:
        """The layers that remain after these moves, with their remaining MACs and parameters."""
        changes = [self.spaces[move.technique].kept(move) for move in moves]
        left = []
        for layer in self.network.facts.layers:
            macs, parameters, gone = float(layer.macs), float(layer.parameters), False
            for kept in (change.get(layer.name, ALL) for change in changes):
                macs, parameters, gone = macs * kept.macs, parameters * kept.parameters, gone or kept.is_gone
            if not gone:
                left.append(replace(layer, macs=round(macs), parameters=round(parameters)))
        return left

    def steps(self, moves: Moves) -> tuple[Step, ...]:
        """The moves as steps of a plan, technique by technique."""
        steps: list[Step] = []
        gone: set[str] = set()
        for name, space in self.spaces.items():
            steps += space.steps(moves.by(name), gone)
            gone |= self._gone(moves.by(name))
        return tuple(steps)

    def _gone(self, moves: Moves) -> set[str]:
        return {
            layer for move in moves for layer, kept in self.spaces[move.technique].kept(move).items() if kept.is_gone
        }

    def options(self, taken: Moves, techniques: Collection[str]) -> Iterator[Move]:
        """The moves that these techniques may make next."""
        for name in techniques:
            others = Moves(tuple(move for move in taken if move.technique != name))
            yield from self.spaces[name].options(taken.by(name), self._gone(others))

    def look(self, moves: Moves, seen: Callable[[nn.Module], float]) -> float:
        """The value of `seen` for the untrained network with these moves; infinite where it cannot be had."""
        # hooks would be lost in a copy, so techniques that only hook the module come last
        order = sorted(self.spaces, key=lambda name: not self.spaces[name].rebuilds)
        with ExitStack() as stack:
            module = self.network.module
            try:
                for name in order:
                    if mine := moves.by(name):
                        with raised_as(TechniqueError, name):
                            module = stack.enter_context(self.spaces[name].applied(module, mine))
                return seen(module)
            except (TechniqueError, ModelError, RuntimeError, MemoryError):
                # the last two are what torch raises where the parts that are left do not fit together
                return float("inf")

    def smallest(self) -> Moves:
        """The moves that leave the smallest network: the smallest by each technique, taken together."""
        return Moves.of(move for space in self.spaces.values() for move in space.smallest())

    def samples(self) -> list[Moves]:
        """Sets of moves whose measurement shows what each kind of part costs.

        Those that save most work come first.
        """
        work = {layer.name: layer.macs for layer in self.network.facts.layers}
        found = [moves for space in self.spaces.values() for moves in space.samples()]

        def saved(moves: Moves) -> float:
            left = {layer.name: layer.macs for layer in self.layers(moves)}
            return sum(macs - left.get(name, 0) for name, macs in work.items())

        return sorted(found, key=lambda moves: -saved(moves))
