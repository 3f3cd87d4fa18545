"""A range test of the learning rate, on the structure that is trained.

Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3: the rate rises from step to step,
and the one at which the loss rises again is too high. Here it only proposes a rate, a quarter of that one, where the
default is too close to it or far below; the proposal is taken when a short training with it takes at least twice as
much off the loss, on batches that it has not seen, as the same training with the default. The default is kept
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.data.module import inference_mode_of
from autocompress.system.locks import working
from autocompress.system.randomness import seeded
from autocompress.training.gradients import Lesson, add_gradients, loss_on
from autocompress.training.optimizer import make_optimizer
from autocompress.training.schedule import Schedule

# the rate rises from so many times below the default to as many times above
SPAN = 32.0
STEPS = 40
# the loss has risen again where it is so many times the least before
RISEN = 2.0
# share of the rate at which the loss rises that is proposed: with momentum the highest rate is too high for a start
BELOW = 0.25
# a default that is less than this share of the proposal, or more than the proposal doubled, is put to the test
TOO_LOW, TOO_HIGH = 0.25, 2.0
# the proposal has to take so many times as much off the loss as the default
CLEARLY_MORE = 2.0
# batches that both are judged on, which neither has seen
JUDGED = 4


def choose_rate(student: nn.Module, lesson: Lesson, schedule: Schedule) -> tuple[float, str]:
    """The learning rate for a structure, and a sentence on how it was chosen; the student stays as it is."""
    default = schedule.learning_rate
    brief = replace(schedule, steps=STEPS)
    highest = _rate_at_which_the_loss_rises(_copy(student), lesson, brief)
    proposed = BELOW * highest
    if TOO_LOW * proposed < default < TOO_HIGH * proposed:
        return default, f"the default {default:.2g}; the loss rises again at {highest:.2g}"
    start = _judged(student, lesson, brief)
    ends = [_ends_at(_copy(student), lesson, replace(brief, learning_rate=rate)) for rate in (default, proposed)]
    told = (
        f"{STEPS} steps bring the loss from {start:.3g} to {ends[1]:.3g} with {proposed:.2g}, to {ends[0]:.3g} with "
        f"{default:.2g}"
    )
    if start - ends[1] > max(0.0, CLEARLY_MORE * (start - ends[0])):
        return float(f"{proposed:.2g}"), f"{proposed:.2g} instead of the default {default:.2g}: {told}"
    return default, f"the default {default:.2g}: {told}"


def _rate_at_which_the_loss_rises(student: nn.Module, lesson: Lesson, schedule: Schedule) -> float:
    default, least, smooth = schedule.learning_rate, math.inf, 0.0

    def rate_at(step: int) -> float:
        return default / SPAN * float(SPAN ** (2 * step / (STEPS - 1)))

    for step, loss in enumerate(_losses(student, lesson, schedule, rate_at)):
        smooth = loss if step == 0 else 0.7 * smooth + 0.3 * loss
        if not math.isfinite(loss) or smooth > RISEN * least:
            return rate_at(step)
        least = min(least, smooth)
    return default * SPAN


def _ends_at(student: nn.Module, lesson: Lesson, schedule: Schedule) -> float:
    """The mean loss on batches that were not trained on, after a short training."""
    if not all(map(math.isfinite, _losses(student, lesson, schedule, schedule.learning_rate_at))):
        return math.inf
    return _judged(student, lesson, schedule)


def _judged(student: nn.Module, lesson: Lesson, schedule: Schedule) -> float:
    with inference_mode_of(student), seeded(schedule.seed):
        found = [loss_on(student, lesson, schedule, STEPS + place) for place in range(JUDGED)]
    return sum(found) / len(found)


def _losses(student: nn.Module, lesson: Lesson, schedule: Schedule, rate_at: Callable[[int], float]) -> list[float]:
    """The losses of the steps of a training, up to the first that is not finite."""
    optimizer, losses = make_optimizer(student, schedule), []
    student.train()
    for step in range(STEPS):
        with working(), seeded(schedule.seed * 1_000_003 + step), torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            losses.append(add_gradients(student, lesson, schedule, step))
            if not math.isfinite(losses[-1]):
                break
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step)
            nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
    return losses


def _copy(student: nn.Module) -> nn.Module:
    return with_own_weights(with_shared_weights(student))
