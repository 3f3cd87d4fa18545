"""What training costs on this machine, and the schedule that follows."""

from __future__ import annotations

import math
import time

from torch import nn

from autocompress.blocks import with_own_weights, with_shared_weights
from autocompress.probes import TrainingProbe
from autocompress.recovery import Schedule, recover
from autocompress.runtime import Example
from autocompress.scratch import scratch
from autocompress.task import Task
from autocompress.turns import measuring

BATCH = 128
FIRST_EPOCHS = 4
LEAST_STEPS = 150
WARM_UP_STEPS = 4
TIMED_STEPS = 12
# each further round of recovery trains so many times as long as the one before, from where that ended (warm restarts
# with growing periods: Loshchilov and Hutter, SGDR, 2017)
GROWTH = 3
ROUNDS = 3
TRAINING_SHARE = 0.8
# 0.1 for a batch of 256, in proportion to the batch (Goyal et al., "Accurate, Large Minibatch SGD", 2017)
SGD_RATE_PER_ITEM = 0.1 / 256
# usual for fine-tuning encoders (Devlin et al., BERT, 2019, use 2e-5 to 5e-5 for one, DistilBERT 5e-4 at large batch)
ADAMW_RATE = 2e-4


def measure_training(
    module: nn.Module, task: Task, example: Example, seconds_left: float | None
) -> TrainingProbe | None:
    """Seconds of one training step of the original, teacher included, and the rounds that fit the time that is left.

    None without training data, or when not even a short round fits.
    """
    if task.train is None:
        return None
    items = len(task.train)
    batch = min(BATCH, max(8, items // 4))
    has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
    optimizer = "sgd" if has_batch_norm else "adamw"
    rate = SGD_RATE_PER_ITEM * batch if has_batch_norm else ADAMW_RATE
    student = with_own_weights(with_shared_weights(module))
    seconds = 0.0
    with scratch("training") as folder, measuring():
        # the first steps pay for memory and kernels that all later ones share
        for name, steps in (("warm-up", WARM_UP_STEPS), ("timed", TIMED_STEPS)):
            start = time.monotonic()
            schedule = Schedule(steps, batch, 0, rate, optimizer)
            recover(student, module, task, example, schedule, folder / f"{name}.pt")
            seconds = (time.monotonic() - start) / steps
    first = max(LEAST_STEPS, FIRST_EPOCHS * math.ceil(items / batch))
    rounds = rounds_that_fit(first, seconds, seconds_left)
    return TrainingProbe(rounds, batch, round(rate, 6), optimizer, seconds) if rounds else None


def rounds_that_fit(first: int, seconds_per_step: float, seconds_left: float | None) -> tuple[int, ...]:
    """Steps of each round: `first`, then `GROWTH` times as many each, as long as there is time.

    The last round is cut to the time that is left (less a share for building and measuring); a round that would be
    cut to less than half of the first is left out.
    """
    rounds: list[int] = []
    time_for = math.inf if seconds_left is None else TRAINING_SHARE * seconds_left / seconds_per_step
    for number in range(ROUNDS):
        steps = int(min(first * GROWTH**number, time_for))
        if steps < first // 2:
            break
        rounds.append(steps)
        time_for -= steps
    return tuple(rounds)
