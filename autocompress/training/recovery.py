"""Recovery: training a changed network with the original as its teacher.

Distillation after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), with the loss of
`autocompress.training.loss`. Cosine schedule with linear warm-up (Loshchilov and Hutter, SGDR, 2017); the weights that
are kept are an exponential moving average of those trained, at the step where it did best on the validation data.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.outputs import as_given
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example
from autocompress.core.source import Split, whole
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.data.augmentation_bank import AugmentationBank
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.data.example_inputs import in_dtype_of
from autocompress.data.module import call_by, inference_mode_of
from autocompress.data.output_recognition import kinds_of
from autocompress.errors import TechniqueError, sentence_of
from autocompress.system.locks import working
from autocompress.system.randomness import seeded
from autocompress.training.checkpoints import Average, RecoveryState, load_checkpoint
from autocompress.training.feature_matching import FeatureMatching
from autocompress.training.gradients import Lesson, add_gradients
from autocompress.training.memory import is_out_of_memory, release_memory, smaller_parts
from autocompress.training.optimizer import RELATIVE_RATE, make_optimizer
from autocompress.training.own_training import Batches, trained_by
from autocompress.training.pace import Pace
from autocompress.training.place import as_trained, autocast, in_float32, training_layout, training_place
from autocompress.training.schedule import Schedule, settings_as_trained
from autocompress.training.teacher_cache import TeacherCache

CHECKPOINT_SECONDS = 20.0
# how many times, and on how many validation items at most, the averaged weights are scored
JUDGED = 8
JUDGING_ITEMS = 2048
JUDGING_BATCH = 256


@dataclass(frozen=True)
class Files:
    """Paths of a recovery's checkpoint and of the teacher's cached outputs; None for no cache."""

    checkpoint: Path
    teacher_cache: Path | None = None


@dataclass(frozen=True, eq=False)
class Watch:
    """What a training heeds and tells while it goes on.

    `seconds_left` gives the seconds that are left for it, None without a limit. `adapted` is called with the schedule
    whenever it was changed to fit time or memory, `tell` with a sentence about it.
    """

    seconds_left: Callable[[], float | None] = lambda: None
    adapted: Callable[[Schedule], None] = lambda schedule: None
    tell: Callable[[str], None] = lambda sentence: None
    on_step: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None


UNWATCHED = Watch()


def watch_of(context: Context, settings: Mapping[str, Setting]) -> Watch:
    """The watch of a technique's training; its context is told the settings that training then has."""

    def adapted(found: Schedule) -> None:
        context.adapted(settings_as_trained(settings, found))

    return Watch(context.seconds_left, adapted, context.tell, context.on_step)


def recover(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    example: Example,
    schedule: Schedule,
    files: Files,
    watch: Watch = UNWATCHED,
) -> nn.Module:
    """Train `student` with the original as teacher, resuming from its checkpoint when there is one.

    Returns the student with its averaged weights. The average is scored eight times on the validation data, and the
    best one is returned. The checkpoint is written every 20 seconds. A GPU is used where torch finds one. Frozen
    parameters are trained too, since layers that were cut have to recover; the schedule's `frozen` says where they stay
    as they are.

    Where the time that `watch` gives turns out too short the schedule is cut to what is left, and where a batch does
    not fit into memory its gradients are added up over smaller parts. A schedule with these changes in it gives the
    same weights again.

    Raises:
        DataError: when the recipe's functions fail.
        TechniqueError: without training data, when the loss is no longer finite, or when even the smallest part of a
            batch does not fit into memory.
    """
    if task.train is None:
        raise TechniqueError("needs training data, and there are none.", where="recovery")
    part, views = whole("train", task.train), schedule.views
    bank = AugmentationBank(part, example, batch=schedule.batch, seed=schedule.seed, views=views, draws=True)
    kinds = kinds_of(example, teacher, task)
    place = training_place()
    if place.type != "cpu":
        # copies, since the user's own module stays on its device
        student, teacher = student.to(place), with_own_weights(with_shared_weights(teacher)).to(place)
    features = FeatureMatching(student, teacher, example) if schedule.feature_weight else None
    teacher_cache = TeacherCache(files.teacher_cache if schedule.views and features is None else None)
    lesson = Lesson(teacher, task, example, kinds, bank, teacher_cache, features, place)
    # only the student has gradients, never the original
    trainable(student, schedule.frozen)
    try:
        with inference_mode_of(teacher), torch.enable_grad(), training_layout(student), training_layout(teacher):
            if schedule.recipe.train is None:
                _train(student, lesson, schedule, files.checkpoint, watch)
            else:
                student = _train_by_recipe(student, lesson, schedule, watch)
    finally:
        bank.close()
        if features is not None:
            features.remove()
    # gradients take as much memory as the weights and are not needed any more
    student.zero_grad(set_to_none=True)
    return student.cpu().eval()


