"""Which line of a user's code an error is put down to."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.data.model_spec import load_model
from autocompress.data.module import call
from autocompress.data.user_line import user_line
from autocompress.errors import ExportError, ModelError
from autocompress.runtimes.onnx_export import export_graph

NETS = """
import torch
from torch import nn

class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent = nn.LSTM(4, 6, batch_first=True)

    def forward(self, values, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
        return self.recurrent(packed)[1][0][-1]

class Branching(nn.Module):
    def forward(self, values):
        if values.sum() > 0:
            return values * 2
        return values

class Untranslated(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), Bessel())

    def forward(self, values):
        return self.layers(values)

class Bessel(nn.Module):
    def forward(self, values):
        return torch.special.bessel_j0(values)

class Wrong(nn.Module):
    def forward(self, values):
        return values @ torch.ones(3, 3)
"""
VALUES = np.ones((2, 4), np.float32)
SEQUENCES = (np.ones((2, 5, 4), np.float32), np.array([3, 5]))


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("user") / "nets.py"
    path.write_text(NETS)
    spec = importlib.util.spec_from_file_location("users_nets", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "inputs", "layer", "code", "advice"),
    [
        ("Packed", SEQUENCES, "layer 'recurrent' (LSTM)", "return self.recurrent(packed)[1][0][-1]", "padded batch"),
        ("Branching", (VALUES,), "model (Branching)", "if values.sum() > 0", "use torch.where"),
        ("Untranslated", (VALUES,), "layer 'layers.1' (Bessel)", "return torch.special.bessel_j0(values)", "Replace"),
    ],
)
def test_an_export_that_fails_names_the_users_line(
    nets: ModuleType, name: str, inputs: tuple[np.ndarray, ...], layer: str, code: str, advice: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="cannot be exported to ONNX") as caught:
        export_graph(getattr(nets, name)().eval(), Example(inputs), ("output",), tmp_path)
    number = next(number for number, line in enumerate(NETS.splitlines(), 1) if line.strip().rstrip(":") == code)
    assert layer in caught.value.where
    assert caught.value.where.endswith(f"{nets.__file__}, line {number} ({code})")
    assert advice in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_call_that_fails_names_the_users_line(nets: ModuleType) -> None:
    with pytest.raises(ModelError, match="fails on the inputs") as caught:
        call(nets.Wrong(), Example((VALUES,)))
    assert caught.value.where.endswith("(return values @ torch.ones(3, 3))")


def test_models_of_installed_packages_are_named_and_torch_is_not() -> None:
    with pytest.raises(ModelError) as caught:
        call(load_model("torchvision:resnet18"), Example((VALUES,)))
    assert "torchvision/models/resnet.py, line" in caught.value.where
    with pytest.raises(ModelError) as caught:
        call(nn.Linear(3, 3), Example((VALUES,)))
    assert caught.value.where == "model"


def test_an_error_without_a_traceback_has_no_line() -> None:
    assert user_line(ValueError("made, not raised")) == ""
    assert user_line(torch.OutOfMemoryError("the same")) == ""
