"""A structure technique in one file: linear layers as products of two smaller ones, by singular values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import nn

from autocompress.core.facts import Facts, Kind
from autocompress.core.moves import Kept, Move, Moves, MoveSpace, Network
from autocompress.core.plan import Effort, Setting, Stage, Step
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason
from autocompress.core.technique import Context, StructureTechnique
from autocompress.data.copies import with_shared_weights
from autocompress.errors import TechniqueError

# of the smaller side of a layer, the share of the rank that goes
LEVELS = (0.75, 0.9)


def rank_of(layer: nn.Linear, level: float) -> int:
    return max(1, round((1 - level) * min(layer.in_features, layer.out_features)))


def factored(module: nn.Module, layers: Mapping[str, float]) -> nn.Module:
    """A copy in which these layers are factored, each with a level; the module is left as it was."""
    smaller = with_shared_weights(module)
    for name, level in layers.items():
        layer = smaller.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise TechniqueError(f"{name!r} is no linear layer.", where=ToyLowRank.name)
        rank = rank_of(layer, level)
        left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
        with torch.no_grad():
            first.weight.copy_(right[:rank])
            second.weight.copy_(left[:, :rank] * values[:rank])
            if layer.bias is not None:
                second.bias.copy_(layer.bias)
        path, _, last = name.rpartition(".")
        smaller.get_submodule(path)._modules[last] = nn.Sequential(first, second)
    return smaller.eval()


class ToyMoves(MoveSpace):
    rebuilds: ClassVar[bool] = True

    def __init__(self, technique: str, network: Network) -> None:
        self._technique, self._network = technique, network
        self._layers = {n: part for n, part in network.module.named_modules() if isinstance(part, nn.Linear)}
        self.names: Sequence[str] = tuple(self._layers)
        self.left_alone: Mapping[str, str] = {}

    def _share(self, name: str, level: float) -> float:
        layer = self._layers[name]
        return rank_of(layer, level) * (layer.in_features + layer.out_features) / layer.weight.numel()

    def options(self, taken: Moves, gone: Collection[str]) -> Iterator[Move]:
        for name in self.names:
            further = [level for level in LEVELS if level > taken.level(name) and self._share(name, level) < 1]
            if further and name not in gone:
                yield Move(self._technique, name, further[0])

    def kept(self, move: Move) -> Mapping[str, Kept]:
        share = self._share(move.target, move.level)
        return {move.target: Kept(share, share)}

    def steps(self, moves: Moves, gone: Collection[str]) -> tuple[Step, ...]:
        chosen = [(move.target, move.level) for move in moves if move.target not in gone]
        return tuple(Step(self._technique, Stage.STRUCTURE, {"layer": name, "level": level}) for name, level in chosen)

    @contextmanager
    def applied(self, module: nn.Module, moves: Moves) -> Iterator[nn.Module]:
        yield factored(module, {move.target: move.level for move in moves})

    def samples(self) -> Iterator[Moves]:
        for name in self.names:
            if self._share(name, LEVELS[0]) < 1:
                yield Moves.of([Move(self._technique, name, LEVELS[0])])

    def smallest(self) -> Moves:
        wide = (name for name in self.names if self._share(name, LEVELS[-1]) < 1)
        return Moves.of(Move(self._technique, name, LEVELS[-1]) for name in wide)


class ToyLowRank(StructureTechnique):
    """Each linear layer factored by a step of its own."""

    name: ClassVar[str] = "toy_low_rank"
    summary: ClassVar[str] = "linear layers become products of two smaller ones"
    effort: ClassVar[Effort] = Effort.CALIBRATION
    reduces: ClassVar[str] = "rank"
    parts: ClassVar[str] = "linear layers can be factored"
    choices: ClassVar[tuple[Choice, ...]] = (Choice("layer", ()), Choice("level", ()))

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return f"{len(settings)} layers factored"

    def moves(self, network: Network) -> MoveSpace:
        return ToyMoves(self.name, network)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        if any(layer.kind is Kind.LINEAR for layer in facts.layers):
            return None
        return Reason("there is no linear layer.", "layers")

    def apply(self, module: nn.Module, settings: Mapping[str, Setting], context: Context) -> nn.Module:
        return factored(module, {str(settings["layer"]): float(settings["level"])})
