"""Plans whose finish trains the quantized file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Effort, Plan, Setting, Stage, Step
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import first_options
from autocompress.core.task import Task
from autocompress.core.technique import Context, Technique
from autocompress.core.tools import Tools
from autocompress.errors import TechniqueError
from autocompress.evaluation.builder import Builder
from autocompress.models.module_model import ModuleModel
from autocompress.runtimes import OnnxRuntime
from autocompress.system.workspace import Workspace
from autocompress.techniques import ChannelPruning, Int8Static, QuantizationAwareTraining
from autocompress.testing.fakes import FakeDevice
from autocompress.testing.networks import labelled, small_model

INT8 = Step("int8_static", Stage.PRECISION, first_options(Int8Static.choices))
LONG: dict[str, Setting] = {**first_options(QuantizationAwareTraining.choices), "steps": 300, "batch": 16}
NARROW: dict[str, Setting] = {
    "groups": "", "ratio": 0.5, "scope": "uniform", "importance": "group_magnitude", "multiple": 8,
}  # fmt: skip
TRAINED = Plan(finish=(INT8, Step("quantization_aware_training", Stage.TUNING, LONG)))


class Watched(QuantizationAwareTraining):
    """Keeps the contexts that it was applied in, and trains hardly anything."""

    contexts: ClassVar[list[Context]] = []

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        self.contexts.append(context)
        return super().apply(artifact, settings, context)


def builder_in(folder: Path, tuning: Technique | None = None) -> Builder:
    folder.mkdir(exist_ok=True)
    tuning = tuning or QuantizationAwareTraining()
    tools = Tools(OnnxRuntime(), FakeDevice(), [ChannelPruning(), Int8Static(), tuning])
    task = Task(train=labelled("cnn", 64, seed=1), val=labelled("cnn", 32, seed=2))
    example = Example(labelled("cnn", 1)[0])
    return Builder(ModuleModel(small_model("cnn")), example, task, Profile("any"), tools, Workspace(folder))


def trains_no_more(builder: Builder) -> None:
    def trained(step: int, steps: int, left: float) -> None:
        pytest.fail(f"trained again, step {step} of {steps}")

    builder.on_step = trained


def test_training_of_a_file_ends_in_time_and_is_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    builder, told = builder_in(tmp_path / "first"), list[str]()
    builder.tell = told.append
    found = builder.trained(TRAINED, lambda: 1.0)
    taken = found.finish[-1].steps_taken
    assert 0 < taken < 300, told
    assert found != TRAINED
    assert found.planned == TRAINED
    assert any(f"training ends after {taken}" in sentence for sentence in told)
    made = builder.find(found)
    assert made is not None
    # the file is there, so nothing is trained a second time, not even by another process
    resumed = builder_in(tmp_path / "first", Watched())
    Watched.contexts.clear()
    assert resumed.trained(TRAINED, lambda: 1.0) == found
    assert resumed.build(found).hash == made.hash
    assert Watched.contexts == []
    # elsewhere the plan as it was trained gives the same bytes, however long that takes
    assert builder_in(tmp_path / "second").build(found).hash == made.hash


def test_what_had_time_is_the_plan_that_was_asked_for(tmp_path: Path) -> None:
    short = Plan(finish=(INT8, Step("quantization_aware_training", Stage.TUNING, {**LONG, "steps": 30})))
    builder = builder_in(tmp_path)
    assert builder.trained(short, lambda: None) == short
    assert builder.find(short) is not None
    Watched.contexts.clear()
    builder_in(tmp_path, Watched()).trained(short, lambda: 0.0)
    assert Watched.contexts == []


def test_a_plan_that_trains_nothing_is_left_as_it_is(tmp_path: Path) -> None:
    plain = Plan(finish=(INT8,))
    builder = builder_in(tmp_path)
    assert builder.trained(plain, lambda: 0.0) == plain
    assert builder.find(plain) is None


def test_a_changed_network_is_taught_by_the_unchanged_one(tmp_path: Path) -> None:
    narrow = Step("channel_pruning", Stage.STRUCTURE, NARROW)
    step = Step("quantization_aware_training", Stage.TUNING, {**LONG, "steps": 30})
    builder = builder_in(tmp_path, Watched())
    Watched.contexts.clear()
    builder.build(Plan(((narrow,),), (INT8, step)))
    (context,) = Watched.contexts
    assert context.original is not None
    assert context.original.hash == builder.start.hash
    assert context.unquantized is not None
    assert context.unquantized.hash == builder.exported(((narrow,),)).hash != builder.start.hash
    assert Watched.effort is Effort.TRAINING


def test_a_plan_is_not_replayed_as_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Adapts(QuantizationAwareTraining):
        def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
            context.adapted({**settings, "micro_batches": "0:8"})
            return super().apply(artifact, settings, replace(context, adapted=lambda settings: None))

    with pytest.raises(TechniqueError, match="does not fit into memory here as the plan has it"):
        builder_in(tmp_path, Adapts()).build(TRAINED)
