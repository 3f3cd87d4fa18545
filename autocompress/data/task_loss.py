"""The task's own loss on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from autocompress.core.outputs import as_given, main_output
from autocompress.core.task import Task


def task_loss(task: Task, outputs: Mapping[str, torch.Tensor], targets: Any) -> torch.Tensor | None:
    """The task's `loss`, else cross entropy or squared error of the main output; None for several targets."""
    if task.loss is not None:
        own: torch.Tensor = task.loss(as_given(outputs, torch.is_floating_point), targets)
        return own
    if not isinstance(targets, torch.Tensor):
        return None
    main = outputs[main_output(outputs)]
    if task.chooses_classes:
        return functional.cross_entropy(main, targets.long())
    return functional.mse_loss(main, targets.reshape(main.shape).to(main.dtype))
