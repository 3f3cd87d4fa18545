"""Models whose weights are too many for one file, with the limit lowered to some kilobytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from autocompress import autocompress
from autocompress.core.plan import Setting
from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import ArtifactError
from autocompress.runtimes import OnnxRuntime, external_weights, values_on_demand
from autocompress.runtimes.onnx_file import load_model
from autocompress.techniques.float16 import Float16
from autocompress.techniques.int8_dynamic import Int8Dynamic
from autocompress.techniques.int8_static import Int8Static

FEATURES = np.random.default_rng(0).standard_normal((600, 64)).astype(np.float32)


def chain(width: int, layers: int) -> nn.Module:
    torch.manual_seed(0)
    parts = [part for _ in range(layers) for part in (nn.Linear(width, width, bias=False), nn.ReLU())]
    return nn.Sequential(*parts).eval()


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_weights, "ONE_FILE_BYTES", 20_000)


@pytest.mark.usefixtures("low_limit")
def test_graph_and_weights_are_two_files_of_one_artifact(tmp_path: Path) -> None:
    runtime, module = OnnxRuntime(), chain(64, 3)
    made = runtime.export(module, Example((FEATURES[:2],)), tmp_path / "a" / "model.onnx")
    assert len(made.files) == 2
    assert made.size_bytes == sum(path.stat().st_size for path in made.root.iterdir()) > 3 * 64 * 64 * 4
    assert runtime.contents(made).parameters == 3 * 64 * 64
    copied = made.copy_to(tmp_path / "b" / "other.onnx")
    assert copied.hash == made.hash == runtime.read(copied.path).hash
    again = runtime.export(module, Example((FEATURES[:2],)), tmp_path / "c" / "model.onnx")
    assert again.hash == made.hash
    (copied.root / copied.files[1]).unlink()
    with pytest.raises(ArtifactError, match="which is not beside it"):
        runtime.read(copied.path)


@pytest.mark.usefixtures("low_limit")
def test_weights_in_another_folder_are_refused(tmp_path: Path) -> None:
    made = OnnxRuntime().export(chain(64, 2), Example((FEATURES[:2],)), tmp_path / "model.onnx")
    model = onnx.load(made.path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.data"
    made.path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="which is no file beside it"):
        OnnxRuntime().read(made.path)


class Reader(nn.Module):
    """Words looked up, an LSTM, layers with and without bias, and scores by the same table as the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(300, 32)
        self.recurrent = nn.LSTM(32, 32, batch_first=True)
        self.wide, self.narrow = nn.Linear(32, 96), nn.Linear(96, 32, bias=False)
        self.scores = nn.Linear(32, 300, bias=False)
        self.scores.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(self.words(ids))
        return self.scores(self.narrow(torch.relu(self.wide(states[:, -1]))))


def reader() -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(1)
    return Reader().eval(), np.random.default_rng(1).integers(0, 300, (4, 6))


def with_bias() -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(2)
    shared = nn.Linear(64, 64)
    parts = (nn.Linear(64, 64), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(64, 64, bias=False))
    return nn.Sequential(*parts).eval(), FEATURES[:4]


STATIC = {
    "activation": "uint8", "weight": "int8", "per_channel": True, "calibration": "minmax", "samples": 64,
    "reduce_range": False,
}  # fmt: skip
DYNAMIC = {"weight": "int8", "per_channel": True, "convolutions": False, "reduce_range": False}


TRIED: tuple[tuple[ArtifactTechnique, Mapping[str, Setting]], ...] = (
    (Int8Dynamic(), DYNAMIC),
    (Int8Dynamic(), {**DYNAMIC, "weight": "uint8", "per_channel": False}),
    (Float16(), {"arithmetic": "float32"}),
    (Int8Static(), STATIC),
    (Int8Static(), {**STATIC, "per_channel": False, "calibration": "percentile"}),
)


# a table that is looked up and multiplied in one graph has one scale for each row in static int8, which lookups refuse
@pytest.mark.parametrize(("network", "tried"), [(reader, TRIED[:3]), (with_bias, TRIED)])
def test_weights_in_their_own_file_are_changed_to_the_same_values(
    network: Callable[[], tuple[nn.Module, np.ndarray]],
    tried: Sequence[tuple[ArtifactTechnique, Mapping[str, Setting]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, inputs = network()
    runtime, example = OnnxRuntime(), Example((inputs,))
    calibration = Task(test=(inputs, np.zeros(len(inputs), np.int64))).calibration
    wanted = module(torch.from_numpy(inputs)).detach().numpy()
    made: dict[str, list[bytes]] = {"one": [], "own": []}
    # blocks end within a tensor
    monkeypatch.setattr(values_on_demand, "BLOCK", 1000)
    for name, limit in {"one": external_weights.ONE_FILE_BYTES, "own": 10_000}.items():
        monkeypatch.setattr(external_weights, "ONE_FILE_BYTES", limit)
        artifact = runtime.export(module, example, tmp_path / name / "model.onnx", named=True)
        assert len(artifact.files) == (1 if name == "one" else 2)
        for number, (technique, settings) in enumerate(tried):
            folder = tmp_path / name / str(number)
            folder.mkdir()
            found = technique.apply(artifact, settings, Context(None, example, calibration, folder))
            assert {path.name for path in folder.iterdir()} == set(found.files)
            outputs = runtime.load(found, 1, {}).run({found.inputs[0].name: inputs})[0]
            assert np.abs(outputs - wanted).max() < 0.2 * np.abs(wanted).max()
            model = load_model(found.path)
            for tensor in model.graph.initializer:
                tensor.ClearField("data_location")
            made[name].append(model.SerializeToString(deterministic=True))
        assert {path.name for path in artifact.root.iterdir() if path.is_file()} == set(artifact.files)
    assert made["one"] == made["own"]


@pytest.mark.slow
@pytest.mark.usefixtures("low_limit")
@pytest.mark.parametrize("technique", ["float16", "int8_dynamic", "int8_static"])
def test_a_run_with_weights_beside_the_graph(technique: str, tmp_path: Path) -> None:
    budgets: dict[str, float | str] = {"size_mb": "0.6x" if technique == "float16" else "0.35x", "latency_ms": "20x"}
    if technique == "int8_static":
        budgets["max_accuracy_drop_pp"] = 20
    data = (FEATURES, np.arange(600) % 3) if technique == "int8_static" else None
    inputs = None if data else "1x64:float32"
    keep = {"float16": (), "int8_dynamic": (), "int8_static": ()}[technique]
    result = autocompress(
        chain(64, 6), "local", data, inputs=inputs, budgets=budgets, out=tmp_path, keep_float=keep, max_time="60s"
    )
    assert result.artifact is not None
    assert (tmp_path / "model.onnx").exists()
    assert len(list(tmp_path.glob("weights-*.data"))) >= 1
    assert OnnxRuntime().read(tmp_path / "baseline.onnx").size_bytes > 6 * 64 * 64 * 4
    assert OnnxRuntime().read(tmp_path / "model.onnx").size_bytes < 0.6 * 6 * 64 * 64 * 4
