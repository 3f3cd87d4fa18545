"""What precision.py needs of a network: its quantized files, made once, compared with the float file, and timed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cifar10 import HERE
from networks import cifar10
from torch import nn

from autocompress import Task, load_profile
from autocompress.analysis.precision_variants import Subject
from autocompress.analysis.sensitivity import measure_sensitivity
from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan, Setting, Step
from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.source import Split
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.core.tools import Tools
from autocompress.data.augmentation import crop_flip
from autocompress.data.example_inputs import example_for
from autocompress.data.output_recognition import kinds_of
from autocompress.devices import LocalDevice
from autocompress.evaluation.scorer import Scorer
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.graph_module import GraphModule
from autocompress.statistics.bounds import drop_bounds
from autocompress.system.scratch import scratch
from autocompress.techniques import TECHNIQUES
from autocompress.training.agreement import agreement
from autocompress.training.file_training import FileModule, file_example

FILES = HERE.parent / "runs" / "precision"
PROFILE = load_profile("local").with_budgets([])
# of each bound; an interval of two such bounds holds with 90 %
ALPHA = 0.05
# seconds of timing for each file, and for each network at least
TIMING_SECONDS, LEAST_SECONDS = 4.0, 45.0
SENSITIVITY_SECONDS = 240.0
Row = dict[str, Any]
Finish = tuple[Step, ...]


def images() -> Task:
    """CIFAR-10 with crops and flips in training; a third of the test images chooses, the rest reports."""
    data = cifar10()
    return Task(test=data.test, train=data.train, augment=crop_flip, name="cifar10")


def step(name: str, **settings: Setting) -> Step:
    """A step with these settings, all others at their first option."""
    technique = next(one for one in TECHNIQUES if one.name == name)
    return Step(name, technique.stage, {**first_options(technique.choices), **settings})


@dataclass(eq=False)
class Bench:
    """One network's files, kept in `folder` by the hash of their plan."""

    module: nn.Module
    task: Task
    folder: Path
    tools: Tools = field(
        default_factory=lambda: Tools(OnnxRuntime(), LocalDevice(OnnxRuntime()), tuple(one() for one in TECHNIQUES))
    )

    @cached_property
    def example(self) -> Example:
        return example_for(self.module, self.task, None, ())

    @cached_property
    def start(self) -> Artifact:
        """The float file with named nodes, where techniques begin."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.tools.runtime.export(self.module, self.example, self.folder / "named.onnx", named=True)

    @cached_property
    def baseline(self) -> Artifact:
        """The float file as it ships."""
        return self.tools.runtime.without_names(self.start, self.folder / "float.onnx")

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(self.tools.device, PROFILE, self.task)

    @property
    def ranges(self) -> Path:
        """Where ranges and the teacher's answers are kept between plans."""
        shared = self.folder / "shared"
        shared.mkdir(parents=True, exist_ok=True)
        return shared

    def made(self, finish: Finish) -> tuple[Artifact, dict[str, float]]:
        """The file of a finish, and the seconds that it took when it was made: `seconds`, and of the CPU `cpu_seconds`.

        Raises:
            TechniqueError: when a step cannot be done.
        """
        if not finish:
            return self.baseline, {}
        path = self.folder / f"{Plan((), finish).hash}.onnx"
        clock = path.with_suffix(".seconds.json")
        if clock.exists():
            return self.tools.runtime.read(path), dict(json.loads(clock.read_text()))
        with scratch("precision") as folder:
            context = Context(self.task, self.example, self.task.calibration, folder, shared=self.ranges)
            start = self.start
            begun, worked = time.monotonic(), time.process_time()
            made = self.tools.finished(start, finish, context)
            seconds = {"seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - worked}
            made.copy_to(path)
        clock.write_text(json.dumps(seconds))
        return self.tools.runtime.read(path), seconds

    def judged(self, artifact: Artifact, split: Split) -> Row:
        """Right answers of a file on a split, and what the float file's lose with it, with bounds of 95 % each."""
        scores = self.scorer.readings(artifact, split)["score"].samples
        return {
            "accuracy": 100 * float(scores.mean()),
            "items": len(split),
            **self.paired(self.baseline, artifact, split),
        }

    def paired(self, first: Artifact, second: Artifact, split: Split) -> Row:
        """The drop of accuracy from one file to another on the same items, with bounds of 95 % each."""
        before, after = (self.scorer.readings(one, split)["score"].samples for one in (first, second))
        lost, gained = int((before > after).sum()), int((after > before).sum())
        low, high = drop_bounds(lost, gained, len(split), ALPHA)
        return {"drop_pp": 100 * (lost - gained) / len(split), "drop_low_pp": 100 * low, "drop_high_pp": 100 * high}

    def agreement(self, artifact: Artifact, split: Split) -> Row:
        """How far a file in the runtime and the fake-quantized module of its graph agree."""
        graph = GraphModule(load_model(artifact.path)).eval().requires_grad_(False)
        module = FileModule(graph, self.example)
        kinds = kinds_of(file_example(self.example, module), module, self.task)
        found = agreement(graph, artifact, split, self.task, kinds)
        return {"items": found.items, "same": found.same, "apart_pp": found.apart, "holds": found.holds}

    def sensitivity(self, technique: Step) -> Sensitivity:
        """Which layers lose accuracy in a quantization, kept in the folder."""
        known = self.folder / f"{Plan((), (technique,)).hash}.sensitivity.json"
        if known.exists():
            return Sensitivity.from_json(json.loads(known.read_text()))
        quantizer = self.tools.technique(technique.technique)
        assert isinstance(quantizer, ArtifactTechnique)
        assert self.task.calibration is not None
        subject = Subject(quantizer, technique.settings, self.start, self.example, self.task.calibration, self.ranges)
        begun = time.monotonic()
        found = measure_sensitivity(
            subject, self.tools, PROFILE, SENSITIVITY_SECONDS, lambda line: print(line, flush=True)
        )
        print(f"   sensitivity took {time.monotonic() - begun:.0f} s", flush=True)
        known.write_text(json.dumps(found.to_json()))
        return found

    def latencies(self, files: Mapping[str, Artifact]) -> dict[str, Measurement]:
        """Blocks of calls that alternate between the float file and these files."""
        artifacts = [self.baseline, *files.values()]
        seconds = max(LEAST_SECONDS, TIMING_SECONDS * len(artifacts))
        measured = self.tools.device.measure(artifacts, PROFILE, self.example, seconds)
        return dict(zip(("float", *files), measured, strict=True))
