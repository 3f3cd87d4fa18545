"""Fakes whose sizes, times and answers are known: a device, techniques, a model and its data.

The files are real ONNX files, scored in the real runtime; only the times and the lost accuracy are scripted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from onnx import helper
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.device import Device
from autocompress.core.facts import Facts, Kind
from autocompress.core.machine import Machine
from autocompress.core.measurement import Conditions, Measurement, Reading
from autocompress.core.objective import OBJECTIVES
from autocompress.core.plan import Effort, Plan, Setting, Stage, Step
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile, Protocol
from autocompress.core.record import Record
from autocompress.core.runtime import Contents, Example, Runtime, Session
from autocompress.core.search_space import Choice, Element, Reason, Recipe, SearchSpace, SettingSpace
from autocompress.core.source import Array
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context, Technique
from autocompress.core.tools import Tools
from autocompress.errors import RuntimeFailureError, TechniqueError
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.measurer import Measurer
from autocompress.evaluation.run import Run
from autocompress.models import ModuleModel
from autocompress.run.confirm import Confirmation
from autocompress.run.escalation import conclude, confirm_contenders
from autocompress.run.record_store import open_record
from autocompress.run.result import Result
from autocompress.run.search import Search
from autocompress.run.stages import Planned, find_facts, measure_baseline, plan_space, take_probes
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import save_model
from autocompress.statistics.bounds import least_values
from autocompress.strategies import Bisection
from autocompress.system.progress import Deadline, Progress, silent
from autocompress.system.workspace import Workspace
from autocompress.testing.networks import onnx_model

MACHINE = Machine("x86_64", "Scripted CPU", 2, 4000, ("int8_dot_product",))
BASELINE_MS = 10.0
BASELINE_KB = 40


@dataclass(frozen=True)
class Variant:
    """What a scripted technique makes of the model: items easier than `wrong_below` are answered wrong.

    `error` and `raises` are raised by the technique, the latter as it is; `dies` says that the device fails on it.
    """

    kilobytes: int = 20
    latency_ms: float = 5.0
    wrong_below: float = 0.0
    error: str = ""
    dies: bool = False
    raises: BaseException | None = None


class Answers(nn.Module):
    """A model that answers every item right: its class is the sign of the first value.

    The second value is the item's difficulty.
    """

    def __init__(self) -> None:
        super().__init__()
        width = BASELINE_KB * 1000 // 16
        self.wide = nn.Parameter(torch.full((2, width), 1e-9))
        self.narrow = nn.Parameter(torch.full((width, 2), 1e-9))

    def forward(self, item: torch.Tensor) -> torch.Tensor:
        sign = item[:, :1]
        return torch.cat([-sign, sign], 1) + item @ self.wide @ self.narrow


def answering(path: Path, variant: Variant) -> Artifact:
    """Write the file of a variant; its latency is in the metadata, where the scripted device finds it."""
    width = variant.kilobytes * 1000 // 16
    nodes = [
        helper.make_node("MatMul", ["input", "pick_difficulty"], ["difficulty"]),
        helper.make_node("Less", ["difficulty", "wrong_below"], ["is_wrong"]),
        helper.make_node("MatMul", ["input", "pick_sign"], ["sign"]),
        helper.make_node("Neg", ["sign"], ["other_sign"]),
        helper.make_node("Where", ["is_wrong", "other_sign", "sign"], ["said"]),
        helper.make_node("MatMul", ["said", "spread"], ["logits"]),
        helper.make_node("MatMul", ["input", "wide"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "narrow"], ["nothing"]),
        helper.make_node("Add", ["logits", "nothing"], ["output"]),
    ]
    weights = {
        "pick_difficulty": [[0.0], [1.0]],
        "wrong_below": [variant.wrong_below],
        "pick_sign": [[1.0], [0.0]],
        "spread": [[-1.0, 1.0]],
        "wide": np.full((2, width), 1e-9),
        "narrow": np.full((width, 2), 1e-9),
    }
    arrays = {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}
    model = onnx_model(nodes, {"input": ("batch", 2)}, {"output": ("batch", 2)}, arrays)
    helper.set_model_props(model, {"latency_ms": str(variant.latency_ms), "dies": str(variant.dies)})
    return save_model(model, path)


class FakeDevice(Device):
    """A device that returns the latency written in a file, else the baseline's, without waiting.

    Blocks differ from it by at most the share `jitter`. `measured` keeps the artifacts of every call, by hash, and
    `profiles` its profile.
    """

    def __init__(self, blocks: int = 12, jitter: float = 0.0) -> None:
        self.blocks, self.jitter = blocks, jitter
        self.measured: list[tuple[str, ...]] = []
        self.profiles: list[Profile] = []

    scheme = "fake"

    @classmethod
    def connect(cls, connection: str, runtime: Runtime) -> FakeDevice:
        return cls()

    def machine(self) -> Machine:
        return MACHINE

    def load(self, artifact: Artifact, profile: Profile) -> Session:
        return OnnxRuntime().load(artifact, 1, profile.runtime.options)

    def slowest_operators(
        self, artifact: Artifact, profile: Profile, inputs: Mapping[str, Array]
    ) -> Sequence[tuple[str, str, float]]:
        return ()

    def measure(
        self,
        artifacts: Sequence[Artifact],
        profile: Profile,
        example: Example | None = None,
        max_seconds: float | None = None,
        also: Collection[str] = (),
    ) -> list[Measurement]:
        self.measured.append(tuple(artifact.hash for artifact in artifacts))
        self.profiles.append(profile)
        return [self._measure(artifact, profile, also) for artifact in artifacts]

    def _measure(self, artifact: Artifact, profile: Profile, also: Collection[str]) -> Measurement:
        written = {entry.key: entry.value for entry in onnx.load(artifact.path).metadata_props}
        if written.get("dies") == "True":
            raise RuntimeFailureError("died while it was measured.", where=artifact.entry)
        latency_ms = float(written.get("latency_ms", BASELINE_MS))
        # the baseline's blocks are slow where the candidate's are fast, so that their ratio varies too
        sign = 1.0 if "latency_ms" in written else -1.0
        spread = 1.0 + sign * self.jitter * np.linspace(-1.0, 1.0, self.blocks)
        repeated = profile.limits("memory_mb") or "memory_mb" in also
        processes = least_values(profile.alpha) if repeated else 1
        numbers = np.arange(self.blocks)
        throughput = 1000 * profile.protocol.batch * profile.protocol.streams / (latency_ms * spread[:, None])
        streamed = profile.limits("throughput_per_s") or "throughput_per_s" in also
        return Measurement(
            {
                **({"throughput_per_s": Reading("items/s", throughput, loads=numbers)} if streamed else {}),
                "latency_ms": Reading("ms", np.repeat(latency_ms * spread[:, None], 3, axis=1), loads=numbers),
                "memory_mb": Reading("MB", np.full(processes, artifact.size_bytes / 1e6)),
            },
            conditions=Conditions(
                artifact.hash, "onnxruntime", {}, profile.runtime.threads, profile.protocol.batch, str(MACHINE)
            ),
        )


class Scripted(ArtifactTechnique):
    """A technique that makes one of its variants of any model."""

    summary = "does what the script says"
    stage = Stage.PRECISION
    formats = frozenset({"onnx"})
    probed = ()

    def __init__(self, name: str, variants: Mapping[str, Variant], effort: Effort = Effort.NONE) -> None:
        self.name, self.effort, self.variants = name, effort, variants  # type: ignore[misc]  # fixed for each class
        self.choices = (Choice("variant", tuple(variants)),)  # type: ignore[misc]  # fixed for each class
        self.applied: list[str] = []

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        return SettingSpace(self.choices)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        return None

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return f"{self.name} {settings[0]['variant']}"

    def covers(self, facts: Facts) -> frozenset[Kind]:
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        self.applied.append(str(settings["variant"]))
        variant = self.variants[str(settings["variant"])]
        if variant.error:
            raise TechniqueError(variant.error, where=self.name)
        if variant.raises is not None:
            raise variant.raises
        return answering(context.folder / "scripted.onnx", variant)

    def plan(self, variant: str) -> Plan:
        return Plan(finish=(Step(self.name, self.stage, {"variant": variant}),))

    @property
    def recipe(self) -> Recipe:
        element = Element(self.name, self.stage, SettingSpace(self.choices))
        return Recipe(self.name, self.effort, (element,), Reason(self.summary, "script"))


@cache
def _exported() -> bytes:
    with TemporaryDirectory() as folder:
        example = Example((np.ones((2, 2), dtype=np.float32),))
        return OnnxRuntime().export(Answers().eval(), example, Path(folder) / "model.onnx").path.read_bytes()


@cache
def empty_record() -> bytes:
    """The file of a record without trials, cached as bytes.

    Making one takes a quarter of a second, opening it a tenth of that.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        open_record(path).close()
        return path.read_bytes()


