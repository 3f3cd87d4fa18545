"""Contract Model: what a run compresses, a PyTorch module or a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocompress.core.artifact import Artifact, TensorSpec
from autocompress.core.facts import Facts
from autocompress.core.runtime import Example, Runtime
from autocompress.core.task import Task

if TYPE_CHECKING:
    from torch import nn


# name of the file that techniques begin with, beside that of the baseline
START = "float"


@dataclass(frozen=True)
class Exported:
    """The files of an unchanged model.

    `baseline` is what budgets compare with; `start` computes the same, and is what techniques on artifacts begin with.
    """

    baseline: Artifact
    start: Artifact


class Model(ABC):
    """What a run compresses: a PyTorch module, or a file in the runtime's format."""

    @property
    @abstractmethod
    def module(self) -> nn.Module | None:
        """The module whose structure can be changed and which can be trained; None for a file."""

    @property
    @abstractmethod
    def layer_names(self) -> Sequence[str]:
        """Names that patterns of layers (`ignore`, `keep_float`) may fit."""

    @abstractmethod
    def fitted(
        self, task: Task | None, inputs: Any, specs: Sequence[TensorSpec], outputs: str | Sequence[str]
    ) -> Fitted:
        """The model with what it is called with.

        `inputs` are example inputs as the caller gave them, `specs` those of the profile, `outputs` names the outputs
        that ship, all where it is empty.

        Raises:
            ModelError: when there is nothing to call it with, or it fails on the inputs.
            DataError: when the data do not fit it.
        """

    @abstractmethod
    def export(self, runtime: Runtime, example: Example, destination: Path, keep_float: Sequence[str] = ()) -> Exported:
        """Write its files, the baseline to `destination`; see `Runtime.export` for `keep_float`.

        Raises:
            ExportError: when it cannot be exported, or the file computes something else.
        """

    @abstractmethod
    def facts(self, example: Example) -> Facts:
        """The facts of the model.

        Raises:
            ModelError: when it fails on the example.
        """


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with the task's columns that it takes and an example of its inputs.

    `left_out` has a sentence about columns that are left out, `preparation` one about each thing in which what is
    compressed is not what was given.
    """

    model: Model
    task: Task | None
    example: Example
    left_out: tuple[str, ...] = ()
    preparation: tuple[str, ...] = ()
