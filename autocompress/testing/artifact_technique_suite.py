"""Contract suite for artifact techniques of the stage PRECISION, which make weights narrower.

Inherit `ArtifactTechniqueSuite` in a class named `Test...` and fill it in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest

from autocompress.core.budget import Budget
from autocompress.core.facts import Kind
from autocompress.core.objective import OBJECTIVES
from autocompress.core.plan import Setting
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import DeviceProfile, Profile
from autocompress.core.search_space import check_settings
from autocompress.core.technique import ArtifactTechnique
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.finish_technique_suite import FinishTechniqueSuite, facts_with, relative_error
from autocompress.testing.networks import Exported, Exports

FAST = Profile("fast", budgets=(Budget.parse("latency_ms", "0.5x"),))
SMALL = Profile("small", budgets=(Budget.parse("size_mb", "0.6x"),))
PROFILES = (Profile("free"), FAST, SMALL, Profile("hurried", objective=OBJECTIVES["latency"]))


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


class ArtifactTechniqueSuite(FinishTechniqueSuite):
    """Tests of the contract of `Technique` and `ArtifactTechnique` for a technique that saves bytes.

    `share` bounds the size that it leaves of each model. `beyond_this_runtime` are probed settings that the runtime on
    the CPU has no kernels for.
    """

    covers: ClassVar[Kind]
    share: ClassVar[float] = 0.5
    error: ClassVar[float] = 0.1
    beyond_this_runtime: ClassVar[Sequence[Mapping[str, Setting]]] = ()

    # declared attributes

    def test_it_makes_weights_of_some_kinds_of_layers_narrower(self) -> None:
        covered = self.technique().covers(facts_with(*Kind))
        assert covered <= frozenset(Kind)
        assert self.technique().covers(facts_with(self.covers)) >= {self.covers}
        assert 0 < self.technique.value_bytes < 4

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
        wanted, found = self.answers(exported, self.apply(exported, model, tmp_path / "made"), model)
        assert relative_error(found, wanted) < self.error
        assert relative_error(found, wanted) > 0
        assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9

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

    def test_what_is_marked_to_stay_in_float_stays(
        self, exported: Exported, model: str, tmp_path: Path, exports: Exports
    ) -> None:
        # in all models the last linear layer is called head and is not the widest layer
        layer = {"mlp": "layers.4"}.get(model, "head")
        marked = exports(OnnxRuntime(), model, (layer,)).artifact
        chosen = self.settings(**self.models[model])
        result = self.technique().apply(marked, chosen, self.context(model, tmp_path / "made"))
        kept = exported.module.get_submodule(layer).weight.detach().numpy()
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(result.path).graph.initializer]
        same = [array for array in arrays if sorted(array.shape) == sorted(kept.shape) and array.dtype == kept.dtype]
        assert any(np.array_equal(array, kept) or np.array_equal(array.T, kept) for array in same)
        # the other layers are quantized
        assert result.size_bytes < 0.8 * marked.size_bytes
