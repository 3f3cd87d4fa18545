from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.data.copies import with_own_weights, with_shared_weights
from autocompress.data.output_recognition import with_kinds
from autocompress.errors import TechniqueError
from autocompress.pruning.blocks import drop_blocks, droppable_blocks
from autocompress.training import recovery
from autocompress.training.batch_norm import reestimate_batch_norm
from autocompress.training.recovery import Files, Watch, recover
from autocompress.training.schedule import Schedule

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
    trained = recover(network(32, 2), untrained, TASK, EXAMPLE, hard, Files(folder / "training.pt"))
    assert accuracy(trained) > 0.95
    return trained


def test_a_student_learns_from_its_teacher(teacher: nn.Module, tmp_path: Path) -> None:
    student = network(8, 3)
    before = accuracy(student)
    after = accuracy(recover(student, teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "training.pt")))
    assert after > 0.9 > before


def test_the_same_schedule_gives_the_same_weights(teacher: nn.Module, tmp_path: Path) -> None:
    states = [
        recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / f"{name}.pt")).state_dict()
        for name in "ab"
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_recovery_that_was_broken_off_goes_on_to_the_same_weights(
    teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "whole.pt")).state_dict()
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)

    def stop_in_the_middle(step: int, _steps: int, _left: float) -> None:
        if step == 25:
            raise KeyboardInterrupt

    broken = Files(tmp_path / "broken.pt")
    with pytest.raises(KeyboardInterrupt):
        recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, broken, Watch(on_step=stop_in_the_middle))
    steps: list[int] = []
    # other initial weights: everything has to come from the checkpoint
    found = recover(
        network(8, 9), teacher, TASK, EXAMPLE, SCHEDULE, broken, Watch(on_step=lambda step, *_: steps.append(step))
    ).state_dict()
    assert steps[0] == 26
    assert all(torch.equal(found[name], whole_run[name]) for name in whole_run)


