"""Training of a quantized file's own graph, with the float file as its teacher.

Quantization-aware training (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018, section 3) by the simulation of the file in
`autocompress.simulation.graph_module`, with the trainer of `autocompress.training.recovery`. Learned ranges: Esser et
al., "Learned Step Size Quantization", ICLR 2020.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.runtime import Example
from autocompress.core.source import whole
from autocompress.core.streams import PartSource
from autocompress.core.task import Task
from autocompress.data.named_outputs import named_outputs
from autocompress.errors import TechniqueError
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.few_bits import limit_bits
from autocompress.simulation.graph_module import GraphModule
from autocompress.system.locks import measuring
from autocompress.system.scratch import scratch
from autocompress.training.recovery import UNWATCHED, Files, Watch, recover
from autocompress.training.schedule import Schedule

WHERE = "quantization-aware training"
# names of the parameters that stay as they are where they have no gradient
SCALES = "*.scale"
# bits of the type that stores weights
STORED_BITS = 8
TIMED_STEPS, WARM_UP_STEPS = 3, 1


class FileModule(nn.Module):
    """A file's graph as a module, called with the example's inputs; it gives its outputs by name.

    It computes in float32 whatever the surroundings ask for: bfloat16 has as many digits as the levels of int8, so that
    rounding would hide what is to be learned.
    """

    def __init__(self, graph: GraphModule, example: Example) -> None:
        super().__init__()
        self.graph = graph
        self._names = tuple(example.arrays)

    def forward(self, *given: torch.Tensor, **named: torch.Tensor) -> dict[str, torch.Tensor]:
        """The file's outputs by name."""
        inputs = {**dict(zip(self._names, given, strict=False)), **named}
        place = next(iter(inputs.values())).device.type
        with torch.autocast(place, enabled=False):
            found: dict[str, torch.Tensor] = self.graph(**inputs)
        return found


@dataclass(frozen=True)
class Learned:
    """What is learned beside weights and biases: `ranges`, and in how many `bits` the weights are."""

    ranges: bool = True
    bits: int = STORED_BITS


def student_of(quantized: Artifact, example: Example, learned: Learned) -> FileModule:
    """The module that is trained: a quantized file's graph, its weights in the bits that are asked for.

    Raises:
        TechniqueError: when the simulation does not cover the file, or no layer in it has quantized weights.
    """
    graph = GraphModule(load_model(quantized.path))
    if not graph.layers():
        raise TechniqueError("the file has no layer with quantized weights.", where=WHERE)
    if quantized.fixed_batch is not None:
        sentence = f"the file takes {quantized.fixed_batch} items at a time, and training other numbers of them."
        raise TechniqueError(sentence, where=WHERE, hint="Export the model with a free batch.")
    if learned.bits < STORED_BITS:
        limit_bits(graph, learned.bits)
    graph.learn_scales(weights=learned.ranges, activations=learned.ranges)
    return FileModule(graph, example)


def train_file(
    student: FileModule,
    unquantized: Artifact,
    task: Task,
    example: Example,
    schedule: Schedule,
    files: Files,
    watch: Watch = UNWATCHED,
) -> FileModule:
    """Train a student with the float file as teacher; where that harms it, it stays as it was.

    Raises:
        TechniqueError: see `recover`; or when the simulation does not cover the float file.
    """
    teacher = FileModule(GraphModule(load_model(unquantized.path)), example).eval().requires_grad_(False)
    example = file_example(example, teacher)
    found = recover(
        student, teacher, task, example, replace(schedule, frozen=(SCALES,), or_as_it_was=True), files, watch
    )
    assert isinstance(found, FileModule)
    return found


def file_example(example: Example, module: FileModule) -> Example:
    """The example for a file's module: its outputs are those that were chosen, by the names in the file."""
    with torch.no_grad():
        names = named_outputs(module(**example.tensors()), replace(example, outputs=()))
    return replace(example, outputs=(), kinds=example.kinds if set(example.kinds) <= set(names) else {})


def step_seconds(
    quantized: Artifact, unquantized: Artifact, task: Task, example: Example, batch: int, learned: Learned
) -> float:
    """The seconds that one step takes on this machine, the teacher's answer included.

    Raises:
        TechniqueError: see `student_of` and `train_file`.
    """
    if task.train is None:
        raise TechniqueError("needs training data, and there are none.", where=WHERE)
    # only the items of the timed steps are read, and nothing is scored
    shown = whole("train", task.train).first(batch * TIMED_STEPS)
    alone = replace(task, test=None, val=None, train=PartSource(task.train, shown.indices))
    with scratch("training") as folder, measuring():
        for steps in (WARM_UP_STEPS, TIMED_STEPS):
            student = student_of(quantized, example, learned)
            schedule = Schedule(steps, batch, 0, 1e-6, weight_decay=0.0)
            begun = time.monotonic()
            train_file(student, unquantized, alone, example, schedule, Files(folder / f"{steps}.pt"))
            seconds = (time.monotonic() - begun) / steps
    return seconds
