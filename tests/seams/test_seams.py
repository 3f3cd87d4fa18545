"""What is added from outside is tried by a run and shown in its report, and no other file knows of it.

Each toy is one file (the runtime two: its own and one for the meter). Adding it touches one line more: the tuple that
these tests extend. ARCHITECTURE.md has the table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress import Task, autocompress, devices, load_profile, resolve, runtimes, techniques
from autocompress.core.plan import Effort, Stage
from autocompress.core.profile import DeviceProfile, Protocol, RuntimeProfile
from autocompress.core.trial import Outcome
from autocompress.data.data_spec import load_data
from autocompress.errors import PlanError, ProfileError
from autocompress.planner.tree import require_reachable
from autocompress.run.result import Result
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.fakes import Scripted, Variant
from seams.toy_device import ToyDevice
from seams.toy_faults import ToyFaults
from seams.toy_packing import ToyPacking
from seams.toy_runtime import ToyRuntime
from seams.toy_structure import ToyLowRank

ROOT = Path(__file__).resolve().parents[2]
# what times come to is not what these tests are about
BRIEF = replace(load_profile("local"), protocol=Protocol(max_seconds=0.3, precision=0.5), budgets=())


@pytest.fixture(scope="module")
def module() -> nn.Module:
    """Wide linear layers of low rank, trained a little on digits."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    (images,), labels = load_data("digits").train.read(range(800))
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        optimizer.step()
    return made.eval()


def tried_in(result: Result, technique: str) -> list[str]:
    """Names of the plans with this technique that were built and measured."""
    ended = (Outcome.MEASURED, Outcome.STOPPED)
    trials = [trial for trial in result.history if trial.outcome in ended]
    return [
        result.names[trial.plan.hash] for trial in trials if technique in {step.technique for step in trial.plan.steps}
    ]


def report_of(result: Result) -> str:
    return (result.folder / "report.html").read_text(encoding="utf-8")


def known_to(word: str) -> list[str]:
    """Files of the package and its profiles that hold a word."""
    files = [*(ROOT / "autocompress").rglob("*.py"), *(ROOT / "profiles").glob("*.yaml")]
    return [str(path) for path in files if word in path.read_text(encoding="utf-8")]


