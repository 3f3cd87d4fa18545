"""The module after the rounds of plans: changed, trained, and its weights kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from autocompress.core.model import Model
from autocompress.core.plan import Plan, Setting, Stage, Step
from autocompress.core.technique import Context, ModelTechnique
from autocompress.core.tools import Tools
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.errors import PlanError, TechniqueError, raised_as
from autocompress.evaluation.trained_plan import keep_trained_as, only_as_planned, trained_as
from autocompress.system.locks import folder_lock
from autocompress.system.workspace import write_atomically
from autocompress.training.checkpoints import load_checkpoint

MODULE_NEEDED = "the model is a file; changing its structure needs the PyTorch module."
Rounds = tuple[tuple[Step, ...], ...]


class ModuleRounds:
    """Gives the module of one model after the rounds of its plans.

    `folder` gives the folder in which the weights of a plan's rounds are kept, `context` that of techniques which work
    in a folder.
    """

    def __init__(
        self, model: Model, tools: Tools, folder: Callable[[Plan], Path], context: Callable[[Path], Context]
    ) -> None:
        self._model, self._tools, self._folder, self._context = model, tools, folder, context

    @property
    def original(self) -> torch.nn.Module:
        """The module whose structure is changed and which is trained.

        Raises:
            PlanError: when the model is a file.
        """
        if self._model.module is None:
            raise PlanError(MODULE_NEEDED, where="model")
        return self._model.module

    def trained(self, rounds: Rounds, seconds_left: Callable[[], float | None]) -> Rounds:
        """Train the last of these rounds, and return the rounds as they were trained."""
        place = next((i for i, step in enumerate(rounds[-1]) if step.stage is Stage.RECOVERY), None)
        if place is None:
            return rounds
        folder = self._folder(Plan(rounds))
        with folder_lock(folder):
            known = trained_as(folder)
            if known is not None:
                return known.rounds
            if (folder / "module.pt").exists():
                return rounds
            found = self._train(rounds, place, folder, seconds_left)
            keep_trained_as(folder, Plan(rounds), Plan(found))
        return found

    def _train(self, rounds: Rounds, place: int, folder: Path, seconds_left: Callable[[], float | None]) -> Rounds:
        """Train the last round in its folder; the weights are kept in that of the rounds as they were trained."""
        last = list(rounds[-1])

        def adapted(settings: Mapping[str, Setting]) -> None:
            last[place] = replace(last[place], settings=settings)

        context = replace(self._context(folder), seconds_left=seconds_left, adapted=adapted)
        module = self._before(rounds)
        for step in rounds[-1]:
            module = self._apply(module, step, context)
        found = (*rounds[:-1], tuple(last))
        weights = self._folder(Plan(found)) / "module.pt"
        write_atomically(weights, lambda target: torch.save(module.state_dict(), target))
        return found

    def after(self, rounds: Rounds) -> torch.nn.Module:
        """The module after these rounds, with the weights of the rounds' checkpoint where there is one.

        Otherwise the last round is applied to the module after the rounds before it. It has tensors of its own where a
        step changed anything. The caller holds the lock of the rounds' folder.

        Raises:
            TechniqueError: when a step cannot be done on this model.
        """
        if not rounds:
            return with_shared_weights(self.original)
        folder = self._folder(Plan(rounds))
        weights = folder / "module.pt"
        if weights.exists():
            module = self._before(rounds)
            # the checkpoint holds the trained weights; shapes may depend on the weights of the rounds before
            for step in (step for step in rounds[-1] if step.stage is not Stage.RECOVERY):
                module = self._apply(module, step, self._context(folder))
            # a round without structure still shares the original's tensors, which must not be overwritten
            module = with_own_weights(module)
            if load_checkpoint(weights, module.load_state_dict):
                return module
        module = self._before(rounds)
        for step in rounds[-1]:
            module = self._apply(module, step, replace(self._context(folder), adapted=only_as_planned(step)))
        write_atomically(weights, lambda target: torch.save(module.state_dict(), target))
        return module

    def _before(self, rounds: Rounds) -> torch.nn.Module:
        """The module before its last round."""
        with folder_lock(self._folder(Plan(rounds[:-1]))):
            return self.after(rounds[:-1])

    def _apply(self, module: torch.nn.Module, step: Step, context: Context) -> torch.nn.Module:
        technique = self._tools.technique(step.technique)
        assert isinstance(technique, ModelTechnique)
        with raised_as(TechniqueError, step.technique):
            return technique.apply(module, step.settings, context)
