from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress import recovery
from autocompress.blocks import with_own_weights, with_shared_weights
from autocompress.errors import TechniqueError
from autocompress.recovery import Batches, Schedule, recover, reestimate_batch_norm
from autocompress.runtime import Example
from autocompress.source import whole
from autocompress.task import Task

ITEMS = 256


def make_task() -> Task:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((ITEMS, 6)).astype(np.float32)
    labels = (inputs[:, 0] + inputs[:, 1] > 0).astype(np.int64)
    return Task(test=(inputs, labels), train=(inputs, labels))


TASK = make_task()
EXAMPLE = Example((np.zeros((2, 6), np.float32),))
SCHEDULE = Schedule(steps=60, batch=32, seed=0, learning_rate=0.1)


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))


def accuracy(module: nn.Module) -> float:
    inputs, labels = TASK.test.read(range(ITEMS))
    with torch.no_grad():
        found = module.eval()(torch.from_numpy(inputs[0])).numpy().argmax(1)
    return float((found == labels).mean())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    untrained = network(32, 1)
    folder = tmp_path_factory.mktemp("teacher")
    hard = Schedule(steps=200, batch=32, seed=1, learning_rate=0.1, soft_weight=0.0)
    trained = recover(network(32, 2), untrained, TASK, EXAMPLE, hard, folder / "training.pt")
    assert accuracy(trained) > 0.95
    return trained


def test_a_student_learns_from_its_teacher(teacher: nn.Module, tmp_path: Path) -> None:
    student = network(8, 3)
    before = accuracy(student)
    after = accuracy(recover(student, teacher, TASK, EXAMPLE, SCHEDULE, tmp_path / "training.pt"))
    assert after > 0.9 > before


def test_the_same_schedule_gives_the_same_weights(teacher: nn.Module, tmp_path: Path) -> None:
    states = [
        recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, tmp_path / f"{name}.pt").state_dict() for name in "ab"
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_recovery_that_was_broken_off_goes_on_to_the_same_weights(
    teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, tmp_path / "whole.pt").state_dict()
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)

    def stop_in_the_middle(step: int, _steps: int, _left: float) -> None:
        if step == 25:
            raise KeyboardInterrupt

    broken = tmp_path / "broken.pt"
    with pytest.raises(KeyboardInterrupt):
        recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, broken, stop_in_the_middle)
    steps: list[int] = []
    # other initial weights: everything has to come from the checkpoint
    found = recover(
        network(8, 9), teacher, TASK, EXAMPLE, SCHEDULE, broken, lambda step, _steps, _left: steps.append(step)
    ).state_dict()
    assert steps[0] == 26
    assert all(torch.equal(found[name], whole_run[name]) for name in whole_run)


def test_the_teacher_and_the_original_stay_as_they_are(teacher: nn.Module, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = with_own_weights(with_shared_weights(teacher))
    recover(student, teacher, TASK, EXAMPLE, SCHEDULE, tmp_path / "training.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_loss_that_explodes_is_a_technique_error(teacher: nn.Module, tmp_path: Path) -> None:
    task = Task(test=TASK.test, train=TASK.train, loss=lambda outputs, _targets: outputs.sum() * float("nan"))
    with pytest.raises(TechniqueError, match="no longer finite at step 0"):
        recover(network(8, 3), teacher, task, EXAMPLE, SCHEDULE, tmp_path / "training.pt")


def test_without_training_data_there_is_nothing_to_train_on(teacher: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(TechniqueError, match="needs training data"):
        recover(network(8, 3), teacher, Task(test=TASK.test), EXAMPLE, SCHEDULE, tmp_path / "training.pt")


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [SCHEDULE.learning_rate_at(step) for step in range(SCHEDULE.steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(SCHEDULE.learning_rate)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01 * SCHEDULE.learning_rate


def test_an_epoch_of_batches_holds_every_item_once() -> None:
    batches = Batches(whole("train", TASK.train), EXAMPLE, seed=0)
    rows = torch.cat([batches.at(step, 32)[0]["input"] for step in range(ITEMS // 32)])
    inputs, _ = TASK.train.read(range(ITEMS))
    assert torch.equal(
        rows[rows[:, 0].argsort()], torch.from_numpy(inputs[0])[torch.from_numpy(inputs[0])[:, 0].argsort()]
    )


def test_batch_norm_statistics_become_those_of_the_data() -> None:
    module = nn.Sequential(nn.BatchNorm1d(6))
    module[0].running_mean.fill_(5.0)
    reestimate_batch_norm(module, whole("train", TASK.train), EXAMPLE, batch=64)
    inputs, _ = TASK.train.read(range(ITEMS))
    np.testing.assert_allclose(module[0].running_mean.numpy(), inputs[0].mean(0), atol=0.02)
    assert module[0].momentum == 0.1
    assert not module.training


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(b"no checkpoint " * 100)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _another_network(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    for key in ("student", "average"):
        content[key] = network(12, 3).state_dict()
    torch.save(content, path)


def _without_step(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["step"]
    torch.save(content, path)


def _another_optimizer(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["optimizer"]["param_groups"] = []
    torch.save(content, path)


def _text(path: Path) -> None:
    torch.save("no checkpoint", path)


@pytest.mark.parametrize(
    "damage", [_truncated, _garbage, _empty, _another_network, _without_step, _another_optimizer, _text]
)
def test_a_checkpoint_that_cannot_be_used_costs_time_and_nothing_else(
    teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    whole_run = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, tmp_path / "whole.pt").state_dict()
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)
    damaged = tmp_path / "training.pt"
    recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, damaged)
    damage(damaged)
    with pytest.warns(UserWarning, match=r"training\.pt cannot be used .*afresh"):
        again = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, damaged).state_dict()
    assert all(torch.equal(whole_run[name], again[name]) for name in whole_run)
