"""Plans that take ranges where there are no data."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.errors import TechniqueError
from autocompress.evaluation.builder import Builder
from autocompress.models.module_model import ModuleModel
from autocompress.runtimes import OnnxRuntime
from autocompress.system.workspace import Workspace
from autocompress.techniques import Int8Static
from autocompress.testing.fakes import FakeDevice
from autocompress.testing.networks import labelled, small_model
from autocompress.training import kept_inputs

FIRST = {choice.name: choice.options[0] for choice in Int8Static.choices}
INT8 = Plan(finish=(Step("int8_static", Stage.PRECISION, FIRST),))


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_inputs, "items_and_steps", lambda macs: (16, 10))


def builder_in(folder: Path, model: str = "cnn", task: Task | None = None) -> Builder:
    folder.mkdir(exist_ok=True)
    tools = Tools(OnnxRuntime(), FakeDevice(), [Int8Static()])
    example = Example(labelled(model, 1)[0])
    return Builder(ModuleModel(small_model(model)), example, task, Profile("any"), tools, Workspace(folder))


def test_the_same_model_gives_the_same_bytes_in_another_folder_and_when_it_goes_on(tmp_path: Path) -> None:
    first = builder_in(tmp_path / "a").build(INT8)
    told: list[str] = []
    resumed = builder_in(tmp_path / "a")
    resumed.tell = told.append
    assert resumed.build(INT8).hash == first.hash
    assert told == []
    again = builder_in(tmp_path / "b")
    again.tell = told.append
    assert again.build(INT8).hash == first.hash
    assert told == ["making 16 inputs from batch-norm statistics, in 10 steps"]


def test_where_there_are_data_no_inputs_are_made(tmp_path: Path) -> None:
    task = Task(train=labelled("cnn", 32))
    made = builder_in(tmp_path / "with", task=task).build(INT8)
    assert not (tmp_path / "with" / "checkpoints" / "synthetic").exists()
    assert builder_in(tmp_path / "without").build(INT8).hash != made.hash


def test_a_model_without_batch_norm_is_not_calibrated_on_anything(tmp_path: Path) -> None:
    builder = builder_in(tmp_path, "mlp")
    assert "no layer keeps statistics" in builder.no_inputs
    with pytest.raises(TechniqueError, match="needs calibration data"):
        builder.build(INT8)
