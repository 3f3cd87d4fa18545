"""Finds sensitive nodes by groups: those that win most are halved, before nodes are measured alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from autocompress.runtimes.quantizable_nodes import NodeFact

# groups of so many nodes are not halved any more
SMALL_GROUP = 2


def most_sensitive_first(
    nodes: Sequence[NodeFact], won: Callable[[Sequence[NodeFact]], float | None], least: float
) -> Iterator[NodeFact]:
    """The nodes, those of the groups that win back most when all of a group is in float first.

    The first groups are those of one operator, in the graph's order. `won` measures a group, None where it cannot be
    measured; then it is looked into. Nodes of groups that win less than `least` come last, the largest rounding errors
    first; such nodes without weights do not come at all. A few groups thus lead to the nodes that matter, where a
    network has hundreds.
    """
    unknown = float("inf")
    waiting: list[tuple[float, Sequence[NodeFact]]] = []
    rest: list[NodeFact] = []
    coming = [[node for node in nodes if node.operator == kind] for kind in dict.fromkeys(n.operator for n in nodes)]
    above = unknown
    while coming or waiting:
        for group in coming:
            wins = above if len(group) <= SMALL_GROUP else won(group)
            if wins is not None and wins < least:
                rest += [node for node in group if node.weights]
            else:
                waiting.append((above if wins is None else wins, group))
        coming = []
        if not waiting:
            break
        place = max(range(len(waiting)), key=lambda index: waiting[index][0])
        above, best = waiting.pop(place)
        if len(best) <= SMALL_GROUP:
            yield from best
        else:
            coming = [list(best[: len(best) // 2]), list(best[len(best) // 2 :])]
    yield from sorted(rest, key=lambda node: -node.noise)
