"""The task's own loss on tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from autocompress.core.outputs import as_given, main_output
from autocompress.core.task import TOKEN_SCORES, Loss, Task
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError

IGNORED = -100
TAKES = "Give a function loss(outputs, targets) that takes these targets beside these outputs."


def task_loss(task: Task, outputs: Mapping[str, torch.Tensor], targets: Any) -> torch.Tensor | None:
    """The task's `loss`, else cross entropy or squared error of the main output; None for several targets.

    Cross entropy is for whole numbers with an axis of classes beside them in the output: the last one for token scores
    and outputs of three dimensions, else the second. Labels below 0 count for nothing.

    Raises:
        DataError: when the task's loss raises or gives something else than a tensor of one number.
    """
    if task.loss is not None:
        return _own(task.loss, as_given(outputs, torch.is_floating_point), targets)
    if not isinstance(targets, torch.Tensor):
        return None
    main = outputs[main_output(outputs)]
    by_class = classes_second(task, main, targets)
    if by_class is not None:
        return _cross_entropy(by_class, targets.long())
    return functional.mse_loss(main, targets.reshape(main.shape).to(main.dtype))


def _own(loss: Loss, outputs: Any, targets: Any) -> torch.Tensor:
    with raised_by_user("loss", function=loss, called=TAKES):
        found = loss(outputs, targets)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        message = with_line(f"returned {kind_of(found)}, not a tensor of one number", definition_of(loss))
        hint = "Compute one number for the batch from the outputs with torch, such as the mean over its items."
        raise DataError(message, where="loss", hint=hint)
    return found


def classes_second(task: Task, main: torch.Tensor, targets: Any) -> torch.Tensor | None:
    """The main output with its classes on the second axis, as torch has them; None where it has none."""
    if task.chooses_classes:
        return main
    if not isinstance(targets, torch.Tensor) or targets.is_floating_point() or main.ndim != targets.ndim + 1:
        return None
    last = main.shape[:-1] == targets.shape
    second = (main.shape[0], *main.shape[2:]) == tuple(targets.shape)
    if last and (task.score in TOKEN_SCORES or main.ndim == 3 or not second):
        # one value per place is a regression
        return main.movedim(-1, 1) if main.shape[-1] > 1 else None
    return main if second and main.shape[1] > 1 else None


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over the labels from 0; 0 where there are none, not the NaN of torch."""
    counted = labels >= 0
    if bool(counted.all()):
        return functional.cross_entropy(logits, labels)
    known = labels.masked_fill(~counted, IGNORED)
    total = functional.cross_entropy(logits, known, ignore_index=IGNORED, reduction="sum")
    return total / counted.sum().clamp(min=1)
