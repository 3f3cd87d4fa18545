"""Selects which channels are cut, from their importance scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from autocompress.errors import TechniqueError
from autocompress.pruning.pruning_graph import WHERE, Coupling

SCOPES = ("uniform", "global")
# least share of a group that stays when groups are compared with each other (torch-pruning leaves a group that would be
# emptied whole, so that a larger ratio can leave more)
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Selection:
    """What is to be cut: groups, share of channels, and how the channels are chosen.

    `groups` are names of groups, none for all that can be cut; `ratio`, between 0 and 1, is the share of their channels
    that is cut: of each group (`scope` uniform) or of all together (global), where scores over their group's mean
    decide. The number a group keeps is the nearest multiple of `multiple`; a group too narrow for it stays whole.
    `importance` is a name in `autocompress.pruning.importance.IMPORTANCES`.
    """

    ratio: float
    groups: tuple[str, ...] = ()
    scope: str = "uniform"
    importance: str = "group_magnitude"
    multiple: int = 1


def select(
    couplings: Sequence[Coupling], scores: Mapping[str, torch.Tensor], selection: Selection
) -> dict[str, list[int]]:
    """The channels to cut, by group: those with the lowest scores.

    A larger ratio cuts no fewer channels of any group.

    Raises:
        TechniqueError: when none would be cut.
    """
    # equal places of all blocks share their mean score, since they are cut together
    shared = {c.name: _over_mean(scores[c.name].view(c.blocks, -1).mean(0)) for c in couplings}
    if selection.scope == "global":
        keeps = _kept_globally(couplings, shared, selection.ratio)
    else:
        keeps = {c.name: c.channels / c.blocks * (1 - selection.ratio) for c in couplings}
    cuts: dict[str, list[int]] = {}
    for coupling in couplings:
        size = coupling.channels // coupling.blocks
        step = math.lcm(selection.multiple, coupling.blocks) // coupling.blocks
        kept = max(step, step * math.floor(keeps[coupling.name] / step + 0.5))
        if kept < size:
            order = torch.argsort(shared[coupling.name], stable=True)
            inside = sorted(order[: size - kept].tolist())
            cuts[coupling.name] = [block * size + place for block in range(coupling.blocks) for place in inside]
    if not cuts:
        raise TechniqueError(
            f"a ratio of {selection.ratio:g} with multiples of {selection.multiple} removes no channel at all.",
            where=WHERE,
            hint="Give a larger ratio or a smaller multiple.",
        )
    return cuts


def _over_mean(scores: torch.Tensor) -> torch.Tensor:
    return scores / scores.mean().clamp_min(1e-12)


def _kept_globally(couplings: Sequence[Coupling], shared: Mapping[str, torch.Tensor], ratio: float) -> dict[str, float]:
    """The number of places that each block keeps when the lowest scores of all groups are cut."""
    ranked = sorted(
        (float(score), number, place)
        for number, coupling in enumerate(couplings)
        for place, score in enumerate(shared[coupling.name])
    )
    to_go = ratio * sum(coupling.channels for coupling in couplings)
    keeps = {coupling.name: coupling.channels / coupling.blocks for coupling in couplings}
    gone = 0
    for _, number, _ in ranked:
        coupling = couplings[number]
        if gone + coupling.blocks > to_go:
            break
        if keeps[coupling.name] - 1 >= LEAST_SHARE * coupling.channels / coupling.blocks:
            keeps[coupling.name] -= 1
            gone += coupling.blocks
    return keeps
