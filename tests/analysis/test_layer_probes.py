from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.layer_probes import run_probes
from autocompress.analysis.probe_measuring import ProbeMeasurer
from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.core.tools import Tools
from autocompress.devices import LocalDevice
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.system.time_limit import TimeLimit
from autocompress.techniques import Int8Dynamic, Int8Static
from autocompress.testing.fakes import FakeDevice, Variant, answering
from autocompress.testing.networks import labelled, small_model

PROFILE = Profile("brief")


class Picky(ArtifactTechnique):
    """Works with one of its three settings, fails with the second, and makes with the third what the device
    cannot run."""

    name: ClassVar[str] = "picky"
    summary: ClassVar[str] = "picky"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.NONE
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    choices: ClassVar[tuple[Choice, ...]] = (Choice("how", ("works", "fails", "dies")),)
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ({"how": "works"}, {"how": "fails"}, {"how": "dies"})

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        return SettingSpace(self.choices)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        return None

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        return "picked"

    def covers(self, facts: Facts) -> frozenset[Kind]:
        return frozenset(Kind)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        if settings["how"] == "fails":
            raise TechniqueError("does not know these layers.", where=self.name)
        variant = Variant(kilobytes=4, latency_ms=2.5, dies=settings["how"] == "dies")
        return answering(context.folder / "picky.onnx", variant)


def measurer_of(
    techniques: Sequence[ArtifactTechnique], device: Device, tell: Callable[[str], None] = lambda sentence: None
) -> ProbeMeasurer:
    return ProbeMeasurer(techniques, Tools(OnnxRuntime(), device, techniques), PROFILE, tell)


def facts_of(module: nn.Module, *shape: int) -> Facts:
    generator = np.random.default_rng(0)
    return inspect_module(module.eval(), Example((generator.standard_normal((2, *shape)).astype(np.float32),)))


@pytest.fixture(scope="module")
def cnn() -> Facts:
    return inspect_module(small_model("cnn"), Example(labelled("cnn", 2)[0]))


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def real(cnn: Facts, told: list[str]) -> Probes:
    """Both techniques probed in earnest on this machine."""
    device = LocalDevice(OnnxRuntime())
    techniques = [Int8Dynamic(), Int8Static()]
    return run_probes(cnn, measurer_of(techniques, device, told.append))


@pytest.mark.parametrize("technique", [Int8Dynamic, Int8Static])
def test_real_probes_of_a_small_cnn_give_ratios_of_time_and_size(
    real: Probes, technique: type[ArtifactTechnique]
) -> None:
    probes = [probe for probe in real.probes if probe.technique == technique.name]
    assert [dict(probe.settings) for probe in probes] == [dict(settings) for settings in technique.probed]
    for probe in probes:
        assert probe.failure == ""
        assert probe.ratio is not None
        assert probe.low is not None
        assert probe.high is not None
        assert 0 < probe.low <= probe.ratio <= probe.high < 100
        assert probe.size_ratio is not None
        assert 0.2 < probe.size_ratio < 1


def test_real_probes_are_of_the_dominant_layers_and_know_the_machine(cnn: Facts, real: Probes) -> None:
    assert real.layers == tuple(layer.name for layer in cnn.dominant())
    assert real.int8_dot_product is ("int8_dot_product" in LocalDevice(OnnxRuntime()).machine().features)


def test_the_probes_of_a_technique_come_fastest_first(real: Probes) -> None:
    ratios = [probe.ratio for probe in real.of("int8_static")]
    assert ratios == sorted(ratio for ratio in ratios if ratio is not None)
    assert len(ratios) == 4


def test_progress_names_each_technique(real: Probes, told: list[str]) -> None:
    assert real.probes
    assert told == [
        "probing int8_dynamic on 1 kind of layers",
        "probing int8_static on 1 kind of layers",
        "measuring these probes in turn",
    ]


def test_the_microbenchmarks_are_measured_in_float_and_with_hardly_any_channels(real: Probes) -> None:
    microbenchmarks = real.microbenchmarks
    assert microbenchmarks is not None
    # a residual pair of 3x3 convolutions of 16 channels on 16x16
    assert (microbenchmarks.layers, microbenchmarks.macs, microbenchmarks.weights, microbenchmarks.channels) == (
        2,
        2 * 589_824,
        2 * 2304,
        32,
    )
    assert microbenchmarks.layer_ms > 0
    assert microbenchmarks.size_bytes > 4 * microbenchmarks.weights