def test_a_structure_technique_is_weighed_searched_and_shown(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(techniques, "TECHNIQUES", (*techniques.TECHNIQUES, ToyLowRank))
    budgets = {"size_mb": "0.14x", "max_accuracy_drop_pp": 30.0}
    # without training data, and not done with the first answer: every path is tried
    task = Task(test=load_data("digits").test)
    result = autocompress(module, BRIEF, task, budgets=budgets, objective="size", out=tmp_path)
    assert any("factored" in name for name in tried_in(result, ToyLowRank.name))
    # its own path, and one together with the technique that narrows
    recipes = {recipe.name.partition(" + ")[0] for recipe in result.search_space.recipes}
    assert {"rank", "width and rank"} <= recipes
    assert "layers factored" in report_of(result)
    assert result.met, str(result)
    assert known_to("toy") == known_to("ToyLowRank") == []


def test_a_finishing_technique_stands_alone_and_after_quantization(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(techniques, "TECHNIQUES", (*techniques.TECHNIQUES, ToyPacking))
    # below what int8 leaves, so that everything is tried
    budgets = {"size_mb": "0.001x"}
    result = autocompress(module, BRIEF, load_data("digits"), budgets=budgets, out=tmp_path)
    names = {recipe.name for recipe in result.search_space.recipes}
    assert {"toy_packing", "int8_static + toy_packing"} <= names
    tried = tried_in(result, ToyPacking.name)
    assert "packed" in tried
    # which types are fastest here stands in brackets; where a tensor has one scale the toy saves nothing
    assert any(name.startswith(("int8", "dynamic int8")) and name.endswith(", packed") for name in tried)
    assert "packed" in report_of(result)


def test_a_runtime_exports_measures_scores_and_names_its_files(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "RUNTIMES", (*runtimes.RUNTIMES, ToyRuntime))
    profile = replace(BRIEF, runtime=RuntimeProfile(ToyRuntime.name))
    budgets = {"size_mb": "0.4x", "max_accuracy_drop_pp": 30.0}
    result = autocompress(module, profile, load_data("digits"), budgets=budgets, out=tmp_path)
    assert result.met, str(result)
    assert result.artifact is not None
    assert result.artifact.path == tmp_path / "model.toy"
    assert (tmp_path / "baseline.toy").read_bytes().startswith(b"TOY!")
    conditions = result.measurement.conditions
    assert conditions is not None
    assert (conditions.runtime, conditions.versions["toy_runtime"]) == ("toy_runtime", "1")
    # what cannot change its files says so, and structure goes on
    assert result.search_space.refusals["int8_static"].sentence == "cannot change toy files."
    assert "toy_runtime" in report_of(result)
    assert list(tmp_path.rglob("*.onnx")) == []
    again = resolve(tmp_path, budgets={"size_mb": "0.9x"}, data=load_data("digits"))
    assert again.met, str(again)
    assert again.artifact is not None
    assert again.artifact.entry == "model.toy"


def test_a_device_is_reached_by_the_profile_and_named_in_the_report(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "DEVICES", (*devices.DEVICES, ToyDevice))
    profile = replace(BRIEF, device=DeviceProfile(connection="toy://bench 7"))
    result = autocompress(module, profile, load_data("digits"), budgets={"size_mb": "0.5x"}, out=tmp_path)
    assert result.met
    assert result.machine.startswith("bench 7")
    assert "bench 7" in report_of(result)


def test_what_no_profile_can_mean_is_an_error_that_says_what_there_is(module: nn.Module, tmp_path: Path) -> None:
    for profile in (
        replace(BRIEF, runtime=RuntimeProfile("onnxruntim")),
        replace(BRIEF, device=DeviceProfile(connection="lokal")),
    ):
        with pytest.raises(ProfileError) as caught:
            autocompress(module, profile, budgets={"size_mb": "0.5x"}, inputs="1x1x8x8", out=tmp_path / "run")
        assert "Did you mean" in caught.value.hint
    assert not (tmp_path / "run").exists()


class Unreached(Scripted):
    """Says that it acts on weights, where no recipe has a place for it."""

    stage = Stage.WEIGHTS


def test_a_technique_that_no_recipe_reaches_is_an_error_at_the_start() -> None:
    unreached = Unreached("unreached", {"only": Variant()}, Effort.NONE)
    with pytest.raises(PlanError, match="no recipe tries") as caught:
        require_reachable([unreached])
    assert caught.value.where == "unreached"
    scripted = Scripted("scripted", {"only": Variant()})
    with pytest.raises(PlanError, match="twice"):
        require_reachable([scripted, scripted])
    require_reachable([technique() for technique in techniques.TECHNIQUES])


class Crashing(OnnxRuntime):
    """ONNX Runtime whose measuring process is killed by one of the files."""

    meter_backend = Path(__file__).with_name("crashing_backend.py")


def test_every_failure_ends_its_trial_and_the_run_answers_with_another_plan(
    module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(techniques, "TECHNIQUES", (ToyFaults,))
    monkeypatch.setattr(runtimes, "RUNTIMES", (Crashing,))
    budgets = {"size_mb": "0.6x", "max_accuracy_drop_pp": 30.0}
    result = autocompress(module, BRIEF, load_data("digits"), budgets=budgets, out=tmp_path)
    assert result.met, str(result)
    assert result.plan_name == "fault none"
    frame = result.trials
    reasons = dict(zip(frame["name"], frame["reason"], strict=True))
    for fault, said in {
        "session": "InvalidProtobuf",
        "inference": "InferenceError: the shapes contradict each other",
        "checker": "ValidationError",
        "memory": "MemoryError",
        "torch": "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        "defect": "AttributeError",
        "refused": "model.onnx",
        "nan": "not finite",
        "crash": "the measuring process died (signal 9)",
        "shape": "classes",
    }.items():
        assert said in reasons[f"fault {fault}"], reasons[f"fault {fault}"]
    assert list(frame["outcome"]) == ["failed"] * 10 + ["measured"]
    table = (tmp_path / "trials.csv").read_text(encoding="utf-8")
    assert "InferenceError: the shapes contradict each other" in table
    assert "the measuring process died (signal 9)" in report_of(result)
    assert "no_such_attribute" in (tmp_path / "failures.log").read_text(encoding="utf-8")
