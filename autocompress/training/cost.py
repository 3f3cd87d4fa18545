"""What training costs on this machine, and the schedule that follows."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from autocompress.core.plan import Step
from autocompress.core.probes import Bracket, TrainingProbe
from autocompress.core.runtime import Example
from autocompress.core.source import ArraySource, whole
from autocompress.core.task import Task
from autocompress.system.locks import measuring
from autocompress.system.scratch import scratch
from autocompress.training.batch_norm import has_batch_norm
from autocompress.training.recovery import Files, Schedule, recover

# views of each item; a run that trains longer sees them again, and asks the teacher nothing new
VIEWS = 10
BATCH = 128
FIRST_EPOCHS = 4
LEAST_STEPS = 150
WARM_UP_STEPS = 2
TIMED_STEPS = 12
# slow steps are timed for about so many seconds, and at least so often
TIMED_SECONDS, LEAST_TIMED = 6.0, 2
# each further round of recovery trains so many times as long as the one before, from where that ended (warm restarts
# with growing periods: Loshchilov and Hutter, SGDR, 2017)
GROWTH = 3
# without a time limit
RUNGS = 3
MOST_CANDIDATES = 3
# of the time that is left; the rest is for building, measuring and confirming
TRAINING_SHARE = 0.85
# 0.1 for a batch of 256, in proportion to the batch (Goyal et al., "Accurate, Large Minibatch SGD", 2017)
SGD_RATE_PER_ITEM = 0.1 / 256
# usual for fine-tuning encoders (Devlin et al., BERT, 2019, use 2e-5 to 5e-5 for one, DistilBERT 5e-4 at large batch)
ADAMW_RATE = 2e-4


def measure_training(
    student: nn.Module, teacher: nn.Module, task: Task, example: Example, most_items: int | None = None
) -> TrainingProbe | None:
    """What one step of training `student` costs, and with which batch, rate and optimizer it is trained.

    None without training data. No bracket is decided yet; the student is used up. Where `most_items` is given a step is
    timed with no more of them, which takes less memory; one with a whole batch is then taken to cost in proportion.
    """
    if task.train is None:
        return None
    items = len(task.train)
    batch = min(BATCH, max(8, items // 4))
    sgd = has_batch_norm(teacher)
    rate = SGD_RATE_PER_ITEM * batch if sgd else ADAMW_RATE
    optimizer = "sgd" if sgd else "adamw"
    bank = VIEWS * max(1, items // batch)
    timed = min(batch, most_items or batch)
    # no more items than the steps show are read, and judging on the validation data takes as long in a few steps as in
    # many
    shown = whole("train", task.train).first(timed * TIMED_STEPS)
    alone = replace(task, test=None, val=None, train=ArraySource(*next(shown.batches(len(shown)))))
    seconds = {}
    with scratch("training") as folder, measuring():
        # the first steps pay for memory and kernels that all later ones share; those that come last find the teacher's
        # answers to their batches
        steps = WARM_UP_STEPS
        for name in ("warm-up", "asking", "known"):
            answers = folder / ("first.pt" if name == "warm-up" else "answers.pt")
            schedule = Schedule(steps, timed, 0, rate, optimizer, VIEWS)
            start = time.monotonic()
            recover(student, teacher, alone, example, schedule, Files(folder / f"{name}.pt", answers))
            seconds[name] = (time.monotonic() - start) / steps * (batch / timed)
            if name == "warm-up":
                steps = min(TIMED_STEPS, max(LEAST_TIMED, round(TIMED_SECONDS / seconds[name] * (batch / timed))))
    asking = max(0.0, seconds["asking"] - seconds["known"])
    return TrainingProbe(batch, round(rate, 6), optimizer, seconds["known"], asking, bank)


def with_bracket(training: TrainingProbe, structures: Sequence[tuple[Step, ...]]) -> TrainingProbe:
    """The same with one more bracket, of no round yet."""
    return replace(training, brackets=(*training.brackets, Bracket(tuple(structures))))


def with_next_rung(training: TrainingProbe, items: int, seconds_left: float | None) -> TrainingProbe | None:
    """The same with one round more of the last bracket, None where no round is left that is worth its time.

    The first takes up to three candidates for four epochs, each further one fewer of them and `GROWTH` times as
    long. Whatever would leave too little time for another round takes all of it.
    """
    bracket = training.brackets[-1]
    number = len(bracket.rungs)
    first = max(LEAST_STEPS, FIRST_EPOCHS * math.ceil(items / training.batch))
    wanted = first * GROWTH**number
    candidates = max(1, min(len(bracket.structures), MOST_CANDIDATES) - number)
    if seconds_left is None:
        return None if number == RUNGS else _longer(training, wanted, candidates)
    affordable = training.affordable(TRAINING_SHARE * seconds_left)
    # several are worth it only while they leave most of the time to the best of them
    while candidates > 1 and candidates * wanted > affordable / 3:
        candidates -= 1
    if affordable < first // 2:
        return None
    last = affordable < (1 + GROWTH / 2) * wanted
    return _longer(training, affordable if last else wanted, candidates)


def _longer(training: TrainingProbe, steps: int, candidates: int) -> TrainingProbe:
    return replace(training, brackets=(*training.brackets[:-1], training.brackets[-1].with_rung(steps, candidates)))