def test_dropout_draws_the_same_whatever_was_drawn_before_and_after_a_resumption(
    teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropping() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2))

    wanted = recover(dropping(), teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "whole.pt")).state_dict()
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)

    def stop_in_the_middle(step: int, _steps: int, _left: float) -> None:
        if step == 25:
            raise KeyboardInterrupt

    broken = Files(tmp_path / "broken.pt")
    with pytest.raises(KeyboardInterrupt):
        recover(dropping(), teacher, TASK, EXAMPLE, SCHEDULE, broken, Watch(on_step=stop_in_the_middle))
    student = dropping()
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    found = recover(student, teacher, TASK, EXAMPLE, SCHEDULE, broken).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_teacher_and_the_original_stay_as_they_are(teacher: nn.Module, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = with_own_weights(with_shared_weights(teacher))
    recover(student, teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "training.pt"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_a_loss_that_explodes_is_a_technique_error(teacher: nn.Module, tmp_path: Path) -> None:
    task = Task(test=TASK.test, train=TASK.train, loss=lambda outputs, _targets: outputs.sum() * float("nan"))
    with pytest.raises(TechniqueError, match="no longer finite at step 1"):
        recover(network(8, 3), teacher, task, EXAMPLE, SCHEDULE, Files(tmp_path / "training.pt"))


def test_without_training_data_there_is_nothing_to_train_on(teacher: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(TechniqueError, match="needs training data"):
        recover(network(8, 3), teacher, Task(test=TASK.test), EXAMPLE, SCHEDULE, Files(tmp_path / "training.pt"))


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [SCHEDULE.learning_rate_at(step) for step in range(SCHEDULE.steps)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(SCHEDULE.learning_rate)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01 * SCHEDULE.learning_rate


def test_answers_that_were_kept_teach_the_same_as_fresh_ones(teacher: nn.Module, tmp_path: Path) -> None:
    # with the kinds known, the teacher is asked for answers alone
    example = with_kinds(EXAMPLE, teacher, TASK)
    bank = replace(SCHEDULE, views=2)
    answers = tmp_path / "answers.pt"
    fresh = recover(network(8, 3), teacher, TASK, example, bank, Files(tmp_path / "a.pt")).state_dict()
    asked: list[object] = []
    handle = teacher.register_forward_hook(lambda *_: asked.append(1))
    kept = recover(network(8, 3), teacher, TASK, example, bank, Files(tmp_path / "b.pt", answers)).state_dict()
    first = len(asked)
    again = recover(network(8, 3), teacher, TASK, example, bank, Files(tmp_path / "c.pt", answers)).state_dict()
    handle.remove()
    # two views of eight batches, then nothing new
    assert (first, len(asked)) == (16, 16)
    assert all(torch.equal(fresh[name], kept[name]) and torch.equal(fresh[name], again[name]) for name in fresh)


def test_of_the_averages_on_the_way_the_one_that_does_best_on_the_validation_data_is_kept(
    teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[float, torch.Tensor]] = []

    def watched(module: nn.Module, *_: object, **__: object) -> float:
        # the third of eight is called the best
        judged.append((1.0 if len(judged) == 2 else 0.5, module[0].weight.detach().clone()))
        return judged[-1][0]

    monkeypatch.setattr(recovery, "score_module", watched)
    kept = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "training.pt"))
    assert len(judged) == 8
    assert torch.equal(kept[0].weight, judged[2][1])
    assert not torch.equal(kept[0].weight, judged[-1][1])


def test_blocks_that_remain_are_led_to_the_outputs_of_the_originals(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = Stacked().eval()
    started = [with_own_weights(with_shared_weights(original)) for _ in range(2)]
    for student in started:
        drop_blocks(student, ["blocks.1"], droppable_blocks(student, EXAMPLE))
    schedules = [replace(SCHEDULE, feature_weight=weight) for weight in (0.0, 20.0)]
    far, near = (
        recover(student, original, TASK, EXAMPLE, schedule, Files(tmp_path / f"{schedule.feature_weight}.pt"))
        for student, schedule in zip(started, schedules, strict=True)
    )
    items = torch.from_numpy(TASK.test.read(range(ITEMS))[0][0])
    with torch.no_grad():
        wanted = original.blocks(items)
        distances = [float((module.blocks(items) - wanted).square().mean()) for module in (far, near)]
    assert distances[1] < 0.8 * distances[0]
    assert not original._forward_hooks


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Branch(), Branch(), Branch())
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))


def test_batch_norm_statistics_become_those_of_the_data() -> None:
    module = nn.Sequential(nn.BatchNorm1d(6))
    module[0].running_mean.fill_(5.0)
    reestimate_batch_norm(module, whole("train", TASK.train), EXAMPLE, batch=64)
    inputs, _ = TASK.train.read(range(ITEMS))
    np.testing.assert_allclose(module[0].running_mean.numpy(), inputs[0].mean(0), atol=0.02)
    assert module[0].momentum == 0.1
    assert not module.training


def test_batch_norm_statistics_do_not_depend_on_chance() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        reestimate_batch_norm(module, whole("train", TASK.train), EXAMPLE, batch=64)
        found.append(module[1].running_var.clone())
    assert torch.equal(*found)
    inputs, _ = TASK.train.read(range(ITEMS))
    # of what comes in where nothing is left out, as in use
    np.testing.assert_allclose(found[0].numpy(), inputs[0].var(0), rtol=0.1)


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
    whole_run = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "whole.pt")).state_dict()
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)
    damaged = tmp_path / "training.pt"
    recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, Files(damaged))
    damage(damaged)
    with pytest.warns(UserWarning, match=r"training\.pt cannot be used .*afresh"):
        again = recover(network(8, 3), teacher, TASK, EXAMPLE, SCHEDULE, Files(damaged)).state_dict()
    assert all(torch.equal(whole_run[name], again[name]) for name in whole_run)


