"""The task's own loss on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from autocompress.core.outputs import as_given, main_output
from autocompress.core.task import Loss, Task
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError


def task_loss(task: Task, outputs: Mapping[str, torch.Tensor], targets: Any) -> torch.Tensor | None:
    """The task's `loss`, else cross entropy or squared error of the main output; None for several targets.

    Raises:
        DataError: when the task's loss raises or gives something else than a tensor of one number.
    """
    if task.loss is not None:
        return _own(task.loss, as_given(outputs, torch.is_floating_point), targets)
    if not isinstance(targets, torch.Tensor):
        return None
    main = outputs[main_output(outputs)]
    if task.chooses_classes:
        return functional.cross_entropy(main, targets.long())
    return functional.mse_loss(main, targets.reshape(main.shape).to(main.dtype))


def _own(loss: Loss, outputs: Any, targets: Any) -> torch.Tensor:
    with raised_by_user("loss", function=loss):
        found = loss(outputs, targets)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        message = with_line(f"returned {kind_of(found)}, not a tensor of one number", definition_of(loss))
        hint = "Compute one number for the batch from the outputs with torch, such as the mean over its items."
        raise DataError(message, where="loss", hint=hint)
    return found
