"""Contract suite for techniques on the module.

The suites for structure and for recovery inherit `ModelTechniqueSuite`; so may one for a stage of its own.
"""

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
from autocompress.data.copies import with_shared_weights
from autocompress.data.module import call
from autocompress.errors import PlanError
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.networks import labelled, labelled_source, small_model
from autocompress.testing.python_processes import run_elsewhere

APPLY_ELSEWHERE = """
import json, sys
from importlib import import_module
from pathlib import Path
from autocompress.testing.model_technique_suite import fingerprint

place, suite, module, name, model, settings, folder = sys.argv[1:]
suite, technique = getattr(import_module(place), suite), getattr(import_module(module), name)()
context = suite.context_for(model, Path(folder))
print(fingerprint(technique.apply(suite.module_for(model), json.loads(settings), context)))
"""
# longest description of a step that fits in a line of a report beside others
MOST_CHARACTERS = 100


def fingerprint(module: nn.Module) -> str:
    """A hash over names, shapes and values of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


class ModelTechniqueSuite:
    """Tests of the contract of `Technique` and `ModelTechnique`.

    `models` are the small models that it must work on, with the settings for it; `optional` settings may be left out.
    """

    technique: ClassVar[type[ModelTechnique]]
    models: ClassVar[Mapping[str, Mapping[str, Setting]]]
    optional: ClassVar[frozenset[str]] = frozenset()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "model" in metafunc.fixturenames:
            metafunc.parametrize("model", list(self.models))

    @staticmethod
    def context_for(model: str, folder: Path) -> Context:
        """A context with random calibration data and no task."""
        return Context(None, Example(labelled(model, 4)[0]), whole("train", labelled_source(model, 48)), folder)

    @staticmethod
    def module_for(model: str) -> nn.Module:
        """The module that the technique is applied to, always with the same weights."""
        return small_model(model)

    def apply(self, model: str, folder: Path, module: nn.Module | None = None, **changed: Setting) -> nn.Module:
        settings = {**self.models[model], **changed}
        return self.technique().apply(module or self.module_for(model), settings, self.context_for(model, folder))

    # declared attributes

    def test_it_tells_what_it_is(self) -> None:
        assert self.technique.name.isidentifier()
        assert self.technique.summary
        assert self.technique.stage in ROUND_STAGES
        assert isinstance(self.technique.stage, Stage)
        assert isinstance(self.technique.effort, Effort)
        assert all(self.technique.hardware)

    def test_choices_are_distinct(self) -> None:
        names = [choice.name for choice in self.technique.choices]
        assert names
        assert len(set(names)) == len(names)

    def test_its_steps_are_described_in_a_few_words(self, model: str) -> None:
        settings = self.models[model]
        for steps in ([settings], [settings, settings]):
            words = self.technique().describe(steps)
            assert words == words.strip()
            assert 0 < len(words) <= MOST_CHARACTERS
            assert "\n" not in words
            # a name with underscores is no description for people
            assert self.technique.name not in words

    # results of apply

    def test_the_result_gives_the_same_shapes(self, model: str, tmp_path: Path) -> None:
        example = Example(labelled(model, 4)[0])
        before = {name: tensor.shape for name, tensor in call(self.module_for(model), example).items()}
        result = self.apply(model, tmp_path)
        assert {name: tensor.shape for name, tensor in call(result, example).items()} == before

    def test_a_module_that_shares_its_weights_leaves_the_original_alone(self, model: str, tmp_path: Path) -> None:
        module = self.module_for(model)
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
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
        first, second = (fingerprint(self.apply(model, tmp_path / name)) for name in ("first", "second"))
        assert first == second

    def test_another_process_gives_the_same_weights(self, tmp_path: Path) -> None:
        model, settings = next(iter(self.models.items()))
        # a suite of the installed package, so that the other process finds it
        suite = next(kind for kind in type(self).__mro__ if kind.__module__.startswith("autocompress."))
        found = run_elsewhere(
            APPLY_ELSEWHERE,
            suite.__module__,
            suite.__name__,
            self.technique.__module__,
            self.technique.__name__,
            model,
            json.dumps(dict(settings)),
            tmp_path,
        )
        assert found == fingerprint(self.apply(model, tmp_path))

    def test_a_technique_object_keeps_nothing_from_one_model_to_the_next(self, tmp_path: Path) -> None:
        technique, results = self.technique(), []
        for number, model in enumerate([*self.models, next(iter(self.models))]):
            (tmp_path / str(number)).mkdir()
            context = self.context_for(model, tmp_path / str(number))
            results.append(fingerprint(technique.apply(self.module_for(model), self.models[model], context)))
        assert results[0] == results[-1]
        assert len(set(results)) == len(results) - 1

    def test_nothing_is_printed(
        self, model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        self.apply(model, tmp_path)
        assert capfd.readouterr() == ("", "")
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    # invalid settings

    def test_settings_it_does_not_know_are_refused(self, tmp_path: Path) -> None:
        model, settings = next(iter(self.models.items()))
        cases: list[dict[str, Any]] = [{**settings, "colour": "red"}]
        cases += [
            {key: value for key, value in settings.items() if key != name} for name in settings.keys() - self.optional
        ]
        for case in cases:
            with pytest.raises(PlanError) as caught:
                self.technique().apply(self.module_for(model), case, self.context_for(model, tmp_path))
            assert caught.value.where == self.technique.name
