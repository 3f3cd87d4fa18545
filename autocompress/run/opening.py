"""The user's score, augmentation and loss are tried when a run opens, so that errors come at once."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import nn

from autocompress.core.class_labels import require_several_classes
from autocompress.core.runtime import Example, main_shape
from autocompress.core.source import Array, ArraySource, Split, whole
from autocompress.core.targets import mapped
from autocompress.core.task import Task
from autocompress.core.training_recipe import OPTIMIZERS
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.data.augment_call import takes_targets
from autocompress.data.augmentation_bank import AugmentationBank, Batch
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.data.module import call
from autocompress.data.task_loss import task_loss
from autocompress.errors import DataError, ModelError, UsageError, said_by, sentence_of
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.item_checks import ItemChecks
from autocompress.evaluation.scorer import Scorer
from autocompress.system.randomness import seeded
from autocompress.system.scratch import scratch
from autocompress.training.place import training_place
from autocompress.training.recovery import Files, recover
from autocompress.training.schedule import Schedule

# items in each of the two batches
ITEMS = 2
# for a recipe that is tried without a rate of its own
SMALL_RATE = 1e-5


def try_functions(task: Task, builder: Builder, scorer: Scorer) -> tuple[str, ...]:
    """Try the task's score on outputs of the baseline, its augmentation and loss on training items.

    Returned is what the loss warned of, a sentence each. Nothing else is kept: no score is looked at, the module stays
    as it is, and so do the global random generators. Without training data augmentation and loss are not tried.

    Raises:
        DataError: when one of them raises or gives something else than it should; it names the user's own line.
    """
    said: tuple[str, ...] = ()
    shape = main_shape(builder.baseline)
    require_several_classes(task.score, shape)
    with seeded(0):
        # a validation split of its own may have other targets than the test items
        for split in (task.validation, task.set_aside if task.val is not None else None):
            if split is not None:
                scorer.try_out(builder.baseline, split, ITEMS)
        if task.train is not None:
            few = whole("train", task.train).ends(ITEMS)
            check = ItemChecks(task, "train", shape[1] if len(shape) == 2 else None)
            check(few.indices.tolist(), *next(few.batches(len(few))))
            if builder.has_module:
                said = _try_training(task, few, builder.module, builder.example)
    return said


def try_recipe(task: Task | None, builder: Builder) -> None:
    """Try the recipe for training on two batches of training items.

    It trains a copy of the original that is thrown away.

    Raises:
        DataError: when one of its functions fails; it names the user's own line.
        UsageError: when there are no training data.
    """
    recipe = builder.recipe
    if recipe is None:
        return
    if not builder.has_module:
        raise UsageError("the model is a file, which is not trained.", where="recipe", hint="Leave the recipe out.")
    if task is None or task.train is None:
        raise UsageError("there are no training data.", where="recipe", hint="Give the task train items.")
    few = whole("train", task.train).ends(ITEMS)
    alone = replace(task, test=None, val=None, train=ArraySource(*next(few.batches(len(few)))))
    student = with_own_weights(with_shared_weights(builder.module))
    optimizer = recipe.optimizer if isinstance(recipe.optimizer, str) else OPTIMIZERS[0]
    schedule = Schedule(2, ITEMS, 0, recipe.learning_rate or SMALL_RATE, optimizer, recipe=recipe)
    with scratch("recipe") as folder, seeded(0):
        recover(student, builder.module, alone, builder.example, schedule, Files(folder / "training.pt"))


def _try_training(task: Task, few: Split, module: nn.Module, example: Example) -> tuple[str, ...]:
    bank = AugmentationBank(few, example, batch=ITEMS, seed=0, draws=True)
    # targets that were changed must still fit a loss of ours
    moved = task.augment is not None and takes_targets(task.augment)
    found, warned = [], dict[str, None]()
    for step in range(2):
        batch = bank.at(step, task.augment)
        try:
            outputs = call(module, _example(example, batch))
        except ModelError as error:
            # raises where the model fails on the items as they are
            call(module, _example(example, bank.at(step)))
            raise _not_taken(task, error) from error
        if task.loss is not None:
            # a loss of shapes that do not belong together may be no more than a warning
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                found.append(_fault(task, outputs, batch, example))
            messages = (one.message for one in caught if one.category is UserWarning)
            warned.update((f"The loss warns: {said_by(message)}", None) for message in messages if message)
        elif moved:
            found.append(_fault(task, outputs, batch, example))
        elif isinstance(task.score, str):
            _try_usual_loss(task, outputs, batch, example)
    # a batch of two may have nothing to learn from, such as labels that are all padding
    if found and all(found):
        raise DataError(
            with_line(f"returned {found[0]}", definition_of(task.loss)),
            where="loss",
            hint="Compute one finite number from the outputs with torch, without detach(), item() or numpy().",
        )
    return tuple(warned)


def _try_usual_loss(task: Task, outputs: dict[str, torch.Tensor], batch: Batch, example: Example) -> None:
    """Take the loss of a task that has none of its own.

    Raises:
        DataError: when the targets do not fit the outputs.
    """
    try:
        task_loss(task, outputs, batch.targets, example.kinds)
    except (RuntimeError, IndexError, ValueError) as error:
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in outputs.items())
        raise DataError(
            f"targets ({kind_of(batch.targets)}) do not fit the outputs ({shown}): {sentence_of(error)}",
            where=f"{task.name}: train",
            hint="Give targets as in test, or the task a loss of its own.",
        ) from error


def _fault(task: Task, outputs: dict[str, torch.Tensor], batch: Batch, example: Example) -> str:
    """What is wrong with the loss of a batch, empty where nothing is."""
    place = training_place()
    starts = {name: tensor.detach().to(place) for name, tensor in outputs.items()}
    leaves = [tensor.requires_grad_() for tensor in starts.values() if tensor.is_floating_point()]
    with torch.enable_grad():
        # copies: a loss may change the outputs in place, which torch allows for no leaf
        given = {name: tensor.clone() for name, tensor in starts.items()}
        loss = task_loss(task, given, mapped(lambda tensor: tensor.to(place), batch.targets), example.kinds)
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
