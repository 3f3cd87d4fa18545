"""Recognises the kinds of a model's outputs by values, targets, loss, score and names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from autocompress.core.output_kinds import (
    MASKS,
    OF_CLASSES,
    Declared,
    OutputFact,
    OutputKind,
    declared_kinds,
)
from autocompress.core.outputs import main_output
from autocompress.core.runtime import Example
from autocompress.core.targets import mapped
from autocompress.core.task import ERROR_SCORES, Task
from autocompress.data.detectors import BoxesAndLogits
from autocompress.data.example_inputs import in_dtype_of
from autocompress.data.loss_kinds import kind_of_loss
from autocompress.data.module import call
from autocompress.data.named_outputs import floating
from autocompress.data.output_traits import DECLARED_NEAR, Traits
from autocompress.data.task_loss import class_axis
from autocompress.errors import DataError

# calibration items that are looked at, and how many at a time
ITEMS, PORTION = 32, 8
# values that must lie between 0 and 1 before they are taken for probabilities of classes
LEAST_VALUES = 32
INSIDE = "between 0 and 1"
STATES = ("hidden", "state", "cell", "memory")


def with_kinds(example: Example, module: nn.Module, task: Task | None, declared: Declared = "") -> Example:
    """The example with the kinds of the module's floating outputs; `declared` come before the task's.

    Raises:
        ModelError: when the module fails on calibration items.
        DataError: when something declared is no kind, names no output, or is contradicted by the values.
    """
    given = [declared_kinds(task.output_kind) if task else {}, declared_kinds(declared)]
    seen: dict[str, Traits] = {}
    strict: dict[str, Traits] = {}
    all_targets: list[Any] = []
    for inputs, targets in _portions(example, task):
        outputs = floating(call(module, replace(example, inputs=inputs)))
        all_targets.append(targets)
        for name, values in outputs.items():
            _add(seen, name, Traits.of(values))
            if any(given):
                _add(strict, name, Traits.of(values, DECLARED_NEAR))
    facts = recognised(seen, task, all_targets)
    if isinstance(module, BoxesAndLogits):
        facts |= {name: fact for name, fact in module.known_outputs.items() if name in facts}
    words = {**_by_output(given[0], list(facts)), **_by_output(given[1], list(facts))}
    for name, word in words.items():
        if name not in facts:
            raise DataError(
                f"names the output {name!r}, which is not there.",
                where="output_kind",
                hint=f"The floating outputs are {', '.join(facts)}.",
            )
        facts[name] = _as_declared(name, word, strict[name], facts[name])
    return replace(example, kinds=facts)


def _by_output(words: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """The declared words by output; a word alone is that of the only output."""
    if "" in words and len(names) != 1:
        raise DataError(
            f"is one word, and the model has the outputs {', '.join(names)}.",
            where="output_kind",
            hint=f"Name the output: {names[0]}={words['']}.",
        )
    return {name or names[0]: word for name, word in words.items()}


def kinds_of(example: Example, module: nn.Module, task: Task | None) -> Mapping[str, OutputFact]:
    """The kinds of outputs that an example holds; recognised where it holds none."""
    return example.kinds or with_kinds(example, module, task).kinds


def _portions(example: Example, task: Task | None) -> Iterator[tuple[Any, Any]]:
    split = task.calibration if task else None
    if split is None:
        yield example.inputs, None
        return
    for inputs, targets in split.first(ITEMS).batches(PORTION):
        read = replace(example, inputs=inputs)
        arrays: dict[str, Any] = {name: in_dtype_of(example, name, array) for name, array in read.arrays.items()}
        yield arrays if example.by_name else tuple(arrays.values()), mapped(torch.as_tensor, targets)


def _add(seen: dict[str, Traits], name: str, traits: Traits) -> None:
    seen[name] = seen[name].also(traits) if name in seen else traits


def recognised(seen: Mapping[str, Traits], task: Task | None, targets: list[Any]) -> dict[str, OutputFact]:
    """The kinds of outputs by name, from their traits and the targets of the same items, batch by batch."""
    main = main_output(seen)
    loss = kind_of_loss(task.loss) if task and len(seen) == 1 else None
    return {
        name: _recognised(
            _Output(name, traits, name == main, task, _targets_of(name, place, name == main, targets), loss)
        )
        for place, (name, traits) in enumerate(seen.items())
    }


@dataclass(frozen=True)
class _Output:
    """An output with all that tells its kind; `targets` are its own by batch, empty without any."""

    name: str
    traits: Traits
    is_main: bool
    task: Task | None
    targets: list[torch.Tensor]
    loss: tuple[OutputKind, str] | None

    @property
    def class_axis(self) -> int | None:
        """The axis of classes beside whole numbers as targets, or by the score; None where there is none."""
        if self.task is None:
            return 1 if self.is_main and len(self.traits.sizes) == 2 and self.traits.sizes[1] > 1 else None
        return class_axis(
            self.task if self.is_main else replace(self.task, score=_no_score),
            self.traits.sizes,
            self.targets[0] if self.targets else None,
        )

    @property
    def has_yes_or_no_targets(self) -> bool:
        """True where the targets are zeros and ones, one for each number of the output."""
        occurring = {value for one in self.targets for value in torch.unique(one).tolist()}
        return occurring == {0, 1} and all(self._as_many(one) for one in self.targets)

    @property
    def has_values_as_targets(self) -> bool:
        """True where the targets are floating numbers, one for each number of the output."""
        return bool(self.targets) and all(self._as_many(one) and one.is_floating_point() for one in self.targets)

    def _as_many(self, targets: torch.Tensor) -> bool:
        sizes = self.traits.sizes
        # a single number belongs to no item
        return bool(sizes) and targets[:1].numel() * sizes[0] == torch.Size(sizes).numel()


def _no_score(outputs: Any, targets: Any) -> Any:
    raise NotImplementedError


def _targets_of(name: str, place: int, is_main: bool, targets: list[Any]) -> list[torch.Tensor]:
    """The targets of an output: the only ones are the main output's, several go by name or place."""
    if all(isinstance(one, dict) for one in targets):
        return [one[name] for one in targets if name in one]
    if all(isinstance(one, tuple) for one in targets):
        return [one[place] for one in targets if place < len(one)]
    return [one for one in targets if isinstance(one, torch.Tensor)] if is_main else []


