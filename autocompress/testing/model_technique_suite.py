"""What every technique on the module must do. Inherit `ModelTechniqueSuite` in a class named `Test...`."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.plan import ROUND_STAGES, Effort, Setting, Stage
from autocompress.core.runtime import Example
from autocompress.core.source import whole
from autocompress.core.technique import Context, ModelTechnique
from autocompress.data.module import call
from autocompress.errors import PlanError
from autocompress.pruning.blocks import with_shared_weights
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.networks import labelled, labelled_source, small_model
from autocompress.testing.python_processes import run_python

APPLY_ELSEWHERE = """
import json, sys
from importlib import import_module
from pathlib import Path
from autocompress.testing.model_technique_suite import context_for, fingerprint
from autocompress.testing.networks import small_model

module, name, model, settings, folder = sys.argv[1:]
technique = getattr(import_module(module), name)()
print(fingerprint(technique.apply(small_model(model), json.loads(settings), context_for(model, Path(folder)))))
"""


def context_for(model: str, folder: Path, items: int = 48) -> Context:
    """Random calibration data, and no task."""
    return Context(None, Example(labelled(model, 4)[0]), whole("train", labelled_source(model, items)), folder)


def fingerprint(module: nn.Module) -> str:
    """A hash over names, shapes and values of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


class ModelTechniqueSuite:
    """The contract of `Technique` and `ModelTechnique` for techniques that change the structure.

    `models` are the small models that it must make smaller, with the settings for it.
    """

    technique: ClassVar[type[ModelTechnique]]
    models: ClassVar[Mapping[str, Mapping[str, Setting]]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "model" in metafunc.fixturenames:
            metafunc.parametrize("model", list(self.models))

    def apply(self, model: str, folder: Path, module: nn.Module | None = None, **changed: Setting) -> nn.Module:
        settings = {**self.models[model], **changed}
        return self.technique().apply(module or small_model(model), settings, context_for(model, folder))

    def test_it_tells_what_it_is(self) -> None:
        assert self.technique.name.isidentifier()
        assert self.technique.summary
        assert self.technique.stage in ROUND_STAGES
        assert isinstance(self.technique.stage, Stage)
        assert isinstance(self.technique.effort, Effort)

    def test_choices_are_distinct_and_described(self) -> None:
        names = [choice.name for choice in self.technique.choices]
        assert len(set(names)) == len(names)
        assert all(choice.describes for choice in self.technique.choices)
        assert any(choice.structural for choice in self.technique.choices)

    def test_the_result_is_smaller_and_gives_the_same_shapes(self, model: str, tmp_path: Path) -> None:
        module, example = small_model(model), Example(labelled(model, 4)[0])
        before = {name: tensor.shape for name, tensor in call(module, example).items()}
        result = self.apply(model, tmp_path)
        assert {name: tensor.shape for name, tensor in call(result, example).items()} == before
        assert sum(p.numel() for p in result.parameters()) < sum(p.numel() for p in module.parameters())

    def test_a_module_that_shares_its_weights_leaves_the_original_alone(self, model: str, tmp_path: Path) -> None:
        module = small_model(model)
        before = fingerprint(module)
        result = self.apply(model, tmp_path, with_shared_weights(module))
        assert fingerprint(module) == before
        with torch.no_grad():
            for tensor in (*result.parameters(), *result.buffers()):
                tensor.fill_(7)
        assert fingerprint(module) == before

    def test_all_weights_can_be_trained_afterwards(self, model: str, tmp_path: Path) -> None:
        result = self.apply(model, tmp_path)
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in result.parameters())
        assert all(parameter.grad is None for parameter in result.parameters())

    def test_its_file_computes_what_the_result_computes(self, model: str, tmp_path: Path) -> None:
        result, example = self.apply(model, tmp_path), Example(labelled(model, 4)[0])
        runtime = OnnxRuntime()
        artifact = runtime.export(result, example, tmp_path / "result.onnx")
        (found,) = runtime.load(artifact, 1, {}).run(example.arrays)
        (wanted,) = call(result, example).values()
        assert np.allclose(found, wanted.numpy(), atol=1e-4)

    def test_the_same_settings_give_the_same_weights(self, model: str, tmp_path: Path) -> None:
        assert fingerprint(self.apply(model, tmp_path)) == fingerprint(self.apply(model, tmp_path))

    def test_another_process_gives_the_same_weights(self, tmp_path: Path) -> None:
        model, settings = next(iter(self.models.items()))
        found = run_python(
            APPLY_ELSEWHERE,
            self.technique.__module__,
            self.technique.__name__,
            model,
            json.dumps(dict(settings)),
            tmp_path,
            PYTHONHASHSEED="42",
        )
        assert found == fingerprint(self.apply(model, tmp_path))

    def test_nothing_is_printed(
        self, model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        self.apply(model, tmp_path)
        assert capfd.readouterr() == ("", "")
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    def test_settings_it_does_not_know_are_refused(self, tmp_path: Path) -> None:
        model, settings = next(iter(self.models.items()))
        cases: list[dict[str, Any]] = [{**settings, "colour": "red"}]
        cases += [{key: value for key, value in settings.items() if key != name} for name in settings]
        for case in cases:
            with pytest.raises(PlanError) as caught:
                self.technique().apply(small_model(model), case, context_for(model, tmp_path))
            assert caught.value.where == self.technique.name
