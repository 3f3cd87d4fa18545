"""Contract MoveSpace: what a structure technique can take from one network, and what each move leaves of it.

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
    """A technique takes `level`, above 0 and at most 1, of a `target`: a block, a kind of channel group, a layer."""

    technique: str
    target: str
    level: float = 1.0


@dataclass(frozen=True)
class Moves:
    """Moves that are taken together, at most one for each technique and target; the order makes no difference."""

    taken: tuple[Move, ...] = ()

    @staticmethod
    def of(moves: Iterable[Move]) -> Moves:
        """These moves; of several on one target the last."""
        by_target = {(move.technique, move.target): move for move in moves}
        return Moves(tuple(sorted(by_target.values())))

    def plus(self, move: Move) -> Moves:
        """These and one more, which takes the place of an earlier one on its target."""
        return Moves.of((*self.taken, move))

    def by(self, technique: str) -> Moves:
        """Those of one technique."""
        return Moves(tuple(move for move in self.taken if move.technique == technique))

    def level(self, target: str) -> float:
        """The level at which a target is taken, 0 where it is not."""
        return next((move.level for move in self.taken if move.target == target), 0.0)

    def __iter__(self) -> Iterator[Move]:
        return iter(self.taken)

    def __len__(self) -> int:
        return len(self.taken)


@dataclass(frozen=True)
class Kept:
    """The shares of a layer's MACs and parameters that a move leaves; both 0 where the layer goes."""

    macs: float
    parameters: float

    @property
    def is_gone(self) -> bool:
        """True when nothing of the layer is left."""
        return self.macs == 0.0 and self.parameters == 0.0


GONE = Kept(0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Network:
    """The original network, which is left as it is.

    `inspect` gives the facts of a module like it. Widths that are left should be multiples of `multiple`. Layers that
    `ignore` names stay. Once `out_of_time`, no further moves are looked for.
    """

    module: nn.Module
    example: Example
    facts: Facts
    inspect: Callable[[nn.Module], Facts]
    multiple: int
    ignore: Sequence[str] = ()
    out_of_time: Callable[[], bool] = lambda: False


class MoveSpace(ABC):
    """The moves of one technique in one network.

    `names` are the parts that can go; `left_alone` says why others cannot, by their name. `rebuilds` tells whether
    `applied` gives another module; those that only hook the module they are given are applied after all others.
    """

    rebuilds: ClassVar[bool]
    names: Sequence[str]
    left_alone: Mapping[str, str]

    @abstractmethod
    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        """What may be taken next after these moves of its own, when the layers in `gone` are taken by others."""

    @abstractmethod
    def kept(self, move: Move) -> Mapping[str, Kept]:
        """What a move leaves of each layer that it changes, by the layer's name."""

    @abstractmethod
    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        """This technique's moves as steps of a plan; layers in `gone` are not there any more when they are applied."""

    @abstractmethod
    def applied(self, module: nn.Module, moves: Moves) -> AbstractContextManager[nn.Module]:
        """The module with these moves, nothing trained, for looking at; it is put back afterwards.

        Raises:
            TechniqueError: when they cannot be made on it.
        """

    @abstractmethod
    def samples(self) -> Iterator[Moves]:
        """Moves whose measurement tells what each kind of part costs: half of the kind gone."""

    @abstractmethod
    def smallest(self) -> Moves:
        """The moves that leave least of the network."""