def _recognised(output: _Output) -> OutputFact:
    traits, axis = output.traits, output.class_axis
    # what the values alone say for certain
    if traits.sums:
        return OutputFact(OutputKind.PROBABILITIES, _axis(traits.sums, axis), "they sum to 1")
    if traits.log_sums:
        return OutputFact(OutputKind.LOG_PROBABILITIES, _axis(traits.log_sums, axis), "their exponentials sum to 1")
    ranked = output.is_main and output.task is not None and output.task.chooses_classes
    if traits.lengths and not ranked:
        return OutputFact(OutputKind.EMBEDDING, traits.lengths[0], "vectors of length 1")
    by_loss = _by_loss(output, axis)
    if by_loss is not None:
        return by_loss
    if output.is_main and output.task is not None and output.task.score in ERROR_SCORES:
        return OutputFact(OutputKind.VALUES, None, f"score {output.task.score_name}")
    if output.has_yes_or_no_targets and not ranked:
        kind = OutputKind.SIGMOID if traits.inside else OutputKind.MULTILABEL_LOGITS
        return OutputFact(kind, None, f"{INSIDE}, the targets 0 or 1" if traits.inside else "targets of 0 or 1")
    return _by_name(output) if axis is None else _of_classes(output, axis)


def _of_classes(output: _Output, axis: int) -> OutputFact:
    """The kind of an output with a number for each class, whose values sum to nothing in particular."""
    traits, task = output.traits, output.task
    if traits.inside and traits.count >= LEAST_VALUES:
        return OutputFact(OutputKind.SIGMOID, None, f"{INSIDE}, no sums of 1")
    ranked = output.is_main and task is not None and task.chooses_classes
    return OutputFact(OutputKind.LOGITS, axis, task.score_name if ranked and task else "a number for each class")


