"""The gradients of one step: of a whole batch, or added up over parts of it where memory is short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autocompress.core.output_kinds import OutputFact
from autocompress.core.outputs import as_given
from autocompress.core.runtime import Example
from autocompress.core.targets import mapped
from autocompress.core.task import Task
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.data.augmentation_bank import AugmentationBank, Batch
from autocompress.data.module import call_by
from autocompress.errors import DataError
from autocompress.training.feature_matching import FeatureMatching
from autocompress.training.loss import Softness, loss_of
from autocompress.training.memory import parts_of
from autocompress.training.place import as_trained, autocast, in_float32
from autocompress.training.schedule import Schedule
from autocompress.training.teacher_cache import Answer, TeacherCache


@dataclass(frozen=True, eq=False)
class Lesson:
    """The fixed inputs of a training: teacher, task, example, kinds of outputs, batches and caches.

    `place` is the device that trains: the CPU, or a GPU when there is one.
    """

    teacher: nn.Module
    task: Task
    example: Example
    kinds: Mapping[str, OutputFact]
    bank: AugmentationBank
    teacher_cache: TeacherCache
    features: FeatureMatching | None
    place: torch.device

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the device that trains."""
        batch = self.bank.at(step, self.task.augment)
        inputs = {name: as_trained(tensor, self.place) for name, tensor in batch.inputs.items()}
        return Batch(batch.key, inputs, mapped(lambda tensor: tensor.to(self.place), batch.targets))


def add_gradients(student: nn.Module, lesson: Lesson, schedule: Schedule, step: int) -> float:
    """Add the gradients of a step's loss to the student's, and return the loss.

    The parts of a batch are weighted by their items. The teacher's cached outputs are of whole batches, so that it is
    asked for each part anew.
    """
    batch = lesson.batch(step)
    items = len(next(iter(batch.inputs.values())))
    parts = parts_of(items, schedule.micro_batch_at(step))
    if len(parts) == 1:
        return _add(student, lesson, schedule, batch, 1.0, cached=True)
    total = 0.0
    for part in parts:
        inputs = {name: tensor[part] for name, tensor in batch.inputs.items()}
        some = Batch(batch.key, inputs, _part_of(batch, part))
        total += _add(student, lesson, schedule, some, (part.stop - part.start) / items, cached=False)
    return total


def _part_of(batch: Batch, part: slice) -> Any:
    return mapped(lambda tensor: tensor[part], batch.targets)


def loss_on(student: nn.Module, lesson: Lesson, schedule: Schedule, step: int) -> float:
    """The loss of a step's batch in the student's present mode."""
    with torch.no_grad():
        return float(_forward(student, lesson, schedule, lesson.batch(step), cached=True))


def _add(student: nn.Module, lesson: Lesson, schedule: Schedule, batch: Batch, share: float, *, cached: bool) -> float:
    loss = _forward(student, lesson, schedule, batch, cached=cached)
    (loss * share).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    return share * float(loss.detach())


def _forward(student: nn.Module, lesson: Lesson, schedule: Schedule, batch: Batch, *, cached: bool) -> torch.Tensor:
    def ask() -> Answer:
        with torch.no_grad():
            return call_by(lesson.teacher, batch.inputs, lesson.example)

    with autocast(lesson.place):
        known = lesson.teacher_cache.to(batch.key, ask) if cached else ask()
        teaching = {name: tensor.to(lesson.place) for name, tensor in known.items()}
        outputs = call_by(student, batch.inputs, lesson.example)
    loss = _loss(lesson, schedule, in_float32(outputs), in_float32(teaching), batch)
    return loss if lesson.features is None else loss + schedule.feature_weight * lesson.features.loss()


def _loss(lesson: Lesson, schedule: Schedule, outputs: Answer, teaching: Answer, batch: Batch) -> torch.Tensor:
    own = schedule.recipe.loss
    if own is None:
        return loss_of(
            lesson.task,
            outputs,
            teaching,
            batch.targets,
            kinds=lesson.kinds,
            inputs=batch.inputs,
            softness=Softness(schedule.soft_weight, schedule.temperature),
        )
    given = [as_given(named, torch.is_floating_point) for named in (outputs, teaching)]
    with raised_by_user("recipe", "loss raised", own):
        found: Any = own(given[0], given[1], batch.targets)
    if not isinstance(found, torch.Tensor) or found.numel() != 1 or not found.requires_grad:
        message = f"loss returned {kind_of(found)}, not a tensor of one number that depends on the outputs"
        raise DataError(
            with_line(message, definition_of(own)), where="recipe", hint="Compute it from the outputs with torch."
        )
    return found
