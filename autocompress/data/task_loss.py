"""The task's own loss on tensors: the one that it gives, else the one that belongs to its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.core.outputs import as_given, main_output
from autocompress.core.targets import Targets, arrays_in, is_unlabelled
from autocompress.core.task import CLASS_SCORES, ERROR_SCORES, TOKEN_SCORES, Loss, Task
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError

IGNORED = -100
TAKES = "Give a function loss(outputs, targets) that takes these targets beside these outputs."
# probabilities below it count as it, so that a wrong answer has a finite loss
LEAST = 1e-12


def task_loss(
    task: Task, outputs: Mapping[str, torch.Tensor], targets: Any, kinds: Mapping[str, OutputFact]
) -> torch.Tensor | None:
    """The task's `loss`, else that of its named score on the main output; None where there is neither.

    Cross entropy belongs to scores of classes and tokens, the mean squared error to `negative_error` and `spearman`;
    none to a score of the user's or to several targets. Cross entropy is of what the output is: logits, probabilities
    or log-probabilities, each class's own probability where they do not sum to 1. Labels below 0 count for nothing.

    Raises:
        DataError: when the task's loss raises or gives something else than a tensor of one number.
    """
    if task.loss is not None:
        return _own(task.loss, as_given(outputs, torch.is_floating_point), targets)
    if not isinstance(targets, torch.Tensor):
        return None
    name = main_output(outputs)
    main = outputs[name]
    if task.score in (*CLASS_SCORES, *TOKEN_SCORES):
        axis = class_axis(task, main.shape, targets)
        if axis is not None:
            return _cross_entropy(main.movedim(axis, 1), targets.long(), kinds[name].kind)
    if task.score in ERROR_SCORES:
        return functional.mse_loss(main, targets.reshape(main.shape).to(main.dtype))
    return None


def teachers_of(task: Task | None) -> str:
    """What recovery by training learns from, as a sentence; empty without training data."""
    if task is None or task.train is None:
        return ""
    if task.loss is not None:
        return "recovery learns from the original's outputs and from the task's loss"
    _, targets = task.train.read([0])
    if not isinstance(targets, np.ndarray):
        return f"recovery learns from the original alone: {_without_one_array(targets)}"
    if task.score in (*CLASS_SCORES, *TOKEN_SCORES, *ERROR_SCORES):
        belongs = "the squared error" if task.score in ERROR_SCORES else "cross entropy"
        return f"recovery learns from the original's outputs and from the targets by {belongs}"
    return "recovery learns from the original alone: no loss is given, and a score of one's own brings none"


def _without_one_array(targets: Targets) -> str:
    if is_unlabelled(targets):
        return "the training items have no targets"
    return f"no loss is given for the {len(arrays_in(targets))} targets"


def _own(loss: Loss, outputs: Any, targets: Any) -> torch.Tensor:
    with raised_by_user("loss", function=loss, called=TAKES):
        found = loss(outputs, targets)
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        message = with_line(f"returned {kind_of(found)}, not a tensor of one number", definition_of(loss))
        hint = "Compute one number for the batch from the outputs with torch, such as the mean over its items."
        raise DataError(message, where="loss", hint=hint)
    return found


def class_axis(task: Task, shape: Sequence[int], targets: Any) -> int | None:
    """The axis of an output that has a number for each class; None where its targets are no labels.

    Labels are whole numbers, one for each place of the output, or those of a score of classes.
    """
    dimensions = len(shape)
    if task.chooses_classes:
        return 1 if dimensions > 1 and shape[1] > 1 else None
    if not isinstance(targets, torch.Tensor) or targets.is_floating_point() or dimensions != targets.ndim + 1:
        return None
    last = tuple(shape[:-1]) == tuple(targets.shape)
    second = (shape[0], *shape[2:]) == tuple(targets.shape)
    if last and (task.score in TOKEN_SCORES or dimensions == 3 or not second):
        # one value per place is a regression
        return dimensions - 1 if shape[-1] > 1 else None
    return 1 if second and shape[1] > 1 else None


def _cross_entropy(values: torch.Tensor, labels: torch.Tensor, kind: OutputKind) -> torch.Tensor:
    """The mean over the labels from 0; 0 where there are none, not the NaN of torch."""
    if kind is OutputKind.SIGMOID:
        return _of_each_class(values, labels)
    if kind is OutputKind.PROBABILITIES:
        values = values.clamp_min(LEAST).log()
    of = functional.nll_loss if kind in (OutputKind.PROBABILITIES, OutputKind.LOG_PROBABILITIES) else (
        functional.cross_entropy
    )  # fmt: skip
    counted = labels >= 0
    if bool(counted.all()):
        return of(values, labels)
    known = labels.masked_fill(~counted, IGNORED)
    total = of(values, known, ignore_index=IGNORED, reduction="sum")
    return total / counted.sum().clamp(min=1)


def _of_each_class(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of the probabilities of each class, its own 1 and the others 0."""
    rows, known = values.movedim(1, -1)[labels >= 0], labels[labels >= 0]
    if not len(known):
        return values.sum() * 0
    return functional.binary_cross_entropy(rows, functional.one_hot(known, rows.shape[-1]).to(rows.dtype))
