"""The loss of distillation: the distance to the teacher over all outputs, and the task's own loss.

Classes after Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015): the loss is
T^2 KL(teacher || student) at temperature T. Other kinds: see `autocompress.data.output_divergence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.core.outputs import main_output
from autocompress.core.task import Task
from autocompress.data.counted_places import counted_places
from autocompress.data.named_outputs import floating
from autocompress.data.output_divergence import distance, rows_of
from autocompress.data.task_loss import task_loss
from autocompress.errors import TechniqueError

Outputs = Mapping[str, torch.Tensor]
SAME_IN_BOTH = "Let the model give the same outputs in both modes, or choose outputs (outputs=, --output)."


@dataclass(frozen=True)
class Softness:
    """The weight of the distance to the teacher, the rest being the task's own loss, and its temperature."""

    weight: float = 0.9
    temperature: float = 4.0


def loss_of(
    task: Task,
    outputs: Outputs,
    teaching: Outputs,
    targets: Any,
    *,
    kinds: Mapping[str, OutputFact],
    inputs: Mapping[str, torch.Tensor],
    softness: Softness,
) -> torch.Tensor:
    """The softness's weight times the distance to the teacher, and the rest of the task's own loss.

    The distance is that of the only floating output, by its kind, or the mean over several, each over the spread of the
    teacher's in the batch, so that none drowns another. Places whose label is below 0 and padded ones count for
    nothing. Where the task has no loss the teacher is alone.

    Raises:
        TechniqueError: when the student gives other outputs in training mode than the teacher in inference mode.
    """
    outputs = _as_in_inference(outputs, teaching)
    student, teacher = floating(outputs), floating(teaching)
    main = main_output(student)
    if student[main].shape != teacher[main].shape:
        shapes = f"{tuple(student[main].shape)} in training mode and {tuple(teacher[main].shape)} in inference mode"
        raise TechniqueError(f"output {main!r} has shape {shapes}.", where="recovery", hint=SAME_IN_BOTH)
    counted = counted_places(kinds, teacher, targets, inputs)
    distances = []
    for name, taught in teacher.items():
        if student[name].shape != taught.shape:
            continue
        fact = kinds[name]
        found, wanted = (rows_of(fact, values, counted.get(name)) for values in (student[name], taught))
        # in a narrow cone all cosine distances are small
        relative = len(teacher) > 1 or fact.kind is OutputKind.EMBEDDING
        term = distance(fact.kind, found, wanted, softness.temperature, relative=relative)
        if term is None and name == main:
            term = distance(fact.kind, found, wanted, softness.temperature)
        if term is not None:
            distances.append(term)
    terms = [softness.weight * term for term in distances]
    soft = terms[0] if len(terms) == 1 else torch.stack(terms).mean()
    hard = task_loss(task, outputs, targets, kinds)
    return soft if hard is None else soft + (1 - softness.weight) * hard


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
