"""Axes beside the batch stay free in the file where module and file agree at another size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.dynamic_axes import DynamicAxes
from autocompress.core.runtime import Example
from autocompress.data.module import call
from autocompress.errors import ExportError, UsageError
from autocompress.runtimes import OnnxRuntime


class Reader(nn.Module):
    """Embeddings, one attention layer and places for up to 32 tokens, as encoders of sentences are built."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(32, 16)
        self.query, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        weights = self.query(hidden) @ hidden.transpose(1, 2) + (attention_mask[:, None, :] - 1) * 1e4
        return {"logits": self.head(weights.softmax(-1) @ hidden), "pooled": hidden.mean(1)}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.GRU(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, state = self.inner(signal)
        return self.head(outputs[:, -1]), state


class Applying(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def tokens(length: int = 8) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 50, (2, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def export(module: nn.Module, inputs: Any, folder: Path, dynamic: Any = None) -> Artifact:
    example = Example(inputs if isinstance(inputs, dict) else (inputs,), dynamic=DynamicAxes.parse(dynamic))
    return OnnxRuntime().export(module.eval(), example, folder / "model.onnx")


def require_same(module: nn.Module, artifact: Artifact, example: Example) -> None:
    found = OnnxRuntime().load(artifact, 1, {}).run(example.arrays)
    for wanted, got in zip(call(module, example).values(), found, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-3, atol=1e-4)


def axes_of(artifact: Artifact) -> list[tuple[str, ...]]:
    return [tuple(spec.axis(place) for place in spec.free_axes) for spec in artifact.inputs]


def test_axes_that_are_one_in_meaning_share_a_name_and_take_any_length(tmp_path: Path) -> None:
    reader = Reader()
    artifact = export(reader, tokens(), tmp_path)
    assert axes_of(artifact) == [("sequence",), ("sequence",)]
    assert [spec.axes[1] for spec in artifact.outputs] == ["sequence", ""]
    for length, batch in ((1, 3), (5, 1), (32, 2)):
        require_same(reader, artifact, Example(tokens(length)).with_batch(batch))


@pytest.mark.slow
def test_an_example_of_the_longest_length_leaves_shorter_ones_free(tmp_path: Path) -> None:
    assert axes_of(export(Reader(), tokens(32), tmp_path)) == [("sequence",), ("sequence",)]


def test_the_time_of_a_recurrent_network_is_free_and_its_features_are_not(tmp_path: Path) -> None:
    module = Recurrent()
    # as many steps as features, so that sizes alone do not tell them apart
    artifact = export(module, floats(2, 8, 8), tmp_path)
    assert artifact.inputs[0].shape == (None, None, 8)
    require_same(module, artifact, Example((floats(3, 21, 8),)))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x * float(int(x.shape[1])), id="a size turned into a number"),
        pytest.param(lambda x: x[:, 1:] if x.shape[1] % 2 else x * 2, id="a branch on the size"),
        pytest.param(lambda x: x @ torch.ones(16, 3), id="a matrix of this size"),
        pytest.param(lambda x: x[:, ::8] @ torch.ones(2, 3), id="a matrix behind a stride"),
    ],
)
def test_an_axis_at_which_file_and_module_differ_is_fixed(function: Any, tmp_path: Path) -> None:
    assert export(Applying(function), floats(2, 16), tmp_path).inputs[0].shape == (None, 16)


def test_a_declared_axis_of_which_only_close_sizes_are_taken_cannot_be_free(tmp_path: Path) -> None:
    module = Applying(lambda x: x[:, ::8] @ torch.ones(2, 3))
    with pytest.raises(ExportError, match=r"axis 1 of input 'input' cannot be free: with 8 in place of 16 the model"):
        export(module, floats(2, 16), tmp_path, "input:1")


def test_a_second_size_is_found_for_a_module_that_takes_multiples_only(tmp_path: Path) -> None:
    module = Applying(lambda x: x.reshape(x.shape[0], x.shape[1] // 4, 4).mean(2))
    artifact = export(module, floats(2, 8), tmp_path)
    assert axes_of(artifact) == [("sequence",)]
    require_same(module, artifact, Example((floats(3, 20),)))


def test_images_are_free_only_where_it_is_asked_for(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    assert export(module, floats(2, 3, 8, 8), tmp_path).inputs[0].shape == (None, 3, 8, 8)
    artifact = export(module, floats(2, 3, 8, 8), tmp_path, ["input:2", "input:3=columns"])
    assert axes_of(artifact) == [("height", "columns")]
    require_same(module, artifact, Example((floats(1, 3, 12, 9),)))
    varying = DynamicAxes(varying={("input", 2): (8, 12)})
    example = Example((floats(2, 3, 8, 8),), dynamic=varying)
    assert axes_of(OnnxRuntime().export(module, example, tmp_path / "varying.onnx")) == [("height",)]


def test_nothing_but_the_batch_is_free_where_none_is_declared(tmp_path: Path) -> None:
    assert axes_of(export(Reader(), tokens(), tmp_path, ())) == [(), ()]


def test_a_declared_axis_of_size_one_is_free(tmp_path: Path) -> None:
    module = Applying(lambda x: x.cumsum(1))
    artifact = export(module, floats(2, 1, 8), tmp_path, {"input": {1: "steps"}})
    assert axes_of(artifact) == [("steps",)]
    require_same(module, artifact, Example((floats(1, 4, 8),)))


@pytest.mark.parametrize(
    ("module", "inputs", "dynamic", "said"),
    [
        (nn.Linear(8, 2), floats(2, 8), "input:1", r"axis 1 of input 'input' cannot be free: with 9 in place of 8 the"),
        (Reader(), tokens(), "input_ids:1", r"It changes together with attention_mask:1: declare that too"),
        (Reader(), tokens(), {"input_ids": {1: "a"}, "attention_mask": {1: "b"}}, r"are one to the model.*a, b"),
        (
            Applying(lambda x: x * float(int(x.shape[1]))),
            floats(2, 8),
            "input:1",
            r"torch.export makes its size a constant \(8\)|input:1 free",
        ),
    ],
)
def test_a_declared_axis_that_cannot_be_free_is_an_error_that_says_why(
    module: nn.Module, inputs: Any, dynamic: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=said) as caught:
        export(module, inputs, tmp_path, dynamic)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("dynamic", "said"),
    [
        ("input_ids", "names no axes"),
        ("input_ids:x", "names no axes"),
        ({"input_ids": 1}, "names no axes"),
        ({"input_ids": {"1": "a"}}, "names no axes"),
        ({"input_ids": {1: "a b"}}, "is no name of an axis"),
        ({"input_ids": {1: "batch"}}, "is no name of an axis"),
        (["none", "input_ids:1"], "none alone"),
        (7, "names no axes"),
        ("input_id:1", "Did you mean 'input_ids'"),
        ("input_ids:0=batches", "has no axis 0"),
        ("input_ids:2", "has no axis 2"),
    ],
)
def test_what_is_no_axis_is_refused(dynamic: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        DynamicAxes.parse(dynamic).require_in(tokens())


def test_forms_of_a_declaration_say_the_same() -> None:
    wanted = {("a", 1): "sequence", ("b", 2): ""}
    for given in ({"a": {1: "sequence"}, "b": [2]}, ["a:1=sequence", "b:2"]):
        assert DynamicAxes.parse(given).declared == wanted
    assert DynamicAxes.parse("none").declared == DynamicAxes.parse(()).declared == {}
    assert DynamicAxes.parse(None).declared is None
