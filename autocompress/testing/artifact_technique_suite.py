"""Contract suite for techniques on the artifact.

Inherit `ArtifactTechniqueSuite` in a class named `Test...` and fill it in.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.facts import Facts, Family, Kind, LayerFact
from autocompress.core.objective import OBJECTIVES
from autocompress.core.plan import FINISH_STAGES, Effort, Setting, Stage
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import DeviceProfile, Profile
from autocompress.core.runtime import align
from autocompress.core.search_space import SettingSpace, check_settings, first_options
from autocompress.core.source import Array, whole
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import PlanError, TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.model_technique_suite import MOST_CHARACTERS
from autocompress.testing.networks import Exported, Exports, labelled_source
from autocompress.testing.python_processes import run_python

APPLY_ELSEWHERE = """
import json, sys
from importlib import import_module
from pathlib import Path
from autocompress.testing.networks import labelled_source
from autocompress.runtimes import OnnxRuntime
from autocompress.core.source import whole
from autocompress.core.technique import Context

module, name, model, path, settings, folder = sys.argv[1:]
context = Context(None, None, whole("train", labelled_source(model, 48)), Path(folder))
technique = getattr(import_module(module), name)()
print(technique.apply(OnnxRuntime().read(Path(path)), json.loads(settings), context).hash)
"""

FAST = Profile("fast", budgets=(Budget.parse("latency_ms", "0.5x"),))
SMALL = Profile("small", budgets=(Budget.parse("size_mb", "0.6x"),))
PROFILES = (Profile("free"), FAST, SMALL, Profile("hurried", objective=OBJECTIVES["latency"]))


def facts_with(*kinds: Kind) -> Facts:
    """Facts of a model with one layer of each kind, all with equal work."""
    layers = tuple(
        LayerFact(f"layer{i}", kind.title(), kind, 1000, 50_000, (16,), (16,), {}) for i, kind in enumerate(kinds)
    )
    shares = {kind: kinds.count(kind) / len(kinds) for kind in set(kinds)}
    work = 50_000 * len(layers)
    return Facts(Family.MIXED, "handmade", 1000 * len(layers), 1000 * len(layers), work, 0, shares, layers)


def probed(technique: type[ArtifactTechnique], ratios: Sequence[float]) -> Probes:
    """Probes of the technique's own settings with these latency ratios to float."""
    assert len(ratios) == len(technique.probed)
    return Probes(
        tuple(
            Probe(technique.name, settings, ratio, ratio * 0.9, ratio * 1.1, 0.3)
            for settings, ratio in zip(technique.probed, ratios, strict=True)
        ),
        ("layer0",),
        int8_dot_product=True,
    )


