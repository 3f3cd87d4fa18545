"""Contract suite for artifact techniques that store weights in fewer bytes: stage PACKING.

Inherit `PackingTechniqueSuite` in a class named `Test...` and fill it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.facts import Kind
from autocompress.core.objective import OBJECTIVES
from autocompress.core.plan import Stage
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import check_settings, first_options
from autocompress.core.technique import ArtifactTechnique
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import load_model, save_model
from autocompress.runtimes.palette_reading import without_palettes
from autocompress.testing.finish_technique_suite import FinishTechniqueSuite, facts_with, relative_error
from autocompress.testing.networks import Exported

SMALL = Profile("small", budgets=(Budget.parse("size_mb", "0.1x"),))
SMALL_AND_FAST = Profile("both", budgets=(Budget.parse("size_mb", "0.1x"), Budget.parse("latency_ms", "0.5x")))
SMALLEST = Profile("smallest", objective=OBJECTIVES["size"])
FAST = Profile("fast", budgets=(Budget.parse("latency_ms", "0.5x"),))


class PackingTechniqueSuite(FinishTechniqueSuite):
    """Tests of the contract of `Technique` and `ArtifactTechnique` for a technique that packs weights.

    `quantizers` quantize the models' files before; a model without one is packed in float. `share` bounds what is left
    of the file that it was given, `error` the difference of its answers from those of that file. `asking` are probes
    that do not speak against it.
    """

    quantizers: ClassVar[Mapping[str, type[ArtifactTechnique]]]
    asking: ClassVar[Probes] = Probes()
    share: ClassVar[float] = 0.95
    error: ClassVar[float] = 0.2

    @classmethod
    def start(cls, unquantized: Artifact, model: str, folder: Path) -> Artifact:
        """See `FinishTechniqueSuite.start`."""
        quantizer = cls.quantizers.get(model)
        if quantizer is None:
            return unquantized
        before = folder.with_name(f"{folder.name}-start")
        return quantizer().apply(unquantized, first_options(quantizer.choices), cls.context(model, before, unquantized))

    # declared attributes

    def test_it_packs_weights_of_some_kinds_of_layers(self) -> None:
        assert self.technique.stage is Stage.PACKING
        assert self.technique.serves <= {"static", "dynamic", "weights"}
        assert self.technique().covers(facts_with(*Kind)) <= frozenset(Kind)
        assert self.technique().covers(facts_with(Kind.LINEAR))
        for settings in self.technique().space(facts_with(Kind.LINEAR), Probes(), SMALL).grid():
            assert 0 < self.technique().weight_bytes(settings) < 4

    # proposed settings and refusals

    @pytest.mark.parametrize("profile", [SMALL, SMALL_AND_FAST, SMALLEST], ids=lambda profile: profile.name)
    def test_all_it_proposes_can_be_applied(self, profile: Profile) -> None:
        combinations = list(self.technique().space(facts_with(*Kind), Probes(), profile).grid())
        assert combinations
        for settings in combinations:
            check_settings(self.technique.name, self.technique.choices, settings)
        assert len({str(sorted(settings.items())) for settings in combinations}) == len(combinations)

    @pytest.mark.parametrize("profile", [SMALL, SMALL_AND_FAST, SMALLEST], ids=lambda profile: profile.name)
    def test_it_is_not_refused_where_a_small_file_is_asked_for(self, profile: Profile) -> None:
        assert self.technique().refuses(facts_with(Kind.LINEAR), self.asking, profile) is None

    def test_it_is_refused_where_nothing_asks_for_a_small_file(self) -> None:
        reason = self.technique().refuses(facts_with(Kind.LINEAR), Probes(), FAST)
        assert reason is not None
        assert reason.rule == "size"
        assert "latency_ms" in reason.fact

    def test_it_is_refused_where_it_covers_no_layer(self) -> None:
        reason = self.technique().refuses(facts_with(Kind.NORM, Kind.OTHER), Probes(), SMALL)
        assert reason is not None
        assert reason.rule == "quantizable"

    def test_it_is_refused_with_the_figure_where_the_runtime_unpacks_at_each_call(self) -> None:
        for settings in self.technique.probed:
            probes = Probes((Probe(self.technique.name, settings, 1.5, 1.4, 1.6, 0.15),))
            reason = self.technique().refuses(facts_with(Kind.LINEAR), probes, SMALL_AND_FAST)
            assert reason is not None
            assert "1.50x" in reason.fact
            assert self.technique().refuses(facts_with(Kind.LINEAR), probes, SMALL) is None

    def test_it_is_refused_with_the_reason_where_every_probe_failed(self) -> None:
        for settings in self.technique.probed:
            probes = Probes((Probe(self.technique.name, settings, None, failure="no kernel"),))
            reason = self.technique().refuses(facts_with(Kind.LINEAR), probes, SMALL)
            assert reason is not None
            assert "no kernel" in reason.sentence

    # results of apply

    def test_the_file_is_smaller_and_answers_nearly_the_same(
        self, exported: Exported, model: str, tmp_path: Path
    ) -> None:
        start = self.start(exported.artifact, model, tmp_path / "made")
        made = self.apply(exported, model, tmp_path / "made")
        assert made.size_bytes < self.share * start.size_bytes
        _, before = self.answers(exported, start, model)
        _, after = self.answers(exported, made, model)
        assert relative_error(after, before) < self.error

    def test_the_packed_file_computes_what_the_unpacked_one_does(
        self, exported: Exported, model: str, tmp_path: Path
    ) -> None:
        made = self.apply(exported, model, tmp_path / "made")
        plain = save_model(without_palettes(load_model(made.path)), tmp_path / "plain.onnx")
        assert plain.size_bytes > made.size_bytes
        (_, packed), (_, unpacked) = self.answers(exported, made, model), self.answers(exported, plain, model)
        np.testing.assert_array_equal(packed, unpacked)

    def test_values_are_counted_as_those_of_the_file_before(
        self, exported: Exported, model: str, tmp_path: Path
    ) -> None:
        made = self.apply(exported, model, tmp_path / "made")
        plain = save_model(without_palettes(load_model(made.path)), tmp_path / "plain.onnx")
        assert OnnxRuntime().contents(made).parameters == OnnxRuntime().contents(plain).parameters
