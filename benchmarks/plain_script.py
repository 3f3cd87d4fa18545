"""What an engineer would write in an afternoon: prune channels by magnitude, distil, quantize. No search."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional

from autocompress import Task
from autocompress.data.augmentation import crop_flip

BATCH = 128
RATE = 0.05
TEMPERATURE = 4.0
SHARE = 0.9


def pruned_and_distilled(model: nn.Module, task: Task, seconds: float, ratio: float = 0.5) -> nn.Module:
    """Half of the inner channels of every block gone, then trained until most of the time is over."""
    deadline = time.monotonic() + SHARE * seconds
    example = torch.zeros(1, 3, 32, 32)
    student = copy.deepcopy(model).eval()
    # the zero-padded shortcuts count on the width of the residual stream
    inner = {name for name, _ in student.named_modules() if name.endswith(".conv1")}
    kept = [
        part for name, part in student.named_modules() if isinstance(part, nn.Conv2d | nn.Linear) and name not in inner
    ]
    pruner = tp.pruner.BasePruner(
        student, example, tp.importance.GroupMagnitudeImportance(), pruning_ratio=ratio, ignored_layers=kept
    )
    pruner.step()
    read = [(inputs[0], targets) for inputs, targets in task.calibration.batches(512)]
    images = torch.from_numpy(np.concatenate([batch for batch, _ in read]))
    labels = torch.from_numpy(np.concatenate([targets for _, targets in read]))
    steps = _affordable(student, model, images, labels, deadline)
    optimizer = torch.optim.SGD(student.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps + 1)
    student.train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        if time.monotonic() > deadline:
            break
        items = torch.randint(0, len(images), (BATCH,), generator=generator)
        _loss(student, model, crop_flip(images[items]), labels[items]).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return student.eval()


def _loss(student: nn.Module, teacher: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        wanted = teacher(images)
    found = student(images)
    soft = functional.kl_div(
        functional.log_softmax(found / TEMPERATURE, 1),
        functional.softmax(wanted / TEMPERATURE, 1),
        reduction="batchmean",
    )
    return 0.9 * TEMPERATURE**2 * soft + 0.1 * functional.cross_entropy(found, labels)


def _affordable(
    student: nn.Module, teacher: nn.Module, images: torch.Tensor, labels: torch.Tensor, deadline: float
) -> int:
    """Steps until the deadline, from a few timed ones."""
    trial = copy.deepcopy(student).train()
    start = 0.0
    for step in range(6):
        if step == 1:
            start = time.monotonic()
        _loss(trial, teacher, images[:BATCH], labels[:BATCH]).backward()
    each = (time.monotonic() - start) / 5
    return max(1, math.floor((deadline - time.monotonic()) / (1.05 * each)))
