"""Ways down: nested structures in the order of what they cost in outputs and save in time and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from autocompress.core.probes import PruningPath, Structure
from autocompress.planner.target import Target
from autocompress.structure.space import Cut, PruningSpace

# a way goes on beyond the budgets, since what is predicted may not be what will be measured
BEYOND = 0.75
LEAST_INCREASE = 1e-6
# a move that covers less of the way than this is not worth its harm, however small
LEAST_PROGRESS = 0.01

Moves = Callable[[Cut], Iterator[Cut]]


@dataclass(frozen=True)
class PathPoint:
    """A cut on a pruning path, how far the outputs have moved by then, and what is predicted of it."""

    cut: Cut
    divergence: float
    latency: float
    size: float


@dataclass(eq=False)
class GreedySearch:
    """Greedy: the move with the least increase of divergence for each part of the way that it covers.

    Divergence is measured again as things go, but not for moves that were worse than the best before (lazy greedy;
    Minoux 1978), since leaving out more hardly makes a part matter less. With several budgets the covering problem's
    greedy rule weighs each by what is still missing (Dobson 1982). Once `out_of_time`, moves are weighed by what is
    known of them, and those of which nothing is known count as equally harmful.
    """

    predict: Callable[[Cut], tuple[float, float]]
    diverges: Callable[[Cut], float]
    target: Target
    to_the_end: bool = False
    said: Callable[[str], None] = lambda sentence: None
    out_of_time: Callable[[], bool] = lambda: False

    def path(self, *moves: Moves) -> list[PathPoint]:
        """The cuts that these moves lead to, one move after the other."""
        cut, divergence = Cut(), 0.0
        start = here = self.predict(cut)
        known: dict[object, float] = {}
        path: list[PathPoint] = []
        while self.to_the_end or not self.target.reached(*here, factor=BEYOND):
            best = self._best(cut, divergence, here, start, known, moves)
            if best is None:
                break
            cut, divergence = best
            here = self.predict(cut)
            path.append(PathPoint(cut, divergence, *here))
            self.said(f"{len(path)} cuts ordered, {here[0]:.2f}x latency and {here[1]:.2f}x size predicted")
        return path

    def expected(self, path: Sequence[PathPoint]) -> PathPoint | None:
        """The first that is expected to keep the budgets, else the last; None on an empty path."""
        return path[self.target.expected([(one.latency, one.size) for one in path])[0]] if path else None

    def _best(
        self,
        cut: Cut,
        divergence: float,
        here: tuple[float, float],
        start: tuple[float, float],
        known: dict[object, float],
        moves: tuple[Moves, ...],
    ) -> tuple[Cut, float] | None:
        worth = {}
        for more in moves:
            for after in more(cut):
                progress = self.target.progress(here, self.predict(after), start)
                if progress >= LEAST_PROGRESS or (progress > 0 and self.target.reached(*here)):
                    worth[after] = progress
        fresh: dict[Cut, float] = {}
        if worth and self.out_of_time():
            usual = max(known.values(), default=LEAST_INCREASE)
            best = min(worth, key=lambda after: known.get(_move(cut, after), usual) / worth[after])
            return best, divergence + known.get(_move(cut, best), usual)
        while worth:
            # what was never measured comes first
            best = min(worth, key=lambda after: known.get(_move(cut, after), 0.0) / worth[after])
            if best in fresh:
                return best, fresh[best]
            fresh[best] = self.diverges(best)
            known[_move(cut, best)] = max(fresh[best] - divergence, LEAST_INCREASE)
        return None


def path_of(name: str, path: Sequence[PathPoint], pruning_space: PruningSpace) -> PruningPath:
    """The path as structures of plans."""
    return PruningPath(
        name,
        tuple(Structure(pruning_space.steps(one.cut), one.divergence, one.latency, one.size) for one in path),
    )


def _move(before: Cut, after: Cut) -> object:
    new = set(after.blocks) - set(before.blocks)
    return new.pop() if new else next(level for level in after.widths if level not in before.widths)
