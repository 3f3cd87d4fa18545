"""Recovery: training a changed network with the original as its teacher.

Distillation after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): the loss is
`soft_weight` times T^2 KL(teacher || student) at temperature T plus the task's own loss. Cosine schedule with
linear warm-up (Loshchilov and Hutter, SGDR, 2017); the weights that are kept are an exponential moving average
of those trained (Polyak averaging).
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autocompress.errors import TechniqueError
from autocompress.meter.describe import describe
from autocompress.module import flatten_outputs
from autocompress.runtime import Example
from autocompress.source import Inputs, Part, whole
from autocompress.task import Task
from autocompress.turns import working
from autocompress.workspace import write_whole

CHECKPOINT_SECONDS = 20.0
REESTIMATION_BATCHES = 8


@dataclass(frozen=True)
class Schedule:
    """How a student is trained. A given schedule, data and thread count give the same weights."""

    steps: int
    batch: int
    seed: int
    learning_rate: float
    optimizer: str = "sgd"
    temperature: float = 4.0
    soft_weight: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    averaging: float = 0.995
    warm_up: float = 0.1

    def learning_rate_at(self, step: int) -> float:
        """Linear from 0 over the warm-up, then half a cosine to 0 at the last step."""
        rise = max(1, int(self.warm_up * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, self.steps - rise)))


class Batches:
    """Random batches of a part, the same for the same seed and step: a run that resumes sees what it would have
    seen. Items are held in memory as the model takes them."""

    def __init__(self, part: Part, example: Example, seed: int) -> None:
        inputs, self._targets = _gather(part)
        self._inputs = {name: torch.from_numpy(array) for name, array in inputs.items()}
        self.by_name = example.by_name
        self._seed = seed

    def at(self, step: int, size: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Inputs by name and targets of one step."""
        n = len(self._targets)
        per_epoch = max(1, n // size)
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        order = torch.randperm(n, generator=generator)[place * size : (place + 1) * size]
        targets = torch.from_numpy(self._targets)[order]
        return {name: tensor[order] for name, tensor in self._inputs.items()}, targets


def _gather(part: Part) -> tuple[dict[str, np.ndarray], np.ndarray]:
    read: list[tuple[Inputs, Any]] = list(part.batches(512))
    first = read[0][0]
    keys: list[Any] = list(first) if isinstance(first, dict) else list(range(len(first)))
    arrays = {}
    for key in keys:
        name = key if isinstance(key, str) else ("input" if key == 0 else f"input_{key}")
        columns: list[Any] = [inputs for inputs, _ in read]
        joined = np.concatenate([column[key] for column in columns])
        arrays[name] = joined.astype(np.float32) if joined.dtype == np.float64 else joined
    return arrays, np.concatenate([targets for _, targets in read])


def call_by(module: nn.Module, inputs: Mapping[str, torch.Tensor], *, by_name: bool) -> torch.Tensor:
    """First output of a module."""
    outputs = module(**inputs) if by_name else module(*inputs.values())
    return next(iter(flatten_outputs(outputs).values()))


def loss_of(
    task: Task, schedule: Schedule, outputs: torch.Tensor, teaching: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The distillation loss for classifiers; the squared distance to the teacher for other outputs."""
    if task.loss is not None:
        hard: torch.Tensor = task.loss(outputs, targets)
    elif task.score_is_rate:
        hard = functional.cross_entropy(outputs, targets.long())
    else:
        hard = functional.mse_loss(outputs, targets.reshape(outputs.shape).to(outputs.dtype))
    if not task.score_is_rate:
        return schedule.soft_weight * functional.mse_loss(outputs, teaching) + (1 - schedule.soft_weight) * hard
    t = schedule.temperature
    soft = functional.kl_div(
        functional.log_softmax(outputs / t, 1), functional.log_softmax(teaching / t, 1), log_target=True,
        reduction="batchmean",
    )  # fmt: skip
    return schedule.soft_weight * t * t * soft + (1 - schedule.soft_weight) * hard


def recover(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    example: Example,
    schedule: Schedule,
    checkpoint: Path,
    tell: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None,
) -> nn.Module:
    """Train `student`, resuming from `checkpoint` when it is there; its averaged weights are returned in it.

    `tell` is called now and then with the step, the number of steps and the seconds left. The checkpoint is
    written every 20 seconds and at the end.

    Raises:
        TechniqueError: without training data, or when the loss is no longer finite.
    """
    if task.train is None:
        raise TechniqueError("needs training data, and there are none.", where="recovery")
    batches = Batches(whole("train", task.train), example, schedule.seed)
    average = _Average(student, schedule.averaging)
    # gradients of the original are never wanted
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = _optimizer(parameters, schedule)
    start = _restore(checkpoint, student, average, optimizer)
    began, saved = time.monotonic(), time.monotonic()
    teacher.eval()
    student.train()
    with _layout(student), _layout(teacher):
        for step in range(start, schedule.steps):
            with working():
                loss = _step(student, teacher, task, schedule, batches, optimizer, step)
                average.update(student)
            if not math.isfinite(loss):
                raise TechniqueError(f"the loss is no longer finite at step {step}.", where="recovery")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(checkpoint, student, average, optimizer, step + 1)
                saved = time.monotonic()
                rate = (saved - began) / (step + 1 - start)
                tell(step + 1, schedule.steps, rate * (schedule.steps - step - 1))
    average.copy_to(student)
    student.eval()
    return student


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.01)
    return torch.optim.SGD(
        parameters, lr=0.0, momentum=schedule.momentum, weight_decay=schedule.weight_decay, nesterov=True
    )


def _step(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    schedule: Schedule,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> float:
    inputs, targets = batches.at(step, schedule.batch)
    if task.augment is not None:
        # augmentation draws from torch's global generator; seeded by the step, a resumed run draws the same
        torch.manual_seed(schedule.seed * 7_919 + step)
        inputs = {name: task.augment(tensor) if tensor.ndim == 4 else tensor for name, tensor in inputs.items()}
    inputs = {name: _as_trained(tensor) for name, tensor in inputs.items()}
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate_at(step)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=trains_in_bfloat16()):
        with torch.no_grad():
            teaching = call_by(teacher, inputs, by_name=batches.by_name)
        outputs = call_by(student, inputs, by_name=batches.by_name)
    loss = loss_of(task, schedule, outputs.float(), teaching.float(), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    nn.utils.clip_grad_norm_(student.parameters(), 5.0)
    optimizer.step()
    return float(loss.detach())


def _as_trained(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


@functools.cache
def trains_in_bfloat16() -> bool:
    """True where the CPU has bfloat16 products; elsewhere autocast would be slower than float32."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "bf16" in describe()["features"]


def _to_layout(module: nn.Module, layout: torch.memory_format) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)


class _layout:  # noqa: N801 - used as a context manager
    """channels_last while training, for modules with image weights; put back afterwards."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __enter__(self) -> None:
        _to_layout(self._module, torch.channels_last)

    def __exit__(self, *_: object) -> None:
        _to_layout(self._module, torch.contiguous_format)


class _Average:
    """Exponential moving average of parameters; buffers (batch-norm statistics) as well."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

    def update(self, module: nn.Module) -> None:
        """One step. The decay rises from zero, so that early averages forget the start."""
        self._updates += 1
        decay = min(self._decay, self._updates / (self._updates + 9))
        for name, tensor in module.state_dict().items():
            kept = self.state[name]
            if tensor.is_floating_point():
                kept.mul_(decay).add_(tensor.detach(), alpha=1 - decay)
            else:
                kept.copy_(tensor)

    def copy_to(self, module: nn.Module) -> None:
        """The averaged weights into the module."""
        module.load_state_dict(self.state)


def _save(path: Path, student: nn.Module, average: _Average, optimizer: torch.optim.Optimizer, step: int) -> None:
    content = {
        "step": step,
        "student": student.state_dict(),
        "average": average.state,
        "updates": average._updates,
        "optimizer": optimizer.state_dict(),
    }
    write_whole(path, lambda target: torch.save(content, target))


def _restore(path: Path, student: nn.Module, average: _Average, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    step = 0

    def take(content: Any) -> None:
        nonlocal step
        kept = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        try:
            _require_like(content["average"], average.state)
            updates, at = int(content["updates"]), int(content["step"])
            student.load_state_dict(content["student"])
            optimizer.load_state_dict(content["optimizer"])
        except Exception:
            # what did not fit may have been copied in part
            student.load_state_dict(kept)
            raise
        average.state, average._updates, step = content["average"], updates, at

    return step if load_checkpoint(path, take) else 0


def _require_like(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (found, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError("it holds the weights of another network")


def load_checkpoint(path: Path, take: Callable[[Any], Any]) -> bool:
    """Hand the content of a checkpoint to `take`; False, with a warning, when it is damaged or does not fit.

    A checkpoint saves time and nothing else: one that cannot be used is made again.
    """
    try:
        take(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001 - torch raises whatever damage leads to, of a dozen types
        reason = " ".join(str(error).split())[:120]
        warnings.warn(f"{path} cannot be used ({reason}); what it held is made afresh.", stacklevel=2)
        return False
    return True


def reestimate_batch_norm(module: nn.Module, part: Part, example: Example, batch: int = 128) -> None:
    """Batch-norm statistics of the module as it is now, over at most 8 batches (Wu and Johnson, "Rethinking
    'Batch' in BatchNorm", 2021, section 3: precise batch norm)."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None averages all batches alike
        norm.momentum = None
    batches = Batches(part.first(batch * REESTIMATION_BATCHES), example, seed=0)
    count = max(1, min(REESTIMATION_BATCHES, len(part) // batch))
    module.train()
    with torch.no_grad():
        for step in range(count):
            inputs, _ = batches.at(step, min(batch, len(part)))
            with working():
                call_by(module, inputs, by_name=example.by_name)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
