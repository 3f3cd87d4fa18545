"""`autocompress(model, profile, data)` from Python, with every kind of data and of model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import autocompress as package
from autocompress import BudgetsNotMetError, Event, Profile, Result, Status, Task, UndecidedError, autocompress
from e2e.conftest import digits, fit, user_file

PUBLIC = [
    "Aggregate", "Artifact", "AutocompressError", "Budget", "BudgetsNotMetError", "Event", "Finding", "Plan",
    "Profile", "Result",
    "Standing", "Status", "Step", "Task", "TrainingRecipe", "Trial", "UndecidedError", "Verdict", "__version__",
    "autocompress", "load_profile", "resolve",
]  # fmt: skip
ITEMS = 240


class Squares(Dataset[Any]):
    """Images of digits one by one, as lists of numbers would come from files."""

    def __init__(self, count: int) -> None:
        self.images, self.labels = (array[:count] for array in digits("test"))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], int(self.labels[index])


def as_arrays(count: int = ITEMS) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits("test")
    return images[:count], labels[:count]


def as_loader() -> DataLoader[Any]:
    images, labels = as_arrays()
    # shuffled, in batches that do not divide the items: neither may show in the answer
    return DataLoader(TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)), batch_size=7, shuffle=True)


@pytest.fixture(scope="module")
def told() -> list[Event]:
    return []


def keep(module: nn.Module, inputs: Any, output: Any) -> None:
    """A hook of the user's own."""


@pytest.fixture(scope="module")
def model(rows: Callable[[], nn.Module]) -> nn.Module:
    """A trained network in a state that nobody sets by accident."""
    module = rows()
    for part in module.modules():
        part.training = part is not module.body
    next(module.parameters()).requires_grad_(False)
    module.head.register_forward_hook(keep)
    return module


