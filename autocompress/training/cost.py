"""The cost of training on this machine, and the rungs of training that a time limit allows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from autocompress.core.plan import Step
from autocompress.core.runtime import Example
from autocompress.core.source import whole
from autocompress.core.streams import PartSource
from autocompress.core.task import Task
from autocompress.core.training_probe import Bracket, TrainingProbe
from autocompress.core.training_recipe import TrainingRecipe
from autocompress.data.augmentation_bank import AugmentationBank
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.data.module import inference_mode_of
from autocompress.data.output_recognition import kinds_of
from autocompress.system.locks import measuring
from autocompress.system.scratch import scratch
from autocompress.training.batch_norm import has_batch_norm
from autocompress.training.gradients import Lesson
from autocompress.training.optimizer import OWN, own_optimizer
from autocompress.training.place import training_place
from autocompress.training.range_test import JUDGED, STEPS, choose_rate
from autocompress.training.recovery import Files, recover, trainable
from autocompress.training.schedule import PLAIN, Schedule
from autocompress.training.teacher_cache import TeacherCache

# augmented views of each item; longer training repeats them, so that the teacher's outputs are all cached
VIEWS = 10
BATCH = 128
FIRST_EPOCHS = 4
LEAST_STEPS = 150
WARM_UP_STEPS = 2
TIMED_STEPS = 12
# slow steps are timed for about so many seconds, and at least so many of them
TIMED_SECONDS, LEAST_TIMED = 6.0, 2
# each further rung trains so many times as long as the one before, from where that ended (warm restarts with growing
# periods: Loshchilov and Hutter, SGDR, 2017)
GROWTH = 3
# number of rungs without a time limit
RUNGS = 3
MOST_CANDIDATES = 3
# scoring on the way and other work beside the steps explain less than this factor
CLEARLY = 1.5
# longest range test of the learning rate
RANGE_SECONDS = 20.0
# share of the time left that timing steps, and a range test, may take
SHARE_OF_TIME = 0.1
# share of the remaining time for training; the rest is for building, measuring and confirming
TRAINING_SHARE = 0.85
# 0.1 for a batch of 256, in proportion to the batch (Goyal et al., "Accurate, Large Minibatch SGD", 2017)
SGD_RATE_PER_ITEM = 0.1 / 256
# usual for fine-tuning encoders (Devlin et al., BERT, 2019, use 2e-5 to 5e-5, DistilBERT 5e-4 at a large batch)
ADAMW_RATE = 2e-4


def measure_training(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    example: Example,
    most_items: int | None = None,
    recipe: TrainingRecipe = PLAIN,
    seconds_left: float | None = None,
) -> TrainingProbe | None:
    """Time training steps of `student`, and choose batch, learning rate and optimizer.

    None without training data. No bracket is decided yet; the student's weights are changed. With `most_items` a step
    is timed with no more items than that, which takes less memory; one with a whole batch is then taken to cost in
    proportion. What a `recipe` lays down is taken as it is. Timing and the range test each take about a tenth of the
    `seconds_left` at most, where one more step is not longer.
    """
    if task.train is None:
        return None
    items = len(task.train)
    batch = min(recipe.batch or BATCH, max(8, items // 4))
    optimizer = recipe.optimizer if isinstance(recipe.optimizer, str) else "sgd" if has_batch_norm(teacher) else "adamw"
    rate = SGD_RATE_PER_ITEM * batch if optimizer == "sgd" else ADAMW_RATE
    if callable(recipe.optimizer):
        optimizer = OWN
        rate = float(own_optimizer(list(student.parameters()), recipe).param_groups[0]["lr"]) or rate
    rate = recipe.learning_rate or rate
    bank = VIEWS * max(1, items // batch)
    untrained = with_own_weights(with_shared_weights(student))
    timed = min(batch, most_items or batch)
    # only the items that the timed steps use are read, as the training reads them; there is no scoring on validation
    # data, which would take as long in a few steps as in many
    shown = whole("train", task.train).first(timed * TIMED_STEPS)
    alone = replace(task, test=None, val=None, train=PartSource(task.train, shown.indices))
    seconds = {}
    share = math.inf if seconds_left is None else SHARE_OF_TIME * seconds_left
    with scratch("training") as folder, measuring():
        # the warm-up steps set up memory and kernels for all later ones; the last steps find the teacher's outputs for
        # their batches in the cache
        steps = WARM_UP_STEPS
        for name in ("warm-up", "asking", "known"):
            answers = folder / ("first.pt" if name == "warm-up" else "answers.pt")
            schedule = Schedule(steps, timed, 0, rate, optimizer, VIEWS, recipe=recipe)
            start = time.monotonic()
            recover(student, teacher, alone, example, schedule, Files(folder / f"{name}.pt", answers))
            seconds[name] = (time.monotonic() - start) / steps * (batch / timed)
            if name == "warm-up":
                most = min(TIMED_SECONDS, share)
                steps = min(TIMED_STEPS, max(LEAST_TIMED, round(most / seconds[name] * (batch / timed))))
    asking = max(0.0, seconds["asking"] - seconds["known"])
    rate = rate if recipe.learning_rate or optimizer == OWN else round(rate, 6)
    decay = None if recipe.weight_decay is None else float(recipe.weight_decay)
    schedule = Schedule(1, batch, 0, rate, optimizer, VIEWS, weight_decay=decay, recipe=recipe)
    # planning alone, and what the user lays down, are not tested
    if recipe.train is not None:
        reason = ""
    elif recipe.learning_rate is not None or optimizer == OWN:
        reason = f"{rate:.2g}, as the recipe has it"
    elif most_items is not None:
        reason = f"the default {rate:.2g}; only a run tests others"
    else:
        rate, reason = _tested_rate(untrained, teacher, task, example, schedule, seconds["known"] + asking, share)
    probe = TrainingProbe(batch, rate, optimizer, seconds["known"], asking, bank)
    return replace(probe, weight_decay=decay, recipe=recipe.name, rate_reason=reason)


def _tested_rate(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    example: Example,
    schedule: Schedule,
    step_seconds: float,
    share: float,
) -> tuple[float, str]:
    """The learning rate by a range test where its share of the time suffices, and a sentence about it."""
    seconds = (3 * STEPS + 2 * JUDGED) * step_seconds
    if seconds > min(RANGE_SECONDS, share):
        return schedule.learning_rate, f"the default; a range test would take {seconds:.0f} s"
    assert task.train is not None
    place = training_place()
    teacher = with_own_weights(with_shared_weights(teacher)).to(place) if place.type != "cpu" else teacher
    shown = whole("train", task.train).first(schedule.batch * (STEPS + JUDGED))
    bank = AugmentationBank(shown, example, batch=schedule.batch, seed=schedule.seed, views=schedule.views)
    lesson = Lesson(teacher, task, example, kinds_of(example, teacher, task), bank, TeacherCache(None), None, place)
    with inference_mode_of(teacher), torch.enable_grad():
        return choose_rate(trainable(student).to(place), lesson, schedule)


def at_least(training: TrainingProbe, seconds_per_step: float) -> TrainingProbe:
    """The probe with slower steps, where a training has shown that they take clearly longer than timed."""
    slower = seconds_per_step > CLEARLY * training.seconds_per_step
    return replace(training, seconds_per_step=seconds_per_step) if slower else training


def with_bracket(training: TrainingProbe, structures: Sequence[tuple[Step, ...]]) -> TrainingProbe:
    """The probe with one more bracket, which has no rung yet."""
    return replace(training, brackets=(*training.brackets, Bracket(tuple(structures))))


def with_next_rung(training: TrainingProbe, items: int, seconds_left: float | None) -> TrainingProbe | None:
    """The probe with one more rung in the last bracket, None where no rung is left that is worth its time.

    The first rung takes up to three candidates for four epochs, each further one takes one candidate fewer and `GROWTH`
    times as many steps. A rung that would leave too little time for another one takes all of it.
    """
    bracket = training.brackets[-1]
    number = len(bracket.rungs)
    first = max(LEAST_STEPS, FIRST_EPOCHS * math.ceil(items / training.batch))
    wanted = first * GROWTH**number
    candidates = max(1, min(len(bracket.structures), MOST_CANDIDATES) - number)
    if seconds_left is None:
        return None if number == RUNGS else _longer(training, wanted, candidates)
    affordable = training.affordable(TRAINING_SHARE * seconds_left)
    # several candidates are worth it only while they leave most of the time for the best of them
    while candidates > 1 and candidates * wanted > affordable / 3:
        candidates -= 1
    if affordable < first // 2:
        return None
    last = affordable < (1 + GROWTH / 2) * wanted
    return _longer(training, affordable if last else wanted, candidates)


def _longer(training: TrainingProbe, steps: int, candidates: int) -> TrainingProbe:
    return replace(training, brackets=(*training.brackets[:-1], training.brackets[-1].with_rung(steps, candidates)))