class ExportedOnce(Runtime):
    """ONNX Runtime that keeps the export of `Answers` for the next test."""

    name = "onnxruntime"
    format = "onnx"
    suffix = ".onnx"
    meter_backend = OnnxRuntime.meter_backend

    def export(
        self,
        module: nn.Module,
        example: Example,
        destination: Path,
        keep_float: Sequence[str] = (),
        *,
        named: bool = False,
    ) -> Artifact:
        assert isinstance(module, Answers)
        destination.write_bytes(_exported())
        return self.read(destination)

    def without_names(self, artifact: Artifact, destination: Path) -> Artifact:
        return OnnxRuntime().without_names(artifact, destination)

    def read(self, path: Path) -> Artifact:
        return OnnxRuntime().read(path)

    def load(self, artifact: Artifact, threads: int, options: Mapping[str, str]) -> Session:
        return OnnxRuntime().load(artifact, threads, options)

    def largest_tensors(self, artifact: Artifact) -> Sequence[tuple[str, int]]:
        return ()

    def slowest_operators(
        self, artifact: Artifact, inputs: Mapping[str, Array], threads: int, options: Mapping[str, str]
    ) -> Sequence[tuple[str, str, float]]:
        return ()

    def contents(self, artifact: Artifact) -> Contents:
        return OnnxRuntime().contents(artifact)

    @property
    def versions(self) -> Mapping[str, str]:
        return OnnxRuntime().versions


