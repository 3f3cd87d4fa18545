from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from autocompress.analysis import model_probes
from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.model_probes import probe_model
from autocompress.analysis.probe_measuring import ProbeMeasurer
from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import profitable_settings, refuse_what_does_not_pay
from autocompress.core.runtime import Example
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.core.tools import Tools
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.fakes import FakeDevice, Variant, answering
from autocompress.testing.networks import labelled, small_model

PROFILE = Profile("brief", budgets=(Budget.parse("latency_ms", "0.5x"),))
EXAMPLE = Example((np.ones((2, 2), dtype=np.float32),))
VARIANTS = ({"variant": "first"}, {"variant": "second"}, {"variant": "third"})
# ms of what is made of the whole model, whose float file takes 10
SCRIPT = {"first": 9.0, "second": 4.0, "third": 1.0}


class WholeModel(ArtifactTechnique):
    """Makes what the script says of the whole model."""

    name: ClassVar[str] = "whole"
    summary: ClassVar[str] = "whole"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.NONE
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    choices: ClassVar[tuple[Choice, ...]] = (Choice("variant", tuple(SCRIPT)), Choice("fails", (False, True)))
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = VARIANTS

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        choices = (self.choices[0], Choice("fails", (self._fails,)))
        return SettingSpace(choices, profitable_settings(self.probed, probes.of(self.name), profile))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        return refuse_what_does_not_pay("whole", self.name, probes, profile)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return str(settings[0]["variant"])

    def covers(self, facts: Facts) -> frozenset[Kind]:
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        if settings["fails"]:
            raise TechniqueError("does not know this model.", where=self.name)
        return answering(context.folder / "whole.onnx", Variant(4, SCRIPT[str(settings["variant"])]))


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", "off")


@pytest.fixture(scope="module")
def facts() -> Facts:
    return inspect_module(small_model("cnn"), Example(labelled("cnn", 2)[0]))


@pytest.fixture
def baseline(tmp_path: Path) -> Artifact:
    return answering(tmp_path / "float.onnx", Variant(20, 10.0))


def on_layers(*ratios: float) -> Probes:
    return Probes(
        tuple(Probe("whole", variant, ratio, ratio, ratio) for variant, ratio in zip(VARIANTS, ratios, strict=True))
    )


def measurer(technique: WholeModel | None = None, device: FakeDevice | None = None) -> ProbeMeasurer:
    techniques = [technique or WholeModel()]
    return ProbeMeasurer(techniques, Tools(OnnxRuntime(), device or FakeDevice(), techniques), PROFILE)


def ratios(probes: Sequence[Probe]) -> list[tuple[object, float | None, bool]]:
    return [(probe.settings["variant"], probe.ratio, probe.whole) for probe in probes]


def test_the_settings_that_were_fastest_on_the_layers_are_measured_and_come_before_the_others(
    facts: Facts, baseline: Artifact
) -> None:
    probes = probe_model(baseline, EXAMPLE, facts, on_layers(0.3, 0.6, 0.9), measurer())
    assert ratios(probes.of("whole")) == [("second", 0.4, True), ("first", 0.9, True), ("third", 0.9, False)]
    best = probes.of("whole")[0]
    assert best.size_ratio is not None
    assert best.size_ratio < 1
    assert [settings["variant"] for settings in WholeModel().space(facts, probes, PROFILE).combinations] == [
        "second",
        "first",
        "third",
    ]


def test_what_pays_on_the_layers_and_not_in_the_whole_model_is_refused_with_that_figure(
    facts: Facts, baseline: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPT, "first", 13.0)
    monkeypatch.setitem(SCRIPT, "second", 12.0)
    technique = WholeModel()
    probes = probe_model(baseline, EXAMPLE, facts, on_layers(0.3, 0.6, 0.9), measurer(technique))
    refusal = technique.refuses(facts, probes, PROFILE)
    assert refusal is not None
    assert refusal.sentence == "whole makes this model 1.2x slower than float on this device."


def test_what_fails_on_the_whole_model_is_refused_with_the_failure(facts: Facts, baseline: Artifact) -> None:
    technique = WholeModel(fails=True)
    probes = probe_model(baseline, EXAMPLE, facts, on_layers(0.3, 0.6, 0.9), measurer(technique))
    refusal = technique.refuses(facts, probes, PROFILE)
    assert refusal is not None
    assert refusal.sentence == "whole fails on this model: does not know this model."


def test_what_does_not_pay_on_the_layers_is_not_tried(facts: Facts, baseline: Artifact) -> None:
    device, before = FakeDevice(), on_layers(1.2, 1.3, 1.4)
    assert probe_model(baseline, EXAMPLE, facts, before, measurer(device=device)) == before
    assert not device.measured


def test_large_files_are_left_to_the_layers(facts: Facts, baseline: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_probes, "MOST_MB", 0.01)
    device, before = FakeDevice(), on_layers(0.3, 0.6, 0.9)
    assert probe_model(baseline, EXAMPLE, facts, before, measurer(device=device)) == before
    assert not device.measured


def test_a_model_that_was_probed_before_is_not_probed_again_and_another_one_is(
    facts: Facts, baseline: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path / "cache"))
    first, second = FakeDevice(), FakeDevice()
    before = on_layers(0.3, 0.6, 0.9)
    found = probe_model(baseline, EXAMPLE, facts, before, measurer(device=first))
    assert first.measured
    assert probe_model(baseline, EXAMPLE, facts, before, measurer(device=second)) == found
    assert not second.measured
    other = answering(tmp_path / "other.onnx", Variant(24, 10.0))
    probe_model(other, EXAMPLE, facts, before, measurer(device=second))
    assert second.measured


def test_a_recipe_goes_by_the_probe_of_its_first_plan() -> None:
    slower = replace(Probe("whole", VARIANTS[0], 0.42, whole=True), size_ratio=0.27)
    probes = Probes((slower, Probe("whole", VARIANTS[1], 0.41, whole=True)))
    assert probes.with_settings("whole", {"variant": "first", "fails": False}) is slower
    # none of its own: the fastest
    assert probes.with_settings("whole", {"variant": "third", "fails": False}) is probes.probes[1]
    assert probes.with_settings("other", {"variant": "first"}) is None