def _axis(found: tuple[int, ...], expected: int | None) -> int:
    return expected if expected in found else found[0]


def _by_loss(output: _Output, axis: int | None) -> OutputFact | None:
    """The kind by the loss of the only output, where the values do not contradict it."""
    if output.loss is None:
        return None
    kind, name = output.loss
    traits = output.traits
    if kind is OutputKind.LOG_PROBABILITIES:
        # the values are none, so the user's loss makes them of logits
        kind = OutputKind.LOGITS
    elif kind is OutputKind.SIGMOID and not traits.inside:
        kind = OutputKind.MULTILABEL_LOGITS
    if kind in (OutputKind.LOGITS, OutputKind.EMBEDDING):
        axis = _usual_axis(traits) if axis is None else axis
        return None if axis is None else OutputFact(kind, axis, f"loss {name}")
    if kind is OutputKind.VALUES and output.class_axis is not None and output.is_main:
        # labels are no values: the loss was given something else than the output
        return None
    return OutputFact(kind, None, f"loss {name}")


def _by_name(output: _Output) -> OutputFact:
    name, traits = output.name.lower(), output.traits
    if output.has_values_as_targets:
        return OutputFact(OutputKind.BOXES if "box" in name else OutputKind.VALUES, None, "as the targets")
    if "box" in name:
        return OutputFact(OutputKind.BOXES, None, "by its name")
    if "mask" in name:
        return OutputFact(OutputKind.SIGMOID if traits.inside else OutputKind.MULTILABEL_LOGITS, None, "by its name")
    axis = _usual_axis(traits)
    if "logits" in name and axis is not None:
        return OutputFact(OutputKind.LOGITS, axis, "by its name")
    if any(word in name for word in STATES):
        return OutputFact(OutputKind.STATES, None, "by its name")
    return OutputFact(OutputKind.VALUES, None, "nothing else is known")


def _usual_axis(traits: Traits) -> int | None:
    """The axis of classes where nothing names one: the last of up to three, the second of images."""
    dimensions = len(traits.sizes)
    axis = 1 if dimensions > 3 else dimensions - 1
    return axis if axis > 0 and traits.sizes[axis] > 1 else None


def _as_declared(name: str, word: str, traits: Traits, known: OutputFact) -> OutputFact:
    """The fact that the user declared.

    Raises:
        DataError: when the values contradict it.
    """
    if word == MASKS:
        word = OutputKind.SIGMOID if traits.low >= 0 and traits.high <= 1 else OutputKind.MULTILABEL_LOGITS
    kind = OutputKind(word)
    axis: int | None = None
    fault = ""
    if kind is OutputKind.PROBABILITIES:
        fault = "" if traits.sums else f"its {traits.range} do not sum to 1"
        axis = _axis(traits.sums, known.axis) if traits.sums else None
    elif kind is OutputKind.LOG_PROBABILITIES:
        fault = "" if traits.log_sums else f"the exponentials of its {traits.range} do not sum to 1"
        axis = _axis(traits.log_sums, known.axis) if traits.log_sums else None
    elif kind is OutputKind.SIGMOID:
        fault = "" if traits.low >= 0 and traits.high <= 1 else f"it holds {traits.range}"
    elif kind in (OutputKind.LOGITS, OutputKind.MULTILABEL_LOGITS) and known.kind is OutputKind.PROBABILITIES:
        fault = "its values are probabilities, which sum to 1"
    elif kind in (OutputKind.LOGITS, OutputKind.EMBEDDING):
        of_classes = kind is OutputKind.LOGITS and known.kind in OF_CLASSES
        axis = known.axis if of_classes else _usual_axis(traits)
        fault = "" if axis is not None else f"it has no axis of several numbers (shape {traits.sizes})"
    if fault:
        raise DataError(
            f"output {name!r} is declared {word}, but {fault}.",
            where="output_kind",
            hint=f"Leave it out (it looks like {known.kind}), or declare another kind.",
        )
    return OutputFact(kind, axis, "declared")
