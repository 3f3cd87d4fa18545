"""What equalization does to int8, what it leaves alone, and when it is tried."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Kind
from autocompress.core.plan import Setting
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example, align
from autocompress.core.search_space import first_options
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.source import ArraySource, whole
from autocompress.core.technique import Context
from autocompress.errors import TechniqueError
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import Equalization, Int8Static
from autocompress.testing.finish_technique_suite import facts_with, relative_error

ITEMS = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
WIDE: dict[str, Setting] = {"method": "cross_layer", "alpha": 0.5}
SMOOTH: dict[str, Setting] = {"method": "smooth", "alpha": 0.5}


def scaled(before: nn.Conv2d, behind: nn.Module, factors: torch.Tensor) -> None:
    """Multiply what a layer gives, and divide what reads it, channel by channel."""
    with torch.no_grad():
        before.weight.mul_(factors.reshape(-1, 1, 1, 1))
        before.bias.mul_(factors)
        behind.weight.div_(factors.reshape((-1, 1, 1, 1) if getattr(behind, "groups", 1) > 1 else (1, -1, 1, 1)))


class Depthwise(nn.Module):
    """An inverted residual block without batch norm, and the mean over its places."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, factor: float = 100.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.last, self.activation = nn.Conv2d(32, 12, 1), activation()
        if factor > 1:
            scaled(self.first, self.middle, factor ** torch.rand(32))
            scaled(self.middle, self.last, factor ** torch.rand(32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.activation(self.middle(self.activation(self.first(image))))
        return self.last(hidden).mean((2, 3))


class Normed(nn.Module):
    """A norm three of whose channels are outliers, read by two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.one, self.two = nn.LayerNorm(48), nn.Linear(48, 32), nn.Linear(48, 32)
        with torch.no_grad():
            self.norm.weight[[3, 20, 41]] *= 100
            for reader in (self.one, self.two):
                reader.weight[:, [3, 20, 41]] /= 100

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(image.reshape(-1, 4, 48))
        return torch.cat([self.one(hidden), self.two(hidden)], -1).mean(1)


def exported(module: nn.Module, folder: Path) -> Artifact:
    return OnnxRuntime().export(module.eval(), Example((ITEMS[:2],)), folder / "float.onnx")


def context(folder: Path, items: np.ndarray = ITEMS) -> Context:
    folder.mkdir()
    split = whole("train", ArraySource((items,), np.zeros(len(items), np.int64)))
    return Context(None, Example((ITEMS[:2],)), split, folder)


def answers(artifact: Artifact, items: np.ndarray = ITEMS) -> np.ndarray:
    return OnnxRuntime().load(artifact, 1, {}).run(align((items,), artifact.inputs))[0]


def loss(artifact: Artifact, wanted: np.ndarray, folder: Path, **settings: Setting) -> float:
    """The relative error of static int8 made from a float file."""
    made = Int8Static().apply(artifact, {**first_options(Int8Static.choices), **settings}, context(folder))
    return relative_error(answers(made), wanted)


def test_cross_layer_equalization_wins_back_what_bad_scales_cost(tmp_path: Path) -> None:
    artifact = exported(Depthwise(), tmp_path)
    made = Equalization().apply(artifact, WIDE, context(tmp_path / "made"))
    wanted = answers(artifact)
    assert relative_error(answers(made), wanted) < 1e-5
    before = loss(artifact, wanted, tmp_path / "before", per_channel=False)
    after = loss(made, wanted, tmp_path / "after", per_channel=False)
    assert before > 0.1
    assert after < 0.02
    # as good as the network whose scales were never bad
    even = exported(Depthwise(factor=1.0), tmp_path / "even")
    assert after < 2 * loss(even, answers(even), tmp_path / "plain", per_channel=False)


def test_smoothing_takes_outliers_out_of_what_two_layers_read(tmp_path: Path) -> None:
    artifact = exported(Normed(), tmp_path)
    made = Equalization().apply(artifact, SMOOTH, context(tmp_path / "made"))
    wanted = answers(artifact)
    assert relative_error(answers(made), wanted) < 1e-5
    assert loss(artifact, wanted, tmp_path / "before") > 5 * loss(made, wanted, tmp_path / "after")


@pytest.mark.parametrize("settings", [WIDE, SMOOTH])
@pytest.mark.parametrize("size", [0.3, 30.0])
def test_a_relu6_keeps_cutting_off_where_it_did(settings: Mapping[str, Setting], size: float, tmp_path: Path) -> None:
    artifact = exported(Depthwise(nn.ReLU6, factor=4.0), tmp_path)
    made = Equalization().apply(artifact, settings, context(tmp_path / "made", size * ITEMS))
    for items in (size * ITEMS, 0.5 * size * ITEMS):
        assert relative_error(answers(made, items), answers(artifact, items)) < 1e-5


def test_cross_layer_needs_no_data_and_smoothing_does(tmp_path: Path) -> None:
    artifact = exported(Depthwise(), tmp_path)
    without = replace(context(tmp_path / "made"), calibration=None)
    made = Equalization().apply(artifact, WIDE, without)
    assert relative_error(answers(made), answers(artifact)) < 1e-5
    with pytest.raises(TechniqueError, match="needs calibration data"):
        Equalization().apply(artifact, SMOOTH, without)


def test_without_two_layers_that_exchange_scales_it_is_a_technique_error(tmp_path: Path) -> None:
    artifact = exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3)), tmp_path)
    for number, settings in enumerate((WIDE, SMOOTH)):
        with pytest.raises(TechniqueError, match="no two layers"):
            Equalization().apply(artifact, settings, context(tmp_path / str(number)))


def test_a_function_that_changes_is_a_technique_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = exported(Depthwise(), tmp_path)
    monkeypatch.setattr("autocompress.techniques.equalization.ROUNDING", 0.0)
    with pytest.raises(TechniqueError, match=r"changed output .* by"):
        Equalization().apply(artifact, WIDE, context(tmp_path / "made"))
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    ("per_channel", "ranges", "outliers", "methods"),
    [
        (False, 30.0, 2.0, ["cross_layer"]),
        (False, 2.0, 30.0, ["smooth", "smooth"]),
        (False, 30.0, 30.0, ["cross_layer", "smooth", "smooth"]),
        (True, 30.0, 30.0, ["cross_layer", "smooth", "smooth"]),
        # a scale per channel takes care of uneven weights
        (True, 30.0, 2.0, None),
        (False, 2.0, 2.0, None),
        (False, None, None, None),
    ],
)
def test_it_tries_what_the_ranges_ask_for(
    ranges: float | None, outliers: float | None, methods: list[str] | None, *, per_channel: bool
) -> None:
    found = Sensitivity("int8_static", {"per_channel": per_channel}, 0.5, 64, (), ranges=ranges, outliers=outliers)
    given = facts_with(Kind.CONVOLUTION), Probes(sensitivities=(found,) if found else ()), Profile("any")
    reason = Equalization().refuses(*given)
    assert (reason is None) == (methods is not None)
    if methods is None:
        assert reason is not None
        assert ("2.0x" in reason.fact) == (outliers is not None)
        assert ("not measured" in reason.fact) == (outliers is None)
    else:
        assert [settings["method"] for settings in Equalization().space(*given).grid()] == methods