def relative_error(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


class ArtifactTechniqueSuite:
    """Tests of the contract of `Technique` and `ArtifactTechnique`.

    `models` are the small models that it must work on; `share` bounds the size that it leaves of each.
    `beyond_this_runtime` are probed settings that the runtime on the CPU has no kernels for.
    """

    technique: ClassVar[type[ArtifactTechnique]]
    models: ClassVar[Mapping[str, Mapping[str, Setting]]]
    covers: ClassVar[Kind]
    share: ClassVar[float] = 0.5
    error: ClassVar[float] = 0.1
    beyond_this_runtime: ClassVar[Sequence[Mapping[str, Setting]]] = ()

    @classmethod
    def settings(cls, **changed: Setting) -> dict[str, Setting]:
        """The first option of every setting, except those given."""
        return {**first_options(cls.technique.choices), **changed}

    @classmethod
    def context(cls, model: str, folder: Path, items: int = 48) -> Context:
        """A context with random calibration data and a folder of its own."""
        folder.mkdir(exist_ok=True)
        return Context(None, None, whole("train", labelled_source(model, items)), folder)

    def apply(
        self, exported: Exported, model: str, folder: Path, settings: Mapping[str, Setting] | None = None
    ) -> Artifact:
        chosen = self.settings(**self.models.get(model, {})) if settings is None else settings
        return self.technique().apply(exported.artifact, chosen, self.context(model, folder))

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

    def test_it_makes_weights_of_some_kinds_of_layers_narrower(self) -> None:
        covered = self.technique().covers(facts_with(*Kind))
        assert covered <= frozenset(Kind)
        assert self.technique().covers(facts_with(self.covers)) >= {self.covers}
        assert 0 < self.technique.value_bytes < 4

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

    def test_some_of_its_settings_decide_size_and_latency(self) -> None:
        structural = {choice.name for choice in self.technique.choices if choice.structural}
        assert structural
        # a probe measures latency, so what it varies must be structural
        assert all(set(settings) <= structural for settings in self.technique.probed)

    def test_probed_settings_are_among_its_options_and_distinct(self) -> None:
        assert self.technique.probed
        assert len({str(sorted(settings.items())) for settings in self.technique.probed}) == len(self.technique.probed)
        for settings in self.technique.probed:
            check_settings(self.technique.name, self.technique.choices, self.settings(**settings))

    # proposed settings

    @pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
    @pytest.mark.parametrize("dot_product", [None, True, False])
    def test_all_it_proposes_can_be_applied(self, profile: Profile, *, dot_product: bool | None) -> None:
        count = len(self.technique.probed)
        knowledge = [Probes(), probed(self.technique, [0.4] * count), probed(self.technique, [1.7] * count)]
        for probes in knowledge:
            space = self.technique().space(
                facts_with(self.covers), replace(probes, int8_dot_product=dot_product), profile
            )
            combinations = list(space.grid())
            assert combinations
            for settings in combinations:
                check_settings(self.technique.name, self.technique.choices, settings)
            assert len({str(sorted(settings.items())) for settings in combinations}) == len(combinations)

    def test_without_probes_it_proposes_all_its_probed_settings(self) -> None:
        grid = list(self.technique().space(facts_with(self.covers), Probes(), FAST).grid())
        for settings in self.technique.probed:
            assert any(settings.items() <= proposed.items() for proposed in grid)

    def test_what_is_fastest_here_comes_first(self) -> None:
        listed = self.technique.probed
        ratios = [0.8 - 0.3 * i / len(listed) for i in range(len(listed))]
        grid = list(self.technique().space(facts_with(self.covers), probed(self.technique, ratios), FAST).grid())
        assert listed[-1].items() <= grid[0].items()
        assert listed[0].items() <= grid[-1].items()

    def test_what_is_slower_than_float_here_is_left_out_where_time_matters(self) -> None:
        listed = self.technique.probed
        probes = probed(self.technique, [1.5, *[0.5] * (len(listed) - 1)])
        fast = list(self.technique().space(facts_with(self.covers), probes, FAST).grid())
        small = list(self.technique().space(facts_with(self.covers), probes, SMALL).grid())
        assert not any(listed[0].items() <= settings.items() for settings in fast)
        assert any(listed[0].items() <= settings.items() for settings in small)

    @pytest.mark.parametrize("arch", ["x86_64", "aarch64", None])
    def test_weights_keep_a_bit_free_where_eight_bit_products_saturate(self, arch: str | None) -> None:
        names = {choice.name for choice in self.technique.choices}
        if "reduce_range" not in names:
            pytest.skip("has no such setting")
        profile = Profile("somewhere", DeviceProfile(arch=arch))
        proposed = {}
        for dot_product in (True, False, None):
            probes = Probes(int8_dot_product=dot_product)
            grid = self.technique().space(facts_with(self.covers), probes, profile).grid()
            proposed[dot_product] = {settings["reduce_range"] for settings in grid}
        assert proposed[True] == proposed[None] == {False}
        assert proposed[False] == {arch != "aarch64"}

    # refusals

    def test_it_is_not_refused_where_nothing_was_probed(self) -> None:
        assert self.technique().refuses(facts_with(self.covers), Probes(), FAST) is None

    def test_it_is_not_refused_where_one_setting_pays(self) -> None:
        ratios = [1.5] * (len(self.technique.probed) - 1) + [0.7]
        facts = facts_with(self.covers)
        assert self.technique().refuses(facts, probed(self.technique, ratios), FAST) is None

    @pytest.mark.parametrize("profile", [FAST, Profile("hurried", objective=OBJECTIVES["latency"])])
    def test_it_is_refused_with_the_figure_where_every_setting_is_slower(self, profile: Profile) -> None:
        count = len(self.technique.probed)
        ratios = [4.0 + i for i in range(count)][::-1]
        reason = self.technique().refuses(facts_with(self.covers), probed(self.technique, ratios), profile)
        assert reason is not None
        assert "4.0x slower than float" in reason.sentence
        assert reason.sentence.endswith(".")
        assert reason.rule == "probe"
        assert "4.00x the float latency (3.60 to 4.40)" in reason.fact
        assert f"best of {count}" in reason.fact

    def test_it_is_not_refused_for_its_speed_where_time_does_not_matter(self) -> None:
        probes = probed(self.technique, [4.0] * len(self.technique.probed))
        assert self.technique().refuses(facts_with(self.covers), probes, SMALL) is None

    def test_it_is_refused_with_the_reason_where_every_probe_failed(self) -> None:
        probes = Probes((Probe(self.technique.name, self.technique.probed[0], None, failure="no kernel"),))
        reason = self.technique().refuses(facts_with(self.covers), probes, FAST)
        assert reason is not None
        assert "no kernel" in reason.sentence

    def test_probes_of_another_technique_decide_nothing(self) -> None:
        probes = Probes((Probe("another", {}, 9.0, 8.0, 10.0), Probe("another", {"a": 1}, None, failure="no")))
        assert self.technique().refuses(facts_with(self.covers), probes, FAST) is None

    def test_it_is_refused_where_it_covers_no_layer(self) -> None:
        reason = self.technique().refuses(facts_with(Kind.NORM, Kind.OTHER), Probes(), FAST)
        assert reason is not None
        assert reason.rule == "quantizable"
        assert reason.fact

    # results of apply

    def test_the_result_computes_roughly_the_same(self, exported: Exported, model: str, tmp_path: Path) -> None:
        result = self.apply(exported, model, tmp_path / "made")
        runtime = OnnxRuntime()
        inputs, _ = whole("test", labelled_source(model, 64, seed=1)).source.read(range(64))
        feed = align(inputs, exported.artifact.inputs)
        (wanted,) = runtime.load(exported.artifact, 1, {}).run(feed)
        (found,) = runtime.load(result, 1, {}).run(feed)
        assert relative_error(found, wanted) < self.error
        assert relative_error(found, wanted) > 0
        assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9

    def test_inputs_outputs_and_free_batch_are_kept(self, exported: Exported, model: str, tmp_path: Path) -> None:
        result = self.apply(exported, model, tmp_path / "made")
        assert result.inputs == exported.artifact.inputs
        assert result.outputs == exported.artifact.outputs
        assert OnnxRuntime().read(result.path) == result

    def test_the_saving_is_there(self, exported: Exported, model: str, tmp_path: Path) -> None:
        result = self.apply(exported, model, tmp_path / "made")
        assert result.size_bytes < self.share * exported.artifact.size_bytes

    def test_probed_settings_can_be_applied(
        self, exports: Exports, probed_settings: Mapping[str, Setting], tmp_path: Path
    ) -> None:
        model, extra = next(iter(self.models.items()))
        exported = exports(OnnxRuntime(), model)
        settings = self.settings(**{**extra, **probed_settings})
        if probed_settings in self.beyond_this_runtime:
            with pytest.raises(TechniqueError, match="kernel"):
                self.apply(exported, model, tmp_path / "made", settings)
            return
        result = self.apply(exported, model, tmp_path / "made", settings)
        assert result.size_bytes < self.share * exported.artifact.size_bytes
        # the CI gate reads deployed files, and takes valid ones only
        assert OnnxRuntime().read(result.path).hash == result.hash

    def test_the_same_settings_give_the_same_bytes(self, exported: Exported, model: str, tmp_path: Path) -> None:
        first = self.apply(exported, model, tmp_path / "first")
        second = self.apply(exported, model, tmp_path / "second")
        assert first.path.read_bytes() == second.path.read_bytes()

    def test_another_process_gives_the_same_bytes(self, exports: Exports, tmp_path: Path) -> None:
        model, extra = next(iter(self.models.items()))
        exported, technique = exports(OnnxRuntime(), model), self.technique
        here = self.apply(exported, model, tmp_path / "here")
        (tmp_path / "there").mkdir()
        found = run_python(
            APPLY_ELSEWHERE,
            technique.__module__,
            technique.__name__,
            model,
            exported.artifact.path,
            json.dumps(self.settings(**extra)),
            tmp_path / "there",
            PYTHONHASHSEED="42",
        )
        assert found == here.hash

    def test_a_technique_object_keeps_nothing_from_one_model_to_the_next(
        self, exports: Exports, tmp_path: Path
    ) -> None:
        technique = self.technique()
        results = []
        for number, model in enumerate([*self.models, next(iter(self.models))]):
            settings = self.settings(**self.models[model])
            context = self.context(model, tmp_path / str(number))
            results.append(technique.apply(exports(OnnxRuntime(), model).artifact, settings, context).hash)
        assert results[0] == results[-1]
        assert len(set(results)) == len(results) - 1

    def test_the_artifact_passed_in_is_left_as_it_is(self, exported: Exported, model: str, tmp_path: Path) -> None:
        before = hashlib.sha256(exported.artifact.path.read_bytes()).hexdigest()
        result = self.apply(exported, model, tmp_path / "made")
        assert hashlib.sha256(exported.artifact.path.read_bytes()).hexdigest() == before
        assert [path.name for path in exported.artifact.root.iterdir()] == [exported.artifact.entry]
        assert result.path != exported.artifact.path

    def test_what_is_marked_to_stay_in_float_stays(
        self, exported: Exported, model: str, tmp_path: Path, exports: Exports
    ) -> None:
        # in all models the last linear layer is called head and is not the widest layer
        layer = {"mlp": "layers.4"}.get(model, "head")
        (tmp_path / "marked").mkdir()
        marked = OnnxRuntime().export(exported.module, exported.example, tmp_path / "marked" / "a.onnx", [layer])
        chosen = self.settings(**self.models[model])
        result = self.technique().apply(marked, chosen, self.context(model, tmp_path / "made"))
        kept = exported.module.get_submodule(layer).weight.detach().numpy()
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(result.path).graph.initializer]
        same = [array for array in arrays if sorted(array.shape) == sorted(kept.shape) and array.dtype == kept.dtype]
        assert any(np.array_equal(array, kept) or np.array_equal(array.T, kept) for array in same)
        # the other layers are quantized
        assert result.size_bytes < 0.8 * marked.size_bytes

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
