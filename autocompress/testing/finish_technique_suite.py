"""What is tested of every technique on the artifact, of whatever stage.

The suites for techniques that save something and for those that keep accuracy inherit `FinishTechniqueSuite`.
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

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Family, Kind, LayerFact
from autocompress.core.plan import FINISH_STAGES, Effort, Setting, Stage
from autocompress.core.runtime import Example, align
from autocompress.core.search_space import SettingSpace, first_options
from autocompress.core.source import Array, whole
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import PlanError
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import Int8Static
from autocompress.testing.model_technique_suite import MOST_CHARACTERS
from autocompress.testing.networks import Exported, Exports, labelled, labelled_source
from autocompress.testing.python_processes import run_elsewhere

APPLY_ELSEWHERE = """
import json, sys
from importlib import import_module
from pathlib import Path
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.finish_technique_suite import context_for

module, name, model, path, unquantized, settings, folder = sys.argv[1:]
runtime = OnnxRuntime()
context = context_for(model, Path(folder), runtime.read(Path(unquantized)))
technique = getattr(import_module(module), name)()
print(technique.apply(runtime.read(Path(path)), json.loads(settings), context).hash)
"""


def facts_with(*kinds: Kind) -> Facts:
    """Facts of a model with one layer of each kind, all with equal work."""
    layers = tuple(
        LayerFact(f"layer{i}", kind.title(), kind, 1000, 50_000, (16,), (16,), {}) for i, kind in enumerate(kinds)
    )
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    work = 50_000 * len(layers)
    return Facts(Family.MIXED, "handmade", 1000 * len(layers), 1000 * len(layers), work, 0, shares, layers)


def relative_error(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def context_for(model: str, folder: Path, unquantized: Artifact | None = None, items: int = 48) -> Context:
    """A context with random training and validation items, and a folder of its own."""
    folder.mkdir(exist_ok=True)
    train = labelled_source(model, items)
    task, example = Task(train=train, val=labelled_source(model, items, seed=1)), Example(labelled(model, 4)[0])
    return Context(task, example, whole("train", train), folder, unquantized=unquantized)


class FinishTechniqueSuite:
    """Tests of what `Technique` and `ArtifactTechnique` ask of every stage.

    `models` are the small models that it must work on, each with settings that differ from the first options.
    """

    technique: ClassVar[type[ArtifactTechnique]]
    models: ClassVar[Mapping[str, Mapping[str, Setting]]]

    @classmethod
    def settings(cls, **changed: Setting) -> dict[str, Setting]:
        """The first option of every setting, except those given."""
        return {**first_options(cls.technique.choices), **changed}

    @classmethod
    def start(cls, unquantized: Artifact, model: str, folder: Path) -> Artifact:
        """The file that it is applied to: quantized already where its stage is TUNING."""
        if cls.technique.stage is not Stage.TUNING:
            return unquantized
        before = folder.with_name(f"{folder.name}-start")
        return Int8Static().apply(
            unquantized, first_options(Int8Static.choices), cls.context(model, before, unquantized)
        )

    @classmethod
    def context(cls, model: str, folder: Path, unquantized: Artifact | None = None, items: int = 48) -> Context:
        """See `context_for`."""
        return context_for(model, folder, unquantized, items)

    def apply(
        self, exported: Exported, model: str, folder: Path, settings: Mapping[str, Setting] | None = None
    ) -> Artifact:
        """What it makes of a model's float file, or of what was quantized from it."""
        chosen = self.settings(**self.models.get(model, {})) if settings is None else settings
        start = self.start(exported.artifact, model, folder)
        return self.technique().apply(start, chosen, self.context(model, folder, exported.artifact))

    @staticmethod
    def answers(exported: Exported, made: Artifact, model: str) -> tuple[Array, Array]:
        """Outputs of the float file and of another one on items that nothing was calibrated on."""
        inputs, _ = whole("test", labelled_source(model, 64, seed=1)).source.read(range(64))
        feed = align(inputs, exported.artifact.inputs)
        (wanted,), (found,) = (OnnxRuntime().load(one, 1, {}).run(feed) for one in (exported.artifact, made))
        return wanted, found

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "model" in metafunc.fixturenames:
            metafunc.parametrize("model", list(self.models))
        if "probed_settings" in metafunc.fixturenames:
            metafunc.parametrize("probed_settings", self.technique.probed, ids=str)

    @pytest.fixture
    def exported(self, exports: Exports, model: str) -> Exported:
        return exports(OnnxRuntime(), model)

    # declared attributes

    def test_it_tells_what_it_is(self) -> None:
        technique = self.technique
        assert technique.name.isidentifier()
        assert technique.summary
        assert technique.stage in FINISH_STAGES
        assert isinstance(technique.stage, Stage)
        assert isinstance(technique.effort, Effort)
        assert technique.formats
        assert all(technique.hardware)

    def test_its_steps_are_described_in_a_few_words(self) -> None:
        for settings in SettingSpace(self.technique.choices).grid():
            words = self.technique().describe([settings])
            assert words == words.strip()
            assert 0 < len(words) <= MOST_CHARACTERS
            assert "\n" not in words
            # a name with underscores is no description for people
            assert "_" not in words

    def test_choices_are_distinct_and_described(self) -> None:
        names = [choice.name for choice in self.technique.choices]
        assert len(set(names)) == len(names)
        for choice in self.technique.choices:
            assert choice.options or choice.optional
            assert len(set(map(repr, choice.options))) == len(choice.options)
            assert choice.describes

    # results of apply

    def test_inputs_outputs_and_free_batch_are_kept(self, exported: Exported, model: str, tmp_path: Path) -> None:
        result = self.apply(exported, model, tmp_path / "made")
        assert result.inputs == exported.artifact.inputs
        assert result.outputs == exported.artifact.outputs
        assert OnnxRuntime().read(result.path) == result

    def test_the_same_settings_give_the_same_bytes(self, exported: Exported, model: str, tmp_path: Path) -> None:
        first = self.apply(exported, model, tmp_path / "first")
        second = self.apply(exported, model, tmp_path / "second")
        assert first.path.read_bytes() == second.path.read_bytes()

    def test_another_process_gives_the_same_bytes(self, exports: Exports, tmp_path: Path) -> None:
        model, extra = next(iter(self.models.items()))
        exported, technique = exports(OnnxRuntime(), model), self.technique
        here = self.apply(exported, model, tmp_path / "here")
        start = self.start(exported.artifact, model, tmp_path / "there")
        (tmp_path / "there").mkdir()
        found = run_elsewhere(
            APPLY_ELSEWHERE,
            technique.__module__,
            technique.__name__,
            model,
            start.path,
            exported.artifact.path,
            json.dumps(self.settings(**extra)),
            tmp_path / "there",
        )
        assert found == here.hash

    def test_a_technique_object_keeps_nothing_from_one_model_to_the_next(
        self, exports: Exports, tmp_path: Path
    ) -> None:
        technique = self.technique()
        results = []
        for number, model in enumerate([*self.models, next(iter(self.models))]):
            settings, folder = self.settings(**self.models[model]), tmp_path / str(number)
            unquantized = exports(OnnxRuntime(), model).artifact
            start = self.start(unquantized, model, folder)
            results.append(technique.apply(start, settings, self.context(model, folder, unquantized)).hash)
        assert results[0] == results[-1]
        assert len(set(results)) == len(results) - 1

    def test_the_artifact_passed_in_is_left_as_it_is(self, exported: Exported, model: str, tmp_path: Path) -> None:
        start = self.start(exported.artifact, model, tmp_path / "made")
        before = hashlib.sha256(start.path.read_bytes()).hexdigest()
        chosen = self.settings(**self.models[model])
        context = self.context(model, tmp_path / "made", exported.artifact)
        result = self.technique().apply(start, chosen, context)
        assert hashlib.sha256(start.path.read_bytes()).hexdigest() == before
        assert [path.name for path in start.root.iterdir()] == [start.entry]
        assert result.path != start.path

    def test_nothing_but_the_result_is_left_in_the_folder(self, exported: Exported, model: str, tmp_path: Path) -> None:
        result = self.apply(exported, model, tmp_path / "made")
        assert [path.name for path in (tmp_path / "made").iterdir()] == [result.entry]

    def test_nothing_is_printed(
        self,
        exported: Exported,
        model: str,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.apply(exported, model, tmp_path / "made")
        assert capfd.readouterr() == ("", "")
        # Python prints log messages when the program has installed no handler
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

    # invalid settings

    def refused_settings(self) -> list[tuple[str, dict[str, Any]]]:
        choice = next(choice for choice in self.technique.choices if not choice.optional)
        lacking = self.settings()
        del lacking[choice.name]
        cases: list[tuple[str, dict[str, Any]]] = [
            ("has no setting 'colour'", {**self.settings(), "colour": "red"}),
            (f"{choice.name} cannot be 'no such thing'", {**self.settings(), choice.name: "no such thing"}),
            (f"lacks the setting '{choice.name}'", lacking),
        ]
        # 1 == True in Python, but a plan with the one is not a plan with the other
        cases += [
            (f"{other.name} cannot be 1", {**self.settings(), other.name: 1})
            for other in self.technique.choices
            if True in other.options and isinstance(other.options[0], bool)
        ]
        return cases

    def test_settings_it_does_not_know_are_refused(self, exports: Exports, tmp_path: Path) -> None:
        model = next(iter(self.models))
        exported = exports(OnnxRuntime(), model)
        for message, settings in self.refused_settings():
            with pytest.raises(PlanError, match=message) as caught:
                self.apply(exported, model, tmp_path / "made", settings)
            assert caught.value.where == self.technique.name
        assert not list((tmp_path / "made").iterdir())
