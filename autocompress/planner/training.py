"""What training costs on this machine, and the schedule that follows."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path

from torch import nn

from autocompress.blocks import with_own_weights, with_shared_weights
from autocompress.probes import TrainingProbe
from autocompress.recovery import Schedule, recover
from autocompress.runtime import Example
from autocompress.task import Task

BATCH = 128
FIRST_EPOCHS = 4
LEAST_STEPS = 150
TIMED_STEPS = 4
# 0.1 for a batch of 256, in proportion to the batch (Goyal et al., "Accurate, Large Minibatch SGD", 2017)
SGD_RATE_PER_ITEM = 0.1 / 256
# usual for fine-tuning encoders (Devlin et al., BERT, 2019, use 2e-5 to 5e-5 for one, DistilBERT 5e-4 at large batch)
ADAMW_RATE = 2e-4


def measure_training(module: nn.Module, task: Task, example: Example) -> TrainingProbe | None:
    """Seconds of one training step of the original, teacher included; None without training data."""
    if task.train is None:
        return None
    items = len(task.train)
    batch = min(BATCH, max(8, items // 4))
    has_batch_norm = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
    optimizer = "sgd" if has_batch_norm else "adamw"
    rate = SGD_RATE_PER_ITEM * batch if has_batch_norm else ADAMW_RATE
    student = with_own_weights(with_shared_weights(module))
    with tempfile.TemporaryDirectory(prefix="autocompress-training-") as folder:
        start = time.monotonic()
        for steps in (1, TIMED_STEPS):
            start = time.monotonic()
            schedule = Schedule(steps, batch, 0, rate, optimizer)
            recover(student, module, task, example, schedule, Path(folder) / f"{steps}.pt")
        seconds = (time.monotonic() - start) / TIMED_STEPS
    steps = max(LEAST_STEPS, FIRST_EPOCHS * math.ceil(items / batch))
    return TrainingProbe(steps, batch, round(rate, 6), optimizer, seconds)