class TwoHeads(nn.Module):
    """Classes and a place, in a dict."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU())
        self.kinds, self.place = nn.Linear(width, 2), nn.Linear(width, 3)

    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.body(values)
        return {"logits": self.kinds(hidden), "place": 100.0 * self.place(hidden)}


@pytest.mark.parametrize("with_loss", [True, False])
def test_all_heads_learn_from_the_teacher(tmp_path: Path, with_loss: bool) -> None:
    inputs, labels = TASK.test.read(range(ITEMS))
    targets = {"kinds": labels, "places": inputs[0][:, :3]}
    told: list[set[str]] = []

    def score(outputs: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> np.ndarray:
        told.append({*outputs, *targets})
        return (outputs["logits"].argmax(1) == targets["kinds"]).astype(float)

    def loss(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs["logits"], targets["kinds"]) + 0.0 * outputs["place"].mean()

    data = (inputs[0].astype(np.float16), targets)
    task = Task(test=data, train=data, score=score, loss=loss if with_loss else None)
    teacher, student = TwoHeads(32, 1).eval(), TwoHeads(16, 3)

    def distances(student: nn.Module) -> dict[str, float]:
        wanted, found = (module(torch.from_numpy(inputs[0])) for module in (teacher, student))
        # what is added to the logits of all classes changes no probability
        apart = {"place": found["place"] - wanted["place"]}
        apart["logits"] = found["logits"].log_softmax(1) - wanted["logits"].log_softmax(1)
        return {name: gap.detach().square().mean().item() for name, gap in apart.items()}

    before = distances(student.eval())
    schedule = replace(SCHEDULE, views=2, steps=120, learning_rate=0.02, soft_weight=1.0 if with_loss else 0.9)
    files = Files(tmp_path / "training.pt", tmp_path / "answers.pt")
    trained = recover(student, teacher, task, EXAMPLE, schedule, files)
    assert told[0] == {"logits", "place", "kinds", "places"}
    after = distances(trained)
    assert all(after[name] < 0.2 * before[name] for name in after)


def test_frozen_weights_are_trained_but_not_in_layers_left_alone(teacher: nn.Module, tmp_path: Path) -> None:
    student = network(8, 3).requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    brief = replace(SCHEDULE, steps=4)
    trained = recover(student, teacher, TASK, EXAMPLE, brief, Files(tmp_path / "all.pt")).state_dict()
    assert all(not torch.equal(trained[name], before[name]) for name in ("0.weight", "1.bias", "3.weight"))
    partly = network(8, 3).requires_grad_(requires_grad=False)
    partly[1].requires_grad_(requires_grad=True)
    spared = replace(brief, frozen=("0", "1"))
    trained = recover(partly, teacher, TASK, EXAMPLE, spared, Files(tmp_path / "partly.pt")).state_dict()
    # what is left alone stays frozen where it is frozen, and is trained where it is not
    assert torch.equal(trained["0.weight"], before["0.weight"])
    assert not any(torch.equal(trained[name], before[name]) for name in ("1.bias", "3.weight"))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    student = with_own_weights(with_shared_weights(model))
    before = model[0].weight.detach().clone()
    trained = recover(student, model, TASK, EXAMPLE, replace(SCHEDULE, steps=4), Files(tmp_path / "training.pt"))
    assert trained[2].weight is trained[0].weight
    assert not torch.equal(trained[0].weight, before)
    assert model[2].weight is model[0].weight
    assert torch.equal(model[0].weight, before)


def test_a_student_learns_tokens_without_those_whose_label_is_ignored(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.standard_normal((ITEMS, 4, 6)).astype(np.float32)
    labels = (inputs[..., 0] > 0).astype(np.int64)
    # the second half of each item is padding, and some items for training are padding alone
    labels[:, 2:] = -100
    train = labels.copy()
    train[:40] = -100
    task = Task(test=(inputs, labels), train=(inputs, train), score="token_accuracy")
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)) for _ in range(2))
    hard = replace(SCHEDULE, steps=80, soft_weight=0.0, batch=8)
    trained = recover(student, teacher, task, Example((inputs[:2],)), hard, Files(tmp_path / "training.pt"))
    with torch.no_grad():
        found = trained(torch.from_numpy(inputs)).numpy()
    assert task.scores(found, labels).mean() > 0.9
