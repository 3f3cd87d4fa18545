"""The loss of distillation: the distance to the teacher over all outputs, and the task's own loss.

Classes after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): the loss is
T^2 KL(teacher || student) at temperature T.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from autocompress.core.outputs import main_output
from autocompress.core.task import Task
from autocompress.data.named_outputs import floating, relative_distance
from autocompress.data.task_loss import classes_second, task_loss
from autocompress.errors import TechniqueError

Outputs = Mapping[str, torch.Tensor]
SAME_IN_BOTH = "Let the model give the same outputs in both modes, or choose outputs (outputs=, --output)."


def loss_of(
    task: Task, outputs: Outputs, teaching: Outputs, targets: Any, *, soft_weight: float, temperature: float
) -> torch.Tensor:
    """`soft_weight` times the distance to the teacher, and the rest of the task's own loss.

    The distance is the mean over the floating outputs. That of the main output is the KL term in classification; of a
    single output of any other task it is the mean squared error, and of further outputs that error relative to the
    variance of the teacher's. Places whose label is below 0 count for nothing in the main output's. Without a loss of
    its own, a task with several targets has the teacher alone.

    Raises:
        TechniqueError: when the student gives other outputs in training mode than the teacher in inference mode.
    """
    outputs = _as_in_inference(outputs, teaching)
    student, teacher = floating(outputs), floating(teaching)
    name = main_output(student)
    main, taught = student.pop(name), teacher.pop(name)
    if main.shape != taught.shape:
        shapes = f"{tuple(main.shape)} in training mode and {tuple(taught.shape)} in inference mode"
        raise TechniqueError(f"output {name!r} has shape {shapes}.", where="recovery", hint=SAME_IN_BOTH)
    further = [relative_distance(teacher[other], values) for other, values in student.items()]
    terms = [soft_weight * distance for distance in further if distance is not None]
    if task.chooses_classes:
        t = temperature
        soft = functional.kl_div(
            functional.log_softmax(main / t, 1), functional.log_softmax(taught / t, 1), log_target=True,
            reduction="batchmean",
        )  # fmt: skip
        terms.insert(0, soft_weight * t * t * soft)
    else:
        main, taught = _counted(task, main, taught, targets)
        relative = relative_distance(taught, main) if terms else None
        terms.insert(0, soft_weight * (_squared_error(main, taught) if relative is None else relative))
    distance = terms[0] if len(terms) == 1 else torch.stack(terms).mean()
    hard = task_loss(task, outputs, targets)
    return distance if hard is None else distance + (1 - soft_weight) * hard


def _counted(task: Task, main: torch.Tensor, taught: torch.Tensor, targets: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of student and teacher at the places whose label is not below 0, shape `(places, classes)`.

    Outputs that hold no class for each place stay as they are.
    """
    student, teacher = (classes_second(task, values, targets) for values in (main, taught))
    if student is None or teacher is None or bool((targets >= 0).all()):
        return main, taught
    return student.movedim(1, -1)[targets >= 0], teacher.movedim(1, -1)[targets >= 0]


def _squared_error(main: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    # the mean of nothing would be NaN
    return functional.mse_loss(main, taught) if main.numel() else main.sum()


def _as_in_inference(outputs: Outputs, teaching: Outputs) -> Outputs:
    """The student's outputs under the names that the model gives them in inference mode.

    Some models give more in training mode, or under other names, such as auxiliary logits.
    """
    if outputs.keys() == teaching.keys():
        return outputs
    known = {**outputs, main_output(teaching): outputs[main_output(outputs)]}
    missing = [name for name in teaching if name not in known]
    if missing:
        raise TechniqueError(
            f"the model does not give output {missing[0]!r} in training mode (it gives {', '.join(outputs)}).",
            where="recovery",
            hint=SAME_IN_BOTH,
        )
    return {name: known[name] for name in teaching}
