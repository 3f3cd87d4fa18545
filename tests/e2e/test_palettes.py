"""A file that has to be far smaller than int8 makes it: few values in each layer, trained where they lose accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress import autocompress
from autocompress.api import apply_plan
from autocompress.core.profile import Profile, Protocol
from autocompress.data.data_spec import load_data
from autocompress.run.result import Result
from autocompress.runtimes.onnx_file import load_model
from autocompress.runtimes.palette_reading import stored_palettes

BRIEF = Profile("brief", protocol=Protocol(precision=0.1, max_seconds=0.5))
SMALL: dict[str, float | str] = {"size_mb": "0.12x", "max_accuracy_drop_pp": 5.0}


class Digits(nn.Module):
    """A CNN for digits with enough weights for a table of values to pay."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 96, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(96, 96, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(96, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model, task = Digits(), load_data("digits")
    (inputs,), labels = task.train.read(range(len(task.train)))
    images, wanted = torch.tensor(inputs), torch.tensor(np.asarray(labels))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(150):
        items = torch.arange(step * 64, step * 64 + 64) % len(images)
        optimizer.zero_grad()
        functional.cross_entropy(model(images[items]), wanted[items]).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def packed(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return autocompress(network, BRIEF, load_data("digits"), budgets=SMALL, out=tmp_path_factory.mktemp("packed"))


def test_a_size_below_that_of_int8_is_met_without_training(packed: Result) -> None:
    assert packed.met, str(packed)
    assert packed.plan.finish[-1].technique == "palettes"
    assert "values a layer" in str(packed)


def test_the_stages_tell_what_each_step_left_of_the_file(packed: Result) -> None:
    sizes = [stage.size_ratio for stage in packed.stages]
    assert sizes[0] == 1.0
    assert sizes == sorted(sizes, reverse=True)
    # the quantized file was a trial of its own, with its own latency
    assert len(sizes) == 2 + (len(packed.plan.finish) - 1)
    assert packed.stages[-1].size_mb == packed.artifact.size_bytes / 1e6


def test_the_file_holds_palettes_and_runs_as_it_is(packed: Result) -> None:
    found = stored_palettes(load_model(packed.artifact.path))
    entries = packed.plan.finish[-1].settings["entries"]
    assert found
    assert all(one.palette.entries.shape[1] <= 4 * int(entries) for one in found)
    session = onnxruntime.InferenceSession(str(packed.artifact.path), providers=["CPUExecutionProvider"])
    (inputs,), _ = load_data("digits").test.read(range(4))
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
    assert outputs.shape == (4, 10)


def test_the_plan_gives_the_same_bytes_again(packed: Result, network: nn.Module, tmp_path: Path) -> None:
    again = apply_plan(packed.plan, network, BRIEF, load_data("digits"), out=tmp_path)
    assert again.artifact.path.read_bytes() == packed.artifact.path.read_bytes()


def test_sizes_are_predicted_before_anything_is_built(packed: Result) -> None:
    told = json.loads((packed.folder / "result.json").read_text(encoding="utf-8"))
    recipes = {one["name"]: one["predicted_size"] for one in told["search_space"]["recipes"]}
    name = next(name for name in recipes if name.endswith("+ palettes"))
    first = next(
        trial
        for trial in packed.history
        if [step.technique for step in trial.plan.finish] == name.split(" + ") and trial.plan.rounds == ()
    )
    share = first.measurement.readings["size_mb"].value / packed.stages[0].size_mb
    assert abs(recipes[name] - share) < 0.03 * share
