"""The published ResNets on all of CIFAR-10's test images, as the README claims."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from autocompress import Status, autocompress

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("depth", "accuracy"), [(20, 0.9173), (56, 0.9339)])
def test_static_int8_meets_size_and_accuracy_without_training(
    networks: ModuleType, tmp_path: Path, depth: int, accuracy: float
) -> None:
    # half the latency is the benchmark's claim; on a loaded test machine a wider limit shows the same path
    budgets = {"latency_ms": "0.7x", "size_mb": "0.35x", "max_accuracy_drop_pp": 1.0}
    result = autocompress(networks.cifar_resnet(depth), "local", networks.cifar10(), budgets=budgets, out=tmp_path)
    assert result.status is Status.MET
    assert [step.technique for step in result.plan.steps] == ["int8_static"]
    assert result.stages[0].score == pytest.approx(accuracy, abs=0.006)
    assert result.certificate is not None
    assert result.certificate["data"]["items"] == 6648


def test_budgets_beyond_reach_end_with_the_nearest_miss_and_the_binding_budget(
    networks: ModuleType, tmp_path: Path
) -> None:
    budgets = {"latency_ms": "0.02x", "size_mb": "0.01x", "max_accuracy_drop_pp": 1.0}
    result = autocompress(networks.cifar_resnet(20), "local", networks.cifar10(), budgets=budgets, out=tmp_path)
    assert result.status is Status.NOT_MET
    assert result.certificate is None
    assert result.binding is not None
    missed = {finding.budget.metric: finding.overshoot for finding in result.verdict.structural.findings}
    assert min(missed.values()) > 1
    assert result.binding.budget.metric == max(missed, key=lambda metric: missed[metric])
    assert (tmp_path / "model.onnx").stat().st_size < 0.3 * (tmp_path / "baseline.onnx").stat().st_size


def test_far_less_than_int8_is_met_by_few_values_in_each_layer(networks: ModuleType, tmp_path: Path) -> None:
    budgets = {"latency_ms": "0.7x", "size_mb": "0.12x", "max_accuracy_drop_pp": 1.0}
    result = autocompress(networks.cifar_resnet(56), "local", networks.cifar10(), budgets=budgets, out=tmp_path)
    assert result.status is Status.MET
    assert [step.technique for step in result.plan.steps] == ["int8_static", "palettes"]
    # the recipe's size was predicted before anything was built
    recipe = next(one for one in result.search_space.recipes if one.holds(result.plan))
    _, predicted = recipe.predicted(result.plan)
    assert predicted == pytest.approx(result.stages[-1].size_ratio, rel=0.03)


@pytest.mark.timeout(1200)
def test_values_that_lose_too_much_are_trained(networks: ModuleType, tmp_path: Path) -> None:
    budgets = {"latency_ms": "0.7x", "size_mb": "0.09x", "max_accuracy_drop_pp": 2.5}
    result = autocompress(networks.cifar_resnet(20), "local", networks.cifar10(), budgets=budgets, out=tmp_path)
    assert result.status is Status.MET
    assert result.plan.kind == "int8_static + palette_training"
    lost = [trial for trial in result.history if trial.plan.kind == "int8_static + palettes"]
    # the number of values that fits is the one that was trained
    fitting = {trial.plan.finish[-1].settings["entries"] for trial in lost if "score" in trial.measurement.readings}
    assert fitting == {result.plan.finish[-1].settings["entries"]}
    (recipe,) = (one for one in result.search_space.recipes if one.holds(result.plan))
    assert recipe.seconds_per_step
