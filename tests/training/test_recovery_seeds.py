from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.training import recovery
from autocompress.training.recovery import Files, Watch, recover
from autocompress.training.schedule import Schedule

ITEMS, LENGTH, WIDTH = 32, 6, 16
SCHEDULE = Schedule(steps=10, batch=8, seed=0, learning_rate=0.01, optimizer="adamw")


class Transformer(nn.Module):
    """One encoder layer with dropout; whole items and channels go by chance, as stochastic depth does."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.2, batch_first=True)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(ids)
        if not self.training or random.random() < 0.7:
            hidden = self.layer(hidden)
        if self.training:
            hidden = hidden * float(np.random.uniform(0.8, 1.2))
        return self.head(hidden.mean(1))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(), nn.Linear(8 * 36, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)


class Words:
    """Items whose transform replaces a word at random."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        ids = (torch.arange(LENGTH) * (index + 3)) % 20
        ids[random.randrange(LENGTH)] = int(torch.randint(20, ()))
        ids[np.random.randint(LENGTH)] = 1
        return ids, index % 2


class Images:
    """Items with noise."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.random.standard_normal((3, 8, 8)).astype(np.float32) + index % 2, index % 2


def augment(images: torch.Tensor) -> torch.Tensor:
    noise = torch.from_numpy(np.random.standard_normal(images.shape).astype(np.float32))
    return images * random.uniform(0.5, 1.5) + 0.1 * noise


WORDS = (Transformer, Task(test=Words(), train=Words()), Example((np.zeros((2, LENGTH), np.int64),)))
IMAGES = (
    Convolutions,
    Task(test=Images(), train=Images(), augment=augment),
    Example((np.zeros((2, 3, 8, 8), np.float32),)),
)


def made(kind: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return kind()


@pytest.mark.parametrize(("kind", "task", "example"), [WORDS, IMAGES], ids=["transformer", "convolutions"])
def test_all_that_draws_in_a_training_draws_the_same_again_and_after_a_resumption(
    kind: Callable[[], nn.Module], task: Task, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = made(kind, 0)

    def trained(name: str, stop: int | None = None) -> dict[str, torch.Tensor]:
        def on_step(step: int, _steps: int, _left: float) -> None:
            if step == stop:
                raise KeyboardInterrupt

        # whatever the user drew before
        student = made(kind, 3)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(len(name))
        return recover(
            student, teacher, task, example, SCHEDULE, Files(tmp_path / f"{name}.pt"), Watch(on_step=on_step)
        ).state_dict()

    wanted = trained("whole")
    again = trained("once more")
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained("broken off", stop=5)
    resumed = trained("broken off")
    for found in (again, resumed):
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_users_generators_go_on_as_if_nothing_had_drawn(tmp_path: Path) -> None:
    def drawn(*, trains: bool) -> list[float]:
        student, teacher = made(Transformer, 3), made(Transformer, 0)
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        if trains:
            recover(student, teacher, WORDS[1], WORDS[2], SCHEDULE, Files(tmp_path / "training.pt"))
        return [random.random(), float(np.random.random()), float(torch.rand(()))]

    assert drawn(trains=True) == drawn(trains=False)
