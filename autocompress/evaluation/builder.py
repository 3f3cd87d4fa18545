"""Builds artifacts: from a plan to its file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.model import Exported, Model
from autocompress.core.plan import Plan, Setting, Step
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, exported
from autocompress.core.source import Split
from autocompress.core.task import Task
from autocompress.core.technique import Context
from autocompress.core.tools import Tools
from autocompress.core.training_recipe import TrainingRecipe
from autocompress.errors import ArtifactError
from autocompress.evaluation.artifacts import Artifacts
from autocompress.evaluation.module_rounds import ModuleRounds, Rounds
from autocompress.evaluation.trained_plan import keep_trained_as, only_as_planned, trained_as
from autocompress.system.locks import folder_lock
from autocompress.system.scratch import scratch
from autocompress.system.workspace import Workspace, make_folder
from autocompress.training.kept_inputs import KeptInputs
from autocompress.training.synthetic_inputs import why_no_inputs

# folder in which the steps of a finish write
WORK = "work"


class Builder(Artifacts):
    """Builds the artifacts of one model's plans, each kept in the workspace by the hash of its plan.

    `export_seconds` is the time that exporting the unchanged model took, 0 where an earlier run made it. `on_step` is
    called during training with the step, the number of steps and the seconds left, `tell` with a sentence where it is
    changed on the way. `recipe` is the user's for training.
    """

    def __init__(
        self,
        model: Model,
        example: Example,
        task: Task | None,
        profile: Profile,
        tools: Tools,
        workspace: Workspace,
        recipe: TrainingRecipe | None = None,
    ) -> None:
        self._model = model
        self.recipe = recipe
        self.tell: Callable[[str], None] = lambda sentence: None
        self.on_step: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None
        self.export_seconds = 0.0
        self.example = example
        self._task, self._profile = task, profile
        self._tools, self._workspace = tools, workspace
        self._name = f"model{tools.runtime.suffix}"
        self._unchanged: Exported | None = None
        self._modules = ModuleRounds(model, tools, self._folder, self._context)

    @property
    def module(self) -> torch.nn.Module:
        """The module whose structure is changed and which is trained.

        Raises:
            PlanError: when the model is a file.
        """
        return self._modules.original

    @property
    def has_module(self) -> bool:
        """False when the model is a file."""
        return self._model.module is not None

    def facts(self) -> Facts:
        """The facts of the model."""
        return self._model.facts(self.example)

    @property
    def baseline(self) -> Artifact:
        """The artifact of the unchanged model, exported once.

        Raises:
            ModelError: when it cannot be exported.
        """
        return self._exported().baseline

    @property
    def start(self) -> Artifact:
        """The artifact that techniques begin with: the baseline, or what computes the same; see `Model`.

        Raises:
            ModelError: when it cannot be exported.
        """
        return self._exported().start

    def _exported(self) -> Exported:
        if self._unchanged is None:
            self.export_baseline(self._folder(Plan()))
        assert self._unchanged is not None
        return self._unchanged

    def export_baseline(self, folder: Path) -> None:
        """Export the unchanged model into a given folder.

        Raises:
            ModelError: when it cannot be exported.
        """
        began = time.monotonic()
        runtime, destination = self._tools.runtime, folder / self._name
        self._unchanged = self._model.export(runtime, self.example, destination, self._profile.in_float)
        self.export_seconds = time.monotonic() - began

    def keep_baseline(self) -> None:
        """Copy the exported baseline to the run's other artifacts."""
        made, folder = self._exported(), self._folder(Plan())
        baseline = made.baseline.copy_to(folder / self._name)
        self._unchanged = Exported(baseline, made.start.copy_to(folder / made.start.entry))

    def _export(self, module: torch.nn.Module, path: Path) -> Artifact:
        return exported(self._tools.runtime, module, self.example, path, self._profile.in_float, named=True)

    def _folder(self, plan: Plan) -> Path:
        folder = self._workspace.checkpoints / plan.hash
        make_folder(folder)
        return folder

    def find(self, plan: Plan) -> Artifact | None:
        """See `Artifacts.find`."""
        path = self._workspace.checkpoints / plan.hash / self._name
        if path.exists():
            # a damaged file is none; it can be built again
            with suppress(ArtifactError):
                return self._tools.runtime.read(path)
        return None

    def trained(self, plan: Plan, seconds_left: Callable[[], float | None]) -> Plan:
        """See `Artifacts.trained`."""
        self._tools.require_possible(plan)
        rounds = plan.rounds
        for count in range(1, len(rounds) + 1):
            rounds = (*self._modules.trained(rounds[:count], seconds_left), *rounds[count:])
        plan = Plan(rounds, plan.finish)
        return self._with_trained_finish(plan, seconds_left) if self._tools.trains(plan.finish) else plan

    def _with_trained_finish(self, plan: Plan, seconds_left: Callable[[], float | None]) -> Plan:
        """Make the artifact of a plan whose finish trains, and return the plan as it was trained."""
        artifact, folder = self.exported(plan.rounds), self._folder(plan)
        with folder_lock(folder):
            known = trained_as(folder)
            if known is not None:
                return known
            if self.find(plan) is not None:
                return plan
            steps = list(plan.finish)

            def adapted(place: int, settings: Mapping[str, Setting]) -> None:
                steps[place] = replace(steps[place], settings=settings)

            made = self._finished(plan, artifact, adapted, seconds_left)
            found = Plan(plan.rounds, tuple(steps))
            made.copy_to(self._folder(found) / self._name)
            keep_trained_as(folder, plan, found)
            shutil.rmtree(folder / WORK)
        return found

    def build(self, plan: Plan) -> Artifact:
        """See `Artifacts.build`."""
        if not plan.finish and not plan.rounds:
            return self.baseline
        self._tools.require_possible(plan)
        folder = self._folder(plan)
        artifact = self.exported(plan.rounds)
        if not plan.finish:
            return self._tools.runtime.without_names(artifact, folder / self._name)
        with folder_lock(folder):
            # what took training is not made a second time
            final = self.find(plan) if self._tools.trains(plan.finish) else None
            if final is None:
                made = self._finished(plan, artifact, lambda place, found: only_as_planned(plan.finish[place])(found))
                final = made.copy_to(folder / self._name)
                shutil.rmtree(folder / WORK)
        return final

    def _finished(
        self,
        plan: Plan,
        artifact: Artifact,
        adapted: Callable[[int, Mapping[str, Setting]], None],
        seconds_left: Callable[[], float | None] = lambda: None,
    ) -> Artifact:
        """The artifact after a plan's finish, in a folder of its own beside the plan's artifact."""
        work = self._folder(plan) / WORK
        shutil.rmtree(work, ignore_errors=True)
        context = replace(
            self._context(work),
            calibration=self._calibration(plan),
            seconds_left=seconds_left,
            original=self.start,
        )
        return self._tools.finished(artifact, plan.finish, context, adapted)

    @property
    def no_inputs(self) -> str:
        """Why no inputs can be made to take ranges from, where there are no data; empty where they can be."""
        return why_no_inputs(self._model.module, self.example)

    def _calibration(self, plan: Plan) -> Split | None:
        """What the finish takes ranges from: data, else inputs that are made once in a run; see `KeptInputs`."""
        split = self._task.calibration if self._task else None
        if split is not None or not self._tools.takes_ranges(plan) or self.no_inputs:
            return split
        kept = KeptInputs(self._workspace.checkpoints / "synthetic", self.example)
        return kept.split(self.module, self.facts().macs, self.tell)

    def _context(self, folder: Path) -> Context:
        return Context(
            self._task,
            self.example,
            self._task.calibration if self._task else None,
            folder,
            self._model.module,
            self.on_step,
            self._workspace.checkpoints,
            self._profile.ignore,
            self.recipe,
            tell=self.tell,
        )

    def exported(self, rounds: Rounds) -> Artifact:
        """Export the module after its rounds as a float artifact; done once for the same rounds.

        Raises:
            ExportError: when it cannot be exported.
            TechniqueError: when a step cannot be done on this model.
        """
        if not rounds:
            return self.start
        path = self._folder(Plan(rounds)) / f"float{self._tools.runtime.suffix}"
        # plans with equal rounds share this artifact, and two workers may need it at once: the second waits
        with folder_lock(path.parent):
            if path.exists():
                with suppress(ArtifactError):
                    return self._tools.runtime.read(path)
            module = self._modules.after(rounds)
            # an export whose outputs turn out to differ must not be found by the next plan with these rounds
            with scratch("export") as folder:
                return self._export(module, folder / path.name).copy_to(path)

    def untrained(self, structure: Sequence[Step]) -> torch.nn.Module:
        """The module after the steps of a structure, without training.

        It has tensors of its own where a step changed anything.

        Raises:
            TechniqueError: when a step cannot be done on this model.
        """
        rounds = (tuple(structure),)
        with folder_lock(self._folder(Plan(rounds))):
            return self._modules.after(rounds)
