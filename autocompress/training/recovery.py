"""Recovery: training a changed network with the original as its teacher.

Distillation after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), with the loss of
`autocompress.training.loss`. Cosine schedule with linear warm-up (Loshchilov and Hutter, SGDR, 2017); the weights that
are kept are an exponential moving average of those trained, at the step where it did best on the validation data.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.outputs import as_given
from autocompress.core.runtime import Example
from autocompress.core.source import Split, whole
from autocompress.core.targets import mapped
from autocompress.core.task import Task
from autocompress.data.augmentation_bank import AugmentationBank
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.data.example_inputs import in_dtype_of
from autocompress.data.module import call_by, inference_mode_of
from autocompress.devices.meter.describe import describe
from autocompress.errors import TechniqueError
from autocompress.system.locks import working
from autocompress.system.randomness import seeded
from autocompress.training.checkpoints import Average, RecoveryState, load_checkpoint
from autocompress.training.feature_matching import FeatureMatching
from autocompress.training.loss import loss_of
from autocompress.training.teacher_cache import TeacherCache

CHECKPOINT_SECONDS = 20.0
# how many times, and on how many validation items at most, the averaged weights are scored
JUDGED = 8
JUDGING_ITEMS = 2048
JUDGING_BATCH = 256


@dataclass(frozen=True)
class Schedule:
    """Settings of the training; the same schedule, data and thread count give the same weights.

    `views` is the size of the bank of augmented views, 0 for fresh ones; `feature_weight` weighs the matching of
    blocks that remain, 0 leaves it out. In layers that `frozen` names, parameters that are frozen stay so.
    """

    steps: int
    batch: int
    seed: int
    learning_rate: float
    optimizer: str = "sgd"
    views: int = 0
    feature_weight: float = 0.0
    temperature: float = 4.0
    soft_weight: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    averaging: float = 0.995
    warm_up: float = 0.1
    frozen: tuple[str, ...] = ()

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step: linear from 0 in the warm-up, then half a cosine to 0 at the end."""
        rise = max(1, int(self.warm_up * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


@dataclass(frozen=True)
class Files:
    """Paths of a recovery's checkpoint and of the teacher's cached outputs; None for no cache."""

    checkpoint: Path
    teacher_cache: Path | None = None


@dataclass(frozen=True, eq=False)
class Lesson:
    """The fixed inputs of a training: teacher, task, schedule, data and caches.

    `place` is the device that trains: the CPU, or a GPU when there is one.
    """

    teacher: nn.Module
    task: Task
    schedule: Schedule
    example: Example
    bank: AugmentationBank
    teacher_cache: TeacherCache
    features: FeatureMatching | None
    place: torch.device


def recover(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    example: Example,
    schedule: Schedule,
    files: Files,
    on_step: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None,
) -> nn.Module:
    """Train `student` with the original as teacher, resuming from its checkpoint when there is one.

    Returns the student with its averaged weights. The average is scored eight times on the validation data, and the
    best one is returned. `on_step` is called now and then with the step, the number of steps and the seconds left. The
    checkpoint is written every 20 seconds. A GPU is used where torch finds one. Frozen parameters are trained too,
    since layers that were cut have to recover; the schedule's `frozen` says where they stay as they are.

    Raises:
        TechniqueError: without training data, or when the loss is no longer finite.
    """
    if task.train is None:
        raise TechniqueError("needs training data, and there are none.", where="recovery")
    part, views = whole("train", task.train), schedule.views
    bank = AugmentationBank(part, example, batch=schedule.batch, seed=schedule.seed, views=views, draws=True)
    place = training_place()
    if place.type != "cpu":
        # copies, since the user's own module stays on its device
        student, teacher = student.to(place), with_own_weights(with_shared_weights(teacher)).to(place)
    features = FeatureMatching(student, teacher, example) if schedule.feature_weight else None
    teacher_cache = TeacherCache(files.teacher_cache if schedule.views and features is None else None)
    lesson = Lesson(teacher, task, schedule, example, bank, teacher_cache, features, place)
    # only the student has gradients, never the original
    _unfreeze(student, schedule.frozen)
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    state = RecoveryState(student, Average(student, schedule.averaging), _optimizer(parameters, schedule))
    if files.checkpoint.exists():
        load_checkpoint(files.checkpoint, state.restore)
    try:
        with inference_mode_of(teacher), torch.enable_grad(), _layout(student), _layout(teacher):
            _train(state, lesson, files.checkpoint, on_step)
    finally:
        bank.close()
        if features is not None:
            features.remove()
    # gradients take as much memory as the weights and are not needed any more
    state.optimizer.zero_grad(set_to_none=True)
    student.load_state_dict(state.best.state or state.average.state)
    return student.cpu().eval()


def training_place() -> torch.device:
    """The device that trains: a GPU where torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _train(state: RecoveryState, lesson: Lesson, checkpoint: Path, on_step: Callable[[int, int, float], None]) -> None:
    student, schedule = state.student, lesson.schedule
    began = saved = time.monotonic()
    start = state.step
    interval = max(1, math.ceil(schedule.steps / JUDGED))
    validation = lesson.task.validation
    split = None if validation is None else validation.first(JUDGING_ITEMS)
    student.train()
    while state.step < schedule.steps:
        # seeded by the step, so that dropout and whatever else draws gets the same numbers after a resumption
        with working(), seeded(schedule.seed * 1_000_003 + state.step):
            loss = _step(state, lesson)
        if not math.isfinite(loss):
            raise TechniqueError(f"the loss is no longer finite at step {state.step}.", where="recovery")
        if split is not None and (state.step % interval == 0 or state.step == schedule.steps):
            with state.average.inside(student), seeded(schedule.seed):
                score = score_module(student, split, lesson.task, lesson.example, lesson.place)
            state.best.consider(score, state.average.state)
            student.train()
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            state.save(checkpoint)
            lesson.teacher_cache.save()
            saved = time.monotonic()
            rate = (saved - began) / (state.step - start)
            on_step(state.step, schedule.steps, rate * (schedule.steps - state.step))
    lesson.teacher_cache.save()


def _unfreeze(student: nn.Module, frozen: Sequence[str]) -> None:
    for name, parameter in student.named_parameters():
        if parameter.is_floating_point() and not matches_pattern(name, frozen):
            parameter.requires_grad_(True)


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.01)
    return torch.optim.SGD(
        parameters, lr=0.0, momentum=schedule.momentum, weight_decay=schedule.weight_decay, nesterov=True
    )


def _step(state: RecoveryState, lesson: Lesson) -> float:
    schedule = lesson.schedule
    batch = lesson.bank.at(state.step, lesson.task.augment)
    inputs = {name: _as_trained(tensor, lesson.place) for name, tensor in batch.inputs.items()}
    for group in state.optimizer.param_groups:
        group["lr"] = schedule.learning_rate_at(state.step)

    def ask() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return call_by(lesson.teacher, inputs, lesson.example)

    with _autocast(lesson.place):
        known = lesson.teacher_cache.to(batch.key, ask)
        teaching = {name: tensor.to(lesson.place) for name, tensor in known.items()}
        outputs = call_by(state.student, inputs, lesson.example)
    loss = loss_of(
        lesson.task,
        _in_float32(outputs),
        _in_float32(teaching),
        mapped(lambda tensor: tensor.to(lesson.place), batch.targets),
        soft_weight=schedule.soft_weight,
        temperature=schedule.temperature,
    )
    if lesson.features is not None:
        loss = loss + schedule.feature_weight * lesson.features.loss()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    nn.utils.clip_grad_norm_(state.student.parameters(), 5.0)
    state.optimizer.step()
    state.average.update(state.student)
    state.step += 1
    return float(loss.detach())


def _in_float32(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in outputs.items()}


def score_module(module: nn.Module, split: Split, task: Task, example: Example, place: torch.device) -> float:
    """The score of a module on a split; used to watch training, not to decide what is deployed."""
    scores = []
    with inference_mode_of(module), _autocast(place):
        for inputs, targets in split.batches(split.rows_within(JUDGING_BATCH)):
            arrays = replace(example, inputs=inputs).arrays
            tensors = {name: _as_trained(_tensor(example, name, array), place) for name, array in arrays.items()}
            outputs = _in_float32(call_by(module, tensors, example))
            found = {name: output.cpu().numpy() for name, output in outputs.items()}
            scores.append(task.scores(as_given(found, lambda array: array.dtype.kind == "f"), targets))
    return task.value(np.concatenate(scores))


def _tensor(example: Example, name: str, array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(in_dtype_of(example, name, array)))


def _as_trained(tensor: torch.Tensor, place: torch.device) -> torch.Tensor:
    tensor = tensor.to(place)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _autocast(place: torch.device) -> torch.autocast:
    bfloat16 = trains_in_bfloat16() if place.type == "cpu" else torch.cuda.is_bf16_supported()
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=bfloat16)


@functools.cache
def trains_in_bfloat16() -> bool:
    """True where the CPU has bfloat16 products; elsewhere autocast would be slower than float32."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "bf16" in describe()["features"]


def _to_layout(module: nn.Module, layout: torch.memory_format) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)


@contextmanager
def _layout(module: nn.Module) -> Iterator[None]:
    """Use the channels_last layout inside the block, for modules with image weights."""
    _to_layout(module, torch.channels_last)
    try:
        yield
    finally:
        _to_layout(module, torch.contiguous_format)
