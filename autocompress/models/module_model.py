"""A PyTorch module as the model of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.weights import with_weights
from autocompress.core.artifact import TensorSpec
from autocompress.core.facts import Facts
from autocompress.core.model import START, Exported, Fitted, Model
from autocompress.core.runtime import Example, Runtime, exported
from autocompress.core.task import Task
from autocompress.data.copies import as_compressed
from autocompress.data.example_inputs import example_for
from autocompress.data.model_columns import for_model
from autocompress.data.preparation import prepared


@dataclass(frozen=True, eq=False)
class ModuleModel(Model):
    """A module as it is compressed; `preparation` says in what it is not the given one."""

    compressed: nn.Module
    preparation: tuple[str, ...] = ()

    @staticmethod
    def of(given: Any) -> ModuleModel:
        """The module as it is compressed; see `prepared`.

        Raises:
            ModelError: when it is no module that can be compressed.
        """
        return ModuleModel(*prepared(given))

    @property
    def module(self) -> nn.Module:
        """See `Model.module`."""
        return self.compressed

    @property
    def layer_names(self) -> Sequence[str]:
        """See `Model.layer_names`: the names of its modules."""
        return [name for name, _ in self.module.named_modules()]

    def fitted(
        self, task: Task | None, inputs: Any, specs: Sequence[TensorSpec], outputs: str | Sequence[str]
    ) -> Fitted:
        """See `Model.fitted`; `as_compressed` says of which modules a copy is compressed."""
        task, left_out = for_model(task, self.module, inputs)
        example = example_for(self.module, task, inputs, specs, outputs)
        module, differing = as_compressed(self.module, example)
        preparation = (*self.preparation, *differing)
        return Fitted(ModuleModel(module, preparation), task, example, left_out, preparation)

    def export(self, runtime: Runtime, example: Example, destination: Path, keep_float: Sequence[str] = ()) -> Exported:
        """See `Model.export`."""
        start = destination.with_name(f"{START}{runtime.suffix}")
        named = exported(runtime, self.module, example, start, keep_float, named=True)
        return Exported(runtime.without_names(named, destination), named)

    def facts(self, example: Example) -> Facts:
        """See `Model.facts`."""
        facts = with_weights(inspect_module(self.module, example), self.module)
        return replace(facts, preparation=self.preparation)
