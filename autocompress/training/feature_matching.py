"""Feature matching: trains the remaining blocks to give the outputs of the original's same blocks.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, without a regressor: only blocks whose outputs have the
original's shape are matched.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.pruning.blocks import Skip, candidate_blocks


class FeatureMatching:
    """Records block outputs of student and teacher by hooks.

    `loss` compares the outputs of the last forward passes.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, example: Example) -> None:
        names = candidate_blocks(teacher, example)
        self._names = [name for name in names if not isinstance(student.get_submodule(name), Skip)]
        self._given: dict[tuple[str, str], torch.Tensor] = {}
        self._handles = [
            module.get_submodule(name).register_forward_hook(self._recorder(whose, name))
            for whose, module in (("student", student), ("teacher", teacher))
            for name in self._names
        ]

    def _recorder(self, whose: str, name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, outputs: object) -> None:
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            if isinstance(first, torch.Tensor):
                self._given[whose, name] = first

        return record

    def loss(self) -> torch.Tensor:
        """The mean squared distance between block outputs, relative to the teacher's mean square.

        It is averaged over the blocks, and 0 without a block.
        """
        pairs = [(self._given["student", name], self._given["teacher", name]) for name in self._names]
        distances = [
            (student.float() - teacher.float()).square().mean() / teacher.float().square().mean().clamp_min(1e-12)
            for student, teacher in pairs
            if student.shape == teacher.shape
        ]
        if not distances:
            return torch.zeros((), device=pairs[0][0].device if pairs else None)
        return torch.stack(distances).mean()

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._given.clear()