def _train(student: nn.Module, lesson: Lesson, schedule: Schedule, checkpoint: Path, watch: Watch) -> None:
    optimizer = make_optimizer(student, schedule)
    state = RecoveryState(student, Average(student, schedule.averaging), optimizer, schedule)
    if checkpoint.exists():
        load_checkpoint(checkpoint, state.restore)
    watch.adapted(state.schedule)
    saved, pace = time.monotonic(), Pace(watch.seconds_left)
    interval = max(1, math.ceil(schedule.steps / JUDGED))
    validation = lesson.task.validation
    split = None if validation is None else validation.first(JUDGING_ITEMS)
    if schedule.or_as_it_was and split is not None and state.step == 0:
        with seeded(schedule.seed):
            score = score_module(student, split, lesson.task, lesson.example, lesson.place)
        state.best.consider(score, state.average.state)
    student.train()
    while state.step < state.schedule.end:
        loss = _step(state, lesson, watch)
        if not math.isfinite(loss):
            raise TechniqueError(f"the loss is no longer finite at step {state.step}.", where="recovery")
        pace.step_taken()
        places = [state.schedule.planned_step(taken) for taken in (state.step - 1, state.step)]
        _keep_to_time(state, pace, math.ceil((schedule.steps - places[1]) / interval) * (split is not None), watch)
        passed = places[0] // interval < places[1] // interval
        if split is not None and (passed or state.step == state.schedule.end):
            with state.average.inside(student), seeded(schedule.seed):
                score = score_module(student, split, lesson.task, lesson.example, lesson.place)
            state.best.consider(score, state.average.state)
            student.train()
            pace.scored()
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            state.save(checkpoint)
            lesson.teacher_cache.save()
            saved = time.monotonic()
            watch.on_step(state.step, state.schedule.end, pace.seconds_per_step * (state.schedule.end - state.step))
    lesson.teacher_cache.save()
    student.load_state_dict(state.best.state or state.average.state)


def _keep_to_time(state: RecoveryState, pace: Pace, scores: int, watch: Watch) -> None:
    """Cut the schedule where the time left does not suffice for the steps that are left."""
    steps = pace.steps_left(state.schedule.end - state.step, scores)
    if steps is not None:
        before, end = state.schedule.end, state.step + steps
        state.schedule = state.schedule.cut(state.step, end)
        watch.adapted(state.schedule)
        watch.tell(f"the time does not suffice for {before} steps: training ends after {end}")


def _train_by_recipe(student: nn.Module, lesson: Lesson, schedule: Schedule, watch: Watch) -> nn.Module:
    """Train by the recipe's own function, from its beginning: it has no checkpoints."""
    pace, saved = Pace(watch.seconds_left), [time.monotonic()]

    def done(taken: int) -> float | None:
        nonlocal schedule
        if taken:
            pace.step_taken()
            steps = pace.steps_left(schedule.end - taken, 0)
            if steps is not None:
                schedule = schedule.cut(taken, taken + steps)
                watch.adapted(schedule)
                watch.tell(f"the time does not suffice: training ends after {schedule.end} steps")
        if time.monotonic() - saved[0] > CHECKPOINT_SECONDS:
            saved[0] = time.monotonic()
            watch.on_step(taken, schedule.end, pace.seconds_per_step * (schedule.end - taken))
        return None if taken >= schedule.end else schedule.planned_step(taken) / schedule.steps

    watch.adapted(schedule)
    student.train()
    with working(), seeded(schedule.seed):
        return trained_by(
            schedule.recipe, student, lesson.teacher, Batches(schedule.steps, lesson.batch, lesson.example, done)
        )


def trainable(student: nn.Module, frozen: Sequence[str] = ()) -> nn.Module:
    """The student with gradients for all parameters but those that are frozen and named by `frozen`."""
    for name, parameter in student.named_parameters():
        if parameter.is_floating_point() and not matches_pattern(name, frozen):
            parameter.requires_grad_(True)
    return student


def _step(state: RecoveryState, lesson: Lesson, watch: Watch) -> float:
    """Take one step; a batch that does not fit into memory is trained in smaller parts from then on."""
    while True:
        kept = [(buffer, buffer.detach().clone()) for buffer in state.student.buffers()]
        # seeded by the step, so that dropout and whatever else draws gets the same numbers after a resumption
        with working(), seeded(state.schedule.seed * 1_000_003 + state.step):
            state.optimizer.zero_grad(set_to_none=True)
            try:
                loss = add_gradients(state.student, lesson, state.schedule, state.step)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                told = sentence_of(error)
            else:
                _update(state)
                return loss
        # out of the handler, where the traceback no longer holds the tensors of the failed step
        state.optimizer.zero_grad(set_to_none=True)
        release_memory()
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
        batch = min(state.schedule.batch, len(lesson.task.train or ()))
        state.schedule = smaller_parts(state.schedule, state.step, batch, state.student, told)
        watch.adapted(state.schedule)
        size = state.schedule.micro_batch_at(state.step)
        watch.tell(f"memory is short: gradients of {size} items at a time are added up")


def _update(state: RecoveryState) -> None:
    factor = state.schedule.learning_rate_at(state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = factor * group.get(RELATIVE_RATE, 1.0)
    nn.utils.clip_grad_norm_(state.student.parameters(), 5.0)
    state.optimizer.step()
    state.average.update(state.student)
    state.step += 1


def score_module(module: nn.Module, split: Split, task: Task, example: Example, place: torch.device) -> float:
    """The score of a module on a split; used to watch training, not to decide what is deployed."""
    scores = []
    with inference_mode_of(module), autocast(place):
        for inputs, targets in split.batches(split.rows_within(JUDGING_BATCH)):
            arrays = replace(example, inputs=inputs).arrays
            tensors = {name: as_trained(_tensor(example, name, array), place) for name, array in arrays.items()}
            outputs = in_float32(call_by(module, tensors, example))
            found = {name: output.cpu().numpy() for name, output in outputs.items()}
            scores.append(task.scores(as_given(found, lambda array: array.dtype.kind == "f"), targets))
    return task.value(np.concatenate(scores))


def _tensor(example: Example, name: str, array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(in_dtype_of(example, name, array)))
