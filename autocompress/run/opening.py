"""The user's score, augmentation and loss are tried when a run opens, so that errors come at once."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.source import Array, Split, whole
from autocompress.core.targets import mapped
from autocompress.core.task import Task
from autocompress.core.user_code import definition_of, raised_by_user, with_line
from autocompress.data.augment_call import takes_targets
from autocompress.data.augmentation_bank import AugmentationBank, Batch
from autocompress.data.module import call
from autocompress.data.task_loss import task_loss
from autocompress.errors import DataError, ModelError
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.scorer import Scorer
from autocompress.system.randomness import seeded
from autocompress.training.recovery import training_place

# items in each of the two batches
ITEMS = 2


def try_functions(task: Task, builder: Builder, scorer: Scorer) -> None:
    """Try the task's score on outputs of the baseline, its augmentation and loss on training items.

    Nothing is kept: no score is looked at, the module stays as it is, and so do the global random generators. Without
    training data augmentation and loss are not tried.

    Raises:
        DataError: when one of them raises or gives something else than it should; it names the user's own line.
    """
    with seeded(0):
        # a validation split of its own may have other targets than the test items
        for split in (task.validation, task.set_aside if task.val is not None else None):
            if split is not None:
                scorer.try_out(builder.baseline, split, ITEMS)
        if task.train is not None:
            few = whole("train", task.train).ends(ITEMS)
            if task.augment is not None or task.loss is not None:
                _try_training(task, few, builder.module, builder.example)
            else:
                # calibration reads them too
                list(few.batches(ITEMS))


def _try_training(task: Task, few: Split, module: nn.Module, example: Example) -> None:
    bank = AugmentationBank(few, example, batch=ITEMS, seed=0, draws=True)
    # targets that were changed must still fit a loss of ours
    tries_loss = task.loss is not None or (task.augment is not None and takes_targets(task.augment))
    found = []
    for step in range(2):
        batch = bank.at(step, task.augment)
        try:
            outputs = call(module, _example(example, batch))
        except ModelError as error:
            # raises where the model fails on the items as they are
            call(module, _example(example, bank.at(step)))
            raise _not_taken(task, error) from error
        if tries_loss:
            found.append(_fault(task, outputs, batch))
    # a batch of two may have nothing to learn from, such as labels that are all padding
    if found and all(found):
        raise DataError(
            with_line(f"returned {found[0]}", definition_of(task.loss)),
            where="loss",
            hint="Compute one finite number from the outputs with torch, without detach(), item() or numpy().",
        )


def _fault(task: Task, outputs: dict[str, torch.Tensor], batch: Batch) -> str:
    """What is wrong with the loss of a batch, empty where nothing is."""
    place = training_place()
    starts = {name: tensor.detach().to(place) for name, tensor in outputs.items()}
    leaves = [tensor.requires_grad_() for tensor in starts.values() if tensor.is_floating_point()]
    with torch.enable_grad():
        # copies: a loss may change the outputs in place, which torch allows for no leaf
        given = {name: tensor.clone() for name, tensor in starts.items()}
        loss = task_loss(task, given, mapped(lambda tensor: tensor.to(place), batch.targets))
        if loss is None:
            return ""
        gradients: tuple[torch.Tensor | None, ...] = ()
        if loss.requires_grad and leaves:
            with raised_by_user("loss", "its gradient raised", task.loss):
                gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
    if not bool(torch.isfinite(loss).all()):
        return f"{float(loss.detach())}, which is not finite"
    if all(gradient is None for gradient in gradients):
        return "a number that does not depend on the model's outputs, so that nothing can be learned from it"
    return ""


def _example(example: Example, batch: Batch) -> Example:
    arrays: dict[str, Array] = {name: tensor.detach().cpu().numpy() for name, tensor in batch.inputs.items()}
    return replace(example, inputs=arrays if example.by_name else tuple(arrays.values()))


def _not_taken(task: Task, error: ModelError) -> DataError:
    message = f"returned what the model cannot take: it {error.message}"
    return DataError(
        with_line(message, definition_of(task.augment)),
        where="augment",
        hint="Return a tensor in the shape and type of the one it gets.",
    )
