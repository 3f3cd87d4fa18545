"""Contract MoveSpace: the moves by which a structure technique makes one network smaller.

The space of structures, the path through it, the latency and size models, bisection and training work on moves and name
no technique.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from autocompress.core.facts import Facts
from autocompress.core.plan import Step
from autocompress.core.runtime import Example

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, order=True)
class Move:
    """One change by a structure technique: it removes the share `level` of a `target`.

    `level` is above 0 and at most 1; a target is a block, a kind of channel group, a layer.
    """

    technique: str
    target: str
    level: float = 1.0


@dataclass(frozen=True)
class Moves:
    """A set of moves that are made together, at most one for each technique and target.

    Their order makes no difference.
    """

    taken: tuple[Move, ...] = ()

    @staticmethod
    def of(moves: Iterable[Move]) -> Moves:
        """The set of these moves; of several on one target the last counts."""
        by_target = {(move.technique, move.target): move for move in moves}
        return Moves(tuple(sorted(by_target.values())))

    def plus(self, move: Move) -> Moves:
        """The set with one more move, which replaces an earlier one on its target."""
        return Moves.of((*self.taken, move))

    def by(self, technique: str) -> Moves:
        """The moves of one technique."""
        return Moves(tuple(move for move in self.taken if move.technique == technique))

    def level(self, target: str) -> float:
        """The level of the move on a target, 0 where there is none."""
        return next((move.level for move in self.taken if move.target == target), 0.0)

    def __iter__(self) -> Iterator[Move]:
        return iter(self.taken)

    def __len__(self) -> int:
        return len(self.taken)


@dataclass(frozen=True)
class Kept:
    """Shares of a layer's MACs and parameters that a move leaves; both 0 where the layer is removed."""

    macs: float
    parameters: float

    @property
    def is_gone(self) -> bool:
        """True when the layer is removed entirely."""
        return self.macs == 0.0 and self.parameters == 0.0


GONE = Kept(0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Network:
    """The original network, from which techniques derive their moves; it is not changed.

    `inspect` gives the facts of a module like it. Remaining widths should be multiples of `multiple`. Layers that
    `ignore` names stay. Once `out_of_time` returns True, no further moves are looked for.
    """

    module: nn.Module
    example: Example
    facts: Facts
    inspect: Callable[[nn.Module], Facts]
    multiple: int
    ignore: Sequence[str] = ()
    out_of_time: Callable[[], bool] = lambda: False


class MoveSpace(ABC):
    """All moves of one technique in one network.

    `names` are the targets that can be removed or narrowed; `left_alone` maps the others to the reason why they cannot.
    `rebuilds` tells whether `applied` gives another module; techniques that only hook the given module are applied
    last.
    """

    rebuilds: ClassVar[bool]
    names: Sequence[str]
    left_alone: Mapping[str, str]

    @abstractmethod
    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        """The moves that may follow after `taken`, this technique's moves so far.

        Layers in `gone` are removed by other techniques.
        """

    @abstractmethod
    def kept(self, move: Move) -> Mapping[str, Kept]:
        """For each layer that a move changes, by name, the share of it that is left."""

    @abstractmethod
    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        """The moves of this technique as steps of a plan.

        Layers in `gone` are already removed when the steps are applied.
        """

    @abstractmethod
    def applied(self, module: nn.Module, moves: Moves) -> AbstractContextManager[nn.Module]:
        """The module with these moves made and nothing trained, restored afterwards.

        Raises:
            TechniqueError: when they cannot be made on it.
        """

    @abstractmethod
    def samples(self) -> Iterator[Moves]:
        """Sets of moves to measure, each with half of one kind of target removed, to learn what it costs."""

    @abstractmethod
    def smallest(self) -> Moves:
        """The moves that leave the smallest network."""