@pytest.fixture(scope="module")
def from_arrays(
    model: nn.Module, small: Profile, told: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> Result:
    return autocompress(model, small, as_arrays(), out=tmp_path_factory.mktemp("arrays"), progress=told.append)


@pytest.fixture(scope="module")
def alone(rows: Callable[[], nn.Module], small: Profile, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return autocompress(rows(), small, inputs="1x1x8x8:float32", out=tmp_path_factory.mktemp("alone"))


def test_arrays_give_an_artifact_that_keeps_its_budgets(from_arrays: Result) -> None:
    assert from_arrays.status is Status.MET
    assert from_arrays.met
    artifact = from_arrays.unwrap()
    assert artifact == from_arrays.artifact
    assert artifact.path == from_arrays.folder / "model.onnx"
    assert artifact.size_bytes < 0.5 * from_arrays.baseline.size_bytes
    drop = from_arrays.verdict.of("max_accuracy_drop_pp")
    assert drop is not None
    # two thirds confirm; a hash divides them, so not exactly
    assert 0.55 * ITEMS < drop.samples < 0.75 * ITEMS


def test_all_trials_are_a_frame(from_arrays: Result) -> None:
    frame = from_arrays.trials
    assert isinstance(frame, pd.DataFrame)
    assert list(frame["plan_hash"]) == [trial.plan.hash for trial in from_arrays.history]
    assert from_arrays.plan.hash in set(frame["plan_hash"])
    assert (frame["size_ratio"] < 0.5).all()


def test_a_loader_of_the_same_items_gives_the_same_answer(
    rows: Callable[[], nn.Module], small: Profile, from_arrays: Result, tmp_path: Path
) -> None:
    result = autocompress(rows(), small, as_loader(), out=tmp_path)
    assert result.status is from_arrays.status
    assert result.artifact is not None
    assert from_arrays.artifact is not None
    assert result.artifact.hash == from_arrays.artifact.hash
    assert [stage.score for stage in result.stages] == [stage.score for stage in from_arrays.stages]
    assert result.verdict.of("max_accuracy_drop_pp") == from_arrays.verdict.of("max_accuracy_drop_pp")


def test_in_a_dict_of_parts_val_selects_and_all_of_a_test_dataset_confirms(
    rows: Callable[[], nn.Module], small: Profile, tmp_path: Path
) -> None:
    images, labels = digits("train")
    data = {"test": Squares(ITEMS), "val": (images[:90], labels[:90])}
    result = autocompress(rows(), small, data, out=tmp_path, resume=True)
    drop = result.verdict.of("max_accuracy_drop_pp")
    assert drop is not None
    assert drop.samples == ITEMS
    assert "selects: 90 items (val)" in result.data
    tested, wanted = as_arrays()
    with torch.no_grad():
        answers = rows()(torch.from_numpy(tested)).argmax(1).numpy()
    assert result.stages[0].score == pytest.approx((answers == wanted).mean())


def test_the_model_is_left_as_it_was(from_arrays: Result, model: nn.Module, rows: Callable[[], nn.Module]) -> None:
    assert from_arrays.met
    before = rows().state_dict()
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == [part is not model.body for part in model.modules()]
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(before) - 1)
    assert all(parameter.grad is None for parameter in model.parameters())
    for part in model.modules():
        assert list(part._forward_hooks.values()) == ([keep] if part is model.head else [])
        assert not part._forward_pre_hooks
        assert not part._backward_hooks


def test_progress_is_told_stage_by_stage(from_arrays: Result, told: list[Event]) -> None:
    assert from_arrays.met
    assert all(isinstance(event, Event) and event.sentence for event in told)
    stages = list(dict.fromkeys(event.stage for event in told))
    assert stages[0] == "baseline"
    assert set(stages) <= {"baseline", "facts", "probes", "space", "search", "confirm"}
    assert stages[-3:] == ["space", "search", "confirm"]
    searched = [event for event in told if event.stage == "search"]
    assert all(event.total and event.done is not None and event.done < event.total for event in searched)


def test_a_dict_of_inputs_goes_to_the_model_by_name(work: Path, small: Profile, tmp_path: Path) -> None:
    named, inputs, labels = _two_inputs(work, "Named")
    result = autocompress(named, small, (inputs, labels), out=tmp_path)
    assert result.met
    assert {spec.name for spec in result.unwrap().inputs} == {"signal", "weight"}
    assert result.stages[0].score == 1.0


def test_two_inputs_go_to_the_model_in_order(work: Path, small: Profile, tmp_path: Path) -> None:
    pair, inputs, labels = _two_inputs(work, "Pair")
    result = autocompress(pair, small, (tuple(inputs.values()), labels), out=tmp_path)
    assert result.met
    assert len(result.unwrap().inputs) == 2
    assert result.stages[0].score == 1.0


def _two_inputs(work: Path, name: str) -> tuple[nn.Module, dict[str, np.ndarray], np.ndarray]:
    """A network with labels that it answers right, each and every one."""
    torch.manual_seed(3)
    module = getattr(user_file(work), name)().eval()
    generator = np.random.default_rng(3)
    inputs = {
        "signal": generator.standard_normal((ITEMS, 4, 16)).astype(np.float32),
        "weight": generator.random((ITEMS, 16)).astype(np.float32),
    }
    with torch.no_grad():
        answers = module(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    return module, inputs, (answers["logits"] if isinstance(answers, dict) else answers).argmax(1).numpy()


def test_a_score_of_ones_own_is_used(rows: Callable[[], nn.Module], small: Profile, tmp_path: Path) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def margin(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        seen.append((outputs.shape, targets.shape))
        return outputs[np.arange(len(targets)), targets] - outputs.mean(1)

    task = Task(test=as_arrays(), score=margin)
    result = autocompress(
        rows(), Profile("margin", protocol=small.protocol), task, out=tmp_path,
        budgets={"size_mb": "0.5x", "max_score_drop": 2.0},
    )  # fmt: skip
    assert result.met
    drop = result.verdict.of("max_score_drop")
    assert drop is not None
    assert drop.value != 0.0
    assert all(outputs == (targets[0], 10) for outputs, targets in seen)
    part = task.holdout
    assert part is not None
    (images,), labels = part.source.read([int(i) for i in part.indices])
    with torch.no_grad():
        logits = rows()(torch.from_numpy(images)).numpy()
    assert result.stages[0].score == pytest.approx(margin(logits, labels).mean(), rel=1e-4)


def test_a_model_and_a_profile_alone_stay_undecided(alone: Result) -> None:
    assert alone.status is Status.UNDECIDED
    assert not alone.met
    assert alone.binding is not None
    assert alone.binding.budget.metric == "max_accuracy_drop_pp"
    assert "int8_dynamic" in {recipe.name for recipe in alone.search_space.recipes}
    assert "int8_static" in alone.search_space.refusals
    assert [stage.score for stage in alone.stages] == [None, None]
    with pytest.raises(UndecidedError, match="max_accuracy_drop_pp"):
        alone.unwrap()


def test_unwrap_raises_with_the_budget_in_the_way(
    rows: Callable[[], nn.Module], small: Profile, tmp_path: Path
) -> None:
    result = autocompress(rows(), small, as_arrays(), out=tmp_path, budgets={"size_mb": "0.01x"})
    assert result.status is Status.NOT_MET
    assert result.artifact is not None
    assert result.artifact.path.exists()
    with pytest.raises(BudgetsNotMetError, match=r"size_mb: .* at most 0\.01x") as raised:
        result.unwrap()
    assert raised.value.exit_code == 1


def test_a_trained_lstm_is_halved_by_dynamic_int8(work: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    sequences = generator.standard_normal((1600, 12, 8)).astype(np.float32)
    # whose of four channels sums to the most: the network has to remember all steps
    labels = sequences[:, :, :4].sum(1).argmax(1)
    model = fit(user_file(work).Memory(), sequences[:1000], labels[:1000], epochs=8)
    profile = Profile("lstm", protocol=package.load_profile(work / "small.yaml").protocol)
    result = autocompress(
        model, profile, (sequences[1000:], labels[1000:]), out=tmp_path,
        budgets={"size_mb": "0.5x", "max_accuracy_drop_pp": 5},
    )  # fmt: skip
    assert result.met, str(result)
    assert [step.technique for step in result.plan.steps] == ["int8_dynamic"]
    assert result.stages[0].score is not None
    assert result.stages[0].score > 0.6
    shipped = result.unwrap()
    assert shipped.size_bytes <= 0.5 * result.baseline.size_bytes
    session = onnxruntime.InferenceSession(str(shipped.path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {shipped.inputs[0].name: sequences[1000:]})
    assert (logits.argmax(1) == labels[1000:]).mean() > 0.6


def test_importing_the_package_imports_no_heavy_library() -> None:
    heavy = ("torch", "onnxruntime", "onnx", "numpy", "pandas", "scipy", "optuna", "matplotlib", "pydantic")
    script = f"import sys, autocompress; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_surface_is_exact() -> None:
    assert sorted(package.__all__) == PUBLIC
    assert dir(package) == PUBLIC
    for name in PUBLIC:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="compress_it"):
        _ = package.compress_it
