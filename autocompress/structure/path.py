"""Pruning paths through the space of structures, found by a greedy search.

A path is a sequence of nested structures, ordered by what each move costs in the outputs and saves in latency or size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from autocompress.core.moves import Move, Moves
from autocompress.core.probes import PruningPath, Structure
from autocompress.planner.target import Target
from autocompress.structure.space import PruningSpace

# a path ends at this share of the target, beyond the budgets, since measurements may differ from predictions
BEYOND = 0.75
LEAST_INCREASE = 1e-6
# least part of the distance to the target that a move has to cover to be worth its divergence
LEAST_PROGRESS = 0.01

Options = Callable[[Moves], Iterator[Move]]


@dataclass(frozen=True)
class PathPoint:
    """A point on a path: the moves so far, the measured divergence, and the predicted latency and size."""

    moves: Moves
    divergence: float
    latency: float
    size: float


@dataclass(eq=False)
class GreedySearch:
    """Greedy search for a path: each move has the least added divergence per progress towards the target.

    Divergence is measured again as moves are added, but not for moves that were worse than the best before (lazy
    greedy; Minoux 1978), since leaving out more hardly makes a part matter less. With several budgets the covering
    problem's greedy rule weighs each by what is still missing (Dobson 1982). Once `out_of_time` returns True, moves are
    ordered by what is known of them, and those of which nothing is known count as equally harmful. `tell` is called for
    every move.
    """

    predict: Callable[[Moves], tuple[float, float]]
    diverges: Callable[[Moves], float]
    target: Target
    to_the_end: bool = False
    tell: Callable[[str], None] = lambda sentence: None
    out_of_time: Callable[[], bool] = lambda: False

    def path(self, options: Options) -> list[PathPoint]:
        """The points of the path, one move after the other."""
        moves, divergence = Moves(), 0.0
        start = here = self.predict(moves)
        known: dict[Move, float] = {}
        points: list[PathPoint] = []
        while self.to_the_end or not self.target.reached(*here, factor=BEYOND):
            best = self._best(moves, divergence, here, start, known, options)
            if best is None:
                break
            moves, divergence = best
            here = self.predict(moves)
            points.append(PathPoint(moves, divergence, *here))
            self.tell(f"{len(points)} cuts ordered, {here[0]:.2f}x latency and {here[1]:.2f}x size predicted")
        return points

    def expected(self, path: Sequence[PathPoint]) -> PathPoint | None:
        """The first point expected to keep the budgets, else the last; None on an empty path."""
        return path[self.target.expected([(one.latency, one.size) for one in path])[0]] if path else None

    def _best(
        self,
        moves: Moves,
        divergence: float,
        here: tuple[float, float],
        start: tuple[float, float],
        known: dict[Move, float],
        options: Options,
    ) -> tuple[Moves, float] | None:
        worth: dict[Move, float] = {}
        for move in options(moves):
            progress = self.target.progress(here, self.predict(moves.plus(move)), start)
            if progress >= LEAST_PROGRESS or (progress > 0 and self.target.reached(*here)):
                worth[move] = progress
        fresh: dict[Move, float] = {}
        if worth and self.out_of_time():
            usual = max(known.values(), default=LEAST_INCREASE)
            best = min(worth, key=lambda move: known.get(move, usual) / worth[move])
            return moves.plus(best), divergence + known.get(best, usual)
        while worth:
            # moves whose divergence was never measured come first
            best = min(worth, key=lambda move: known.get(move, 0.0) / worth[move])
            if best in fresh:
                return moves.plus(best), fresh[best]
            fresh[best] = self.diverges(moves.plus(best))
            known[best] = max(fresh[best] - divergence, LEAST_INCREASE)
        return None


def path_of(name: str, points: Sequence[PathPoint], space: PruningSpace) -> PruningPath:
    """The pruning path with the steps of each point's structure."""
    return PruningPath(
        name,
        tuple(Structure(space.steps(one.moves), one.divergence, one.latency, one.size) for one in points),
    )


def options_of(space: PruningSpace, techniques: Collection[str]) -> Options:
    """A function that gives the next moves that these techniques allow."""
    return lambda taken: space.options(taken, techniques)
