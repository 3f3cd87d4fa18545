"""Checkpoints of a recovery: its weights, their moving average and the best average so far."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autocompress.data.module import place_of
from autocompress.system.workspace import write_atomically
from autocompress.training.schedule import Changes, Schedule

State = dict[str, torch.Tensor]


class Average:
    """Exponential moving average of a module's state (Polyak averaging).

    It covers parameters and buffers such as batch-norm statistics.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self.state: State = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def update(self, module: nn.Module) -> None:
        """Add one step to the average; the decay rises from zero, so that early averages forget the start."""
        self.updates += 1
        decay = min(self._decay, self.updates / (self.updates + 9))
        for name, tensor in module.state_dict().items():
            kept = self.state[name]
            # what does not change stays: masks may hold minus infinity, whose difference from itself is NaN
            if torch.equal(kept, tensor):
                continue
            if tensor.is_floating_point():
                kept.lerp_(tensor.detach(), 1 - decay)
            else:
                kept.copy_(tensor)

    @contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """Put the averaged weights into the module inside the block, and restore its own afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        module.load_state_dict(self.state)
        try:
            yield
        finally:
            module.load_state_dict(own)


@dataclass
class Best:
    """The averaged weights with the best validation score, None before any were scored."""

    score: float = float("-inf")
    state: State | None = None

    def consider(self, score: float, state: Mapping[str, torch.Tensor]) -> None:
        """Keep these weights if they score at least as well; of equals those trained longer are kept."""
        if score >= self.score:
            self.score, self.state = score, {name: tensor.clone() for name, tensor in state.items()}


@dataclass(eq=False)
class RecoveryState:
    """The complete state of a recovery, from which it can be resumed.

    `schedule` is the one that it was begun with, with the changes since.
    """

    student: nn.Module
    average: Average
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    best: Best = field(default_factory=Best)
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the state to a file, whole or not at all."""
        content = {
            "step": self.step,
            "student": self.student.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "best_score": self.best.score,
            "best": self.best.state,
            "cuts": self.schedule.cuts,
            "micro_batches": self.schedule.micro_batches,
        }
        write_atomically(path, lambda target: torch.save(content, target))

    def restore(self, content: Mapping[str, Any]) -> None:
        """Restore the state from what `save` wrote.

        Raises:
            ValueError: when it is of another network; everything is then as it was.
        """
        _require_like(content["average"], self.average.state)
        place = place_of(self.student)
        kept = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
        updates, step = int(content["updates"]), int(content["step"])
        cuts, parts = _changes(content["cuts"]), _changes(content["micro_batches"])
        best = Best(float(content["best_score"]), content["best"])
        try:
            self.student.load_state_dict(content["student"])
            self.optimizer.load_state_dict(content["optimizer"])
        except Exception:
            # tensors may have been copied before the one that does not fit
            self.student.load_state_dict(kept)
            raise
        self.average.state = {name: tensor.to(place) for name, tensor in content["average"].items()}
        self.average.updates, self.best, self.step = updates, best, step
        self.schedule = replace(self.schedule, cuts=cuts, micro_batches=parts)


def _changes(stored: Any) -> Changes:
    return tuple((int(step), int(value)) for step, value in stored)


def _require_like(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError("it holds the weights of another network")


def load_checkpoint(path: Path, take: Callable[[Any], Any]) -> bool:
    """Pass the content of a checkpoint to `take`; False, with a warning, when it cannot be used.

    That is when it is damaged or does not fit. A checkpoint only saves time: one that cannot be used is made again.
    """
    try:
        take(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001 - torch raises whatever damage leads to, of a dozen types
        reason = " ".join(str(error).split())[:120]
        warnings.warn(f"{path} cannot be used ({reason}); what it held is made afresh.", stacklevel=2)
        return False
    return True
