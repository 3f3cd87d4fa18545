"""The workbench: builds plans into artifacts and takes their measurements."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import zstandard

from autocompress.core.artifact import BYTES_PER_MB, Artifact
from autocompress.core.device import Device
from autocompress.core.machine import Machine
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.profile import Profile
from autocompress.core.runtime import Contents, Example, Runtime, feeds
from autocompress.core.search_space import check_settings
from autocompress.core.source import Split
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context, ModelTechnique, Technique
from autocompress.errors import ArtifactError, PlanError
from autocompress.evaluation.scorer import Scorer
from autocompress.pruning.blocks import with_own_weights, with_shared_weights
from autocompress.system.locks import folder_lock, working
from autocompress.system.workspace import Workspace, make_folder, write_atomically
from autocompress.training.checkpoints import load_checkpoint

Rounds = tuple[tuple[Step, ...], ...]
CHECKING_BATCH = 256
DOWNLOAD_LEVEL = 19


@dataclass(frozen=True, eq=False)
class Tools:
    """What a run works with: one runtime, one device, and the techniques on the shelf."""

    runtime: Runtime
    device: Device
    techniques: Sequence[Technique]

    def technique(self, name: str) -> Technique:
        """The technique of that name.

        Raises:
            PlanError: when it is not on the shelf.
        """
        for technique in self.techniques:
            if technique.name == name:
                return technique
        known = ", ".join(technique.name for technique in self.techniques)
        raise PlanError(f"there is no technique named {name!r}.", where="plan", hint=f"On the shelf: {known}.")

    def finished(self, artifact: Artifact, finish: Sequence[Step], context: Context) -> Artifact:
        """The artifact after the steps of a finish, each with a folder of its own inside the context's.

        Raises:
            TechniqueError: when a step cannot be done on this artifact.
        """
        for place, step in enumerate(finish):
            technique = self.technique(step.technique)
            assert isinstance(technique, ArtifactTechnique)
            inside = context.folder / str(place)
            make_folder(inside)
            with working():
                artifact = technique.apply(artifact, step.settings, replace(context, folder=inside))
        return artifact

    def require_possible(self, plan: Plan) -> None:
        """Raises PlanError when a step names a technique or setting that is not known, or stands in the wrong part."""
        for step in plan.steps:
            technique = self.technique(step.technique)
            if technique.stage is not step.stage:
                raise PlanError(f"acts at stage {technique.stage}, not {step.stage}.", where=step.technique)
            if all(choice.options for choice in technique.choices):
                check_settings(step.technique, technique.choices, step.settings)


class Workbench:
    """One model with its data on one device. Artifacts are kept by the hash of their plan.

    `export_seconds` is what the export of the untouched model took, 0 where an earlier run made it.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        example: Example,
        task: Task | None,
        profile: Profile,
        tools: Tools,
        workspace: Workspace,
    ) -> None:
        self.module = module
        self.example = example
        self.task = task
        self.profile = profile
        self.tools = tools
        self.workspace = workspace
        self.machine: Machine = tools.device.machine()
        self.hears_training: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None
        self.export_seconds = 0.0
        self._baseline: Artifact | None = None
        self._scorer = Scorer(tools.runtime, task or Task(), self.machine.cores, profile.runtime.options)

    @property
    def baseline(self) -> Artifact:
        """The model untouched, exported once.

        Raises:
            ModelError: when it cannot be exported.
        """
        if self._baseline is None:
            self.export_baseline(self._folder(Plan()))
        assert self._baseline is not None
        return self._baseline

    def export_baseline(self, folder: Path) -> None:
        """Export the model untouched into a folder of one's own.

        Raises:
            ModelError: when it cannot be exported.
        """
        began = time.monotonic()
        with working():
            self._baseline = self._export(self.module, folder / "model.onnx")
        self.export_seconds = time.monotonic() - began

    def _export(self, module: torch.nn.Module, path: Path) -> Artifact:
        return self.tools.runtime.export(module, self.example, path, self.profile.in_float)

    def adopt_baseline(self) -> None:
        """Keep the exported baseline with the run's other artifacts."""
        self._baseline = self.baseline.copy_to(self._folder(Plan()) / "model.onnx")

    def take_baseline(self, baseline: Artifact) -> None:
        """Measure against a baseline that an earlier run exported."""
        self._baseline = baseline

    def _folder(self, plan: Plan) -> Path:
        folder = self.workspace.checkpoints / plan.hash
        make_folder(folder)
        return folder

    def built(self, plan: Plan) -> Artifact | None:
        """The plan's artifact if it has been built already."""
        path = self.workspace.checkpoints / plan.hash / "model.onnx"
        return self.tools.runtime.read(path) if path.exists() else None

    def build(self, plan: Plan) -> Artifact:
        """The plan's artifact; the same plan, model, data and thread count give the same bytes.

        Raises:
            PlanError: when a step names an unknown technique or setting.
            TechniqueError: when a step cannot be done on this model.
        """
        if not plan.finish and not plan.rounds:
            return self.baseline
        self.tools.require_possible(plan)
        folder = self._folder(plan)
        artifact = self.exported(plan.rounds)
        if not plan.finish:
            return artifact.copy_to(folder / "model.onnx")
        with folder_lock(folder):
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            final = self.tools.finished(artifact, plan.finish, self._context(work)).copy_to(folder / "model.onnx")
            shutil.rmtree(work)
        return final

    def _context(self, folder: Path) -> Context:
        split = self.task.calibration if self.task else None
        shared = self.workspace.checkpoints
        return Context(
            self.task, self.example, split, folder, self.module, self.hears_training, shared, self.profile.ignore
        )

    def exported(self, rounds: Rounds) -> Artifact:
        """The module after its rounds as a float artifact; exported once.

        Raises:
            ExportError: when it cannot be exported.
            TechniqueError: when a step cannot be done on this model.
        """
        if not rounds:
            return self.baseline
        path = self._folder(Plan(rounds)) / "float.onnx"
        # plans that begin alike share this, and two workers may come to it at once: the second waits for the first
        with folder_lock(path.parent):
            if path.exists():
                with suppress(ArtifactError):
                    return self.tools.runtime.read(path)
            module = self._module(rounds)
            with working():
                return self._export(module, path)

    def shaped(self, structure: Sequence[Step]) -> torch.nn.Module:
        """The module with a structure, not trained. Its tensors are its own where a step changed anything.

        Raises:
            TechniqueError: when a step cannot be done on this model.
        """
        rounds = (tuple(structure),)
        with folder_lock(self._folder(Plan(rounds))):
            return self._module(rounds)

    def _module(self, rounds: Rounds) -> torch.nn.Module:
        """The module after its rounds. Weights come from the checkpoint of these rounds where there is one; else the
        last round is applied to what the rounds before it left. Whoever calls holds the lock of their folder."""
        if not rounds:
            return with_shared_weights(self.module)
        folder = self._folder(Plan(rounds))
        weights = folder / "module.pt"
        if weights.exists():
            module = self._before(rounds)
            # what is trained is in the checkpoint; shapes may depend on what the rounds before it learned
            for step in (step for step in rounds[-1] if step.stage is not Stage.RECOVERY):
                module = self._apply(module, step, folder)
            # never into the original's tensors, which a round without structure still shares
            module = with_own_weights(module)
            if load_checkpoint(weights, module.load_state_dict):
                return module
        module = self._before(rounds)
        for step in rounds[-1]:
            module = self._apply(module, step, folder)
        write_atomically(weights, lambda target: torch.save(module.state_dict(), target))
        return module

    def _before(self, rounds: Rounds) -> torch.nn.Module:
        """The module as the last round finds it."""
        with folder_lock(self._folder(Plan(rounds[:-1]))):
            return self._module(rounds[:-1])

    def _apply(self, module: torch.nn.Module, step: Step, folder: Path) -> torch.nn.Module:
        technique = self.tools.technique(step.technique)
        assert isinstance(technique, ModelTechnique)
        return technique.apply(module, step.settings, self._context(folder))

    def measure_size(self, artifact: Artifact) -> Measurement:
        """Size and, where a budget asks for it, download size, of the artifact and of the baseline."""
        return Measurement(sizes(artifact, self.profile), sizes(self.baseline, self.profile))

    def measure_time(self, artifact: Artifact, max_seconds: float | None = None) -> Measurement:
        """Latency and memory, in blocks that alternate with the baseline's, each in a fresh process."""
        if artifact.hash == self.baseline.hash:
            (only,) = self.tools.device.measure([artifact], self.profile, self.example, max_seconds)
            return Measurement(only.readings, only.readings, only.conditions, unchanged=True)
        before, after = self.tools.device.measure([self.baseline, artifact], self.profile, self.example, max_seconds)
        return Measurement(after.readings, before.readings, after.conditions)

    def measure_score(self, artifact: Artifact, split: Split) -> Measurement:
        """Scores of the artifact and of the baseline on the same items, shape `(n,)` each where every item has its own.

        Where the task is one of classes, the answers of both and the labels as well.
        """
        return self._scorer.measurement(artifact, self.baseline, split)

    @property
    def options(self) -> Mapping[str, str]:
        """Session options of the profile."""
        return self.profile.runtime.options

    def contents(self, artifact: Artifact) -> Contents:
        """Parameters, non-zero parameters and operators."""
        return self.tools.runtime.contents(artifact)


def check_data(bench: Workbench) -> None:
    """Read every test item once, inputs and targets, before anything is tried with them. No answers are looked at.

    Raises:
        DataError: when shapes, dtypes or values do not fit the model, or a label is none of its classes.
    """
    task = bench.task
    if task is None or task.test is None:
        return
    outputs = bench.baseline.outputs[0].shape
    for _, targets in feeds(task.everything, bench.baseline, CHECKING_BATCH):
        if task.chooses_classes and len(outputs) == 2 and outputs[1] is not None:
            # any outputs will do: only the labels are judged
            task.scores(np.zeros((len(targets), outputs[1]), dtype=np.float32), targets)


def sizes(artifact: Artifact, profile: Profile) -> dict[str, Reading]:
    """Size and, where the profile limits it, download size (zstd, level 19) in MB."""
    readings = {"size_mb": Reading.one("MB", artifact.size_bytes / BYTES_PER_MB)}
    if profile.limits("download_mb"):
        compressor = zstandard.ZstdCompressor(level=DOWNLOAD_LEVEL)
        packed = sum(len(compressor.compress((artifact.root / name).read_bytes())) for name in artifact.files)
        readings["download_mb"] = Reading.one("MB", packed / BYTES_PER_MB)
    return readings