def ramp(items: int) -> Array:
    """Difficulties from 0 to 1 in even steps: `wrong_below=0.1` loses a tenth of the items."""
    return (np.arange(items) + 0.5) / items


def items_of(difficulties: Array) -> tuple[Array, Array]:
    """Inputs and labels of items of these difficulties."""
    labels = np.arange(len(difficulties)) % 2
    return np.stack([2.0 * labels - 1.0, difficulties], 1).astype(np.float32), labels


def task_of(validation: Array, holdout: Array) -> Task:
    """A task with validation and holdout items of these difficulties."""
    return Task(test=items_of(holdout), val=items_of(validation))


@dataclass(eq=False)
class Stand:
    """A scripted run in a folder, with everything that a search and a confirmation need.

    Opened again on the same folder it finds the record and the files that are there.
    """

    folder: Path
    techniques: Sequence[Technique]
    budgets: Mapping[str, float | str]
    task: Task | None = None
    objective: str = "effort"
    batch: int = 1
    device: FakeDevice = field(default_factory=FakeDevice)
    items: str = "all"
    download: str = "zstd"
    deadline: Deadline = field(default_factory=lambda: Deadline.start(None))

    def __post_init__(self) -> None:
        workspace = Workspace(self.folder)
        workspace.open(resume=True)
        if not workspace.journal.exists():
            workspace.journal.write_bytes(empty_record())
        budgets = tuple(Budget.parse(metric, limit) for metric, limit in self.budgets.items())
        protocol = Protocol(batch=self.batch, items=self.items)
        objective = OBJECTIVES[self.objective]
        profile = Profile("scripted", protocol=protocol, budgets=budgets, objective=objective, download=self.download)
        example = Example((np.ones((2, 2), dtype=np.float32),))
        tools = Tools(ExportedOnce(), self.device, self.techniques)
        builder = Builder(ModuleModel(Answers().eval()), example, self.task, profile, tools, workspace)
        self.run = Run(
            profile,
            self.task,
            example,
            tools,
            workspace,
            builder,
            Measurer(self.device, profile, self.task, {"": example}, builder.baseline),
            open_record(workspace.journal),
            self.deadline,
        )

    @property
    def record(self) -> Record:
        """The run's record."""
        return self.run.record

    @property
    def search_space(self) -> SearchSpace:
        """A recipe per scripted technique, in the order given."""
        return SearchSpace(tuple(t.recipe for t in self.techniques if isinstance(t, Scripted)), {})

    def search(self, progress: Progress = silent) -> Search:
        """A search over the search space."""
        self.run.progress = progress
        return Search(self.run, self.search_space, Bisection())

    def planned(self) -> Planned:
        """Baseline, facts and search space, as the whole flow finds them."""
        baseline, facts = measure_baseline(self.run), find_facts(self.run)
        return plan_space(self.run, baseline, facts, take_probes(self.run, facts))

    def confirmations(self, search: Search | None = None) -> list[Confirmation]:
        """The confirmations of a run, made as in the whole flow."""
        return confirm_contenders(search or self.search(), self.planned(), [], last=True)

    def result(self) -> Result:
        """The result of a whole run."""
        planned, search = self.planned(), self.search()
        search.search_space = planned.search_space
        return conclude(search, planned, self.confirmations(search))

    def tried(self) -> list[str]:
        """The variants of all trials in the record, in order."""
        return variants(trial.plan for trial in self.record.trials())


def variants(plans: Iterable[Plan]) -> list[str]:
    """The variant that each plan asks for; empty for the unchanged model."""
    return ["".join(str(step.settings["variant"]) for step in plan.finish) for plan in plans]