def test_real_probes_survive_json(real: Probes) -> None:
    assert Probes.from_json(real.to_json()) == real


def test_probes_of_an_earlier_run_are_not_measured_again(
    cnn: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path))
    first, second, told = FakeDevice(), FakeDevice(), []
    measured = run_probes(cnn, measurer_of([Picky()], first))
    again = run_probes(cnn, measurer_of([Picky()], second, told.append))
    assert again == measured
    assert first.measured
    assert not second.measured
    assert told == ["the probes of an earlier run on this device hold"]
    for path in tmp_path.rglob("*.json"):
        path.write_text('{"date": "2026-01-01", "probes": [{}]}')
    run_probes(cnn, measurer_of([Picky()], second))
    assert second.measured


def test_a_setting_that_fails_is_kept_with_its_failure_and_does_not_hide_the_others(cnn: Facts) -> None:
    device = FakeDevice()
    probes = run_probes(cnn, measurer_of([Picky()], device))
    works, fails, dies = probes.probes
    # the scripted device takes 2.5 ms for what the technique made and 10 ms for all else
    assert (works.ratio, works.low, works.high, works.failure) == (0.25, 0.25, 0.25, "")
    assert works.size_ratio is not None
    assert fails.failure == "does not know these layers."
    assert dies.failure == "died while it was measured."
    for probe in (fails, dies):
        assert (probe.ratio, probe.low, probe.high, probe.size_ratio) == (None, None, None, None)
    assert [dict(probe.settings) for probe in probes.probes] == [dict(settings) for settings in Picky.probed]
    assert probes.of("picky") == (works,)


def test_the_times_of_few_blocks_are_bounded_by_the_fastest_and_the_slowest(cnn: Facts) -> None:
    class OneSetting(Picky):
        probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ({"how": "works"},)

    device = FakeDevice(blocks=3)
    (probe,) = run_probes(cnn, measurer_of([OneSetting()], device)).probes
    assert (probe.low, probe.ratio, probe.high) == (0.25, 0.25, 0.25)


def test_layers_that_no_probe_is_made_of_are_not_probed() -> None:
    device = FakeDevice()
    facts = facts_of(nn.Conv3d(4, 6, 5, padding=2), 4, 6, 6, 6)
    probes = run_probes(facts, measurer_of([Picky()], device))
    assert probes.probes == ()
    assert device.measured == []


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [
        (3, 1),
        (3, 2),
        (1, 1),
        (2, 2),
        (2, 1),
        (4, 1),
    ],
)
def test_convolutions_of_any_kernel_are_probed_or_kept_with_a_failure(kernel: int, stride: int) -> None:
    device = FakeDevice()
    facts = facts_of(nn.Conv2d(6, 6, kernel, stride, padding=kernel // 2), 6, 9, 9)
    probes = run_probes(facts, measurer_of([Picky()], device))
    assert [probe.technique for probe in probes.probes] == ["picky"] * 3


def test_probing_leaves_the_random_numbers_of_torch_and_numpy_as_they_were(cnn: Facts, tmp_path: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    device = FakeDevice()
    run_probes(cnn, measurer_of([Picky()], device))
    after = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(after[0], torch.rand(3))
    assert np.array_equal(after[1], np.random.rand(3))


def test_layers_that_there_is_no_time_to_probe_are_named(cnn: Facts) -> None:
    device = FakeDevice()
    measurer = replace(measurer_of([Int8Dynamic(), Int8Static()], device), limit=TimeLimit(1.0, 2.0))
    found = run_probes(cnn, measurer)
    assert found.probes == ()
    assert found.skipped == ("layers",)
    assert Probes.from_json(found.to_json()) == found
    assert not device.measured


class TooShortLater(TimeLimit):
    """Long enough for so many pieces of work."""

    def __init__(self, pieces: int) -> None:
        super().__init__(None)
        self.pieces = pieces

    def is_too_short(self) -> bool:
        self.pieces -= 1
        return self.pieces < 0


def test_a_technique_that_there_is_no_time_to_probe_is_named_and_the_others_are_measured(cnn: Facts) -> None:
    class Other(Picky):
        name: ClassVar[str] = "other"

    # asked before the layers are exported, and before each technique
    measurer = replace(measurer_of([Picky(), Other()], FakeDevice()), limit=TooShortLater(2))
    found = run_probes(cnn, measurer)
    assert found.skipped == ("other on layers",)
    assert {probe.technique for probe in found.probes} == {"picky"}
    assert found.of("picky")
