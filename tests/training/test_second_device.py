"""Training has all its tensors on the device that trains, shown on a stand-in for a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from training.second_device import PLACE, Second, SecondDevice

from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.training import gradients, recovery
from autocompress.training.recovery import Files, recover
from autocompress.training.schedule import Schedule

INPUTS = np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32)
LABELS = (INPUTS.mean((1, 2, 3)) > 0).astype(np.int64)
TASK = Task(test=(INPUTS, LABELS), train=(INPUTS, LABELS))


class Sees(nn.Module):
    """Notes whether training gives it tensors of the second device."""

    there: ClassVar[set[bool]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            Sees.there.add(isinstance(x, Second))
        return x


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(body, Sees(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_the_stand_in_refuses_tensors_of_both_devices() -> None:
    with SecondDevice():
        there = torch.ones(3).to(PLACE)
        assert isinstance(there, Second)
        assert there.device == PLACE
        assert torch.equal((there + there).cpu(), torch.full((3,), 2.0))
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)


@pytest.mark.parametrize("micro_batches", [(), ((0, 8),)])
def test_a_training_on_another_device_mixes_no_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batches: tuple[tuple[int, int], ...]
) -> None:
    monkeypatch.setattr(recovery, "training_place", lambda: PLACE)
    for module in (recovery, gradients):
        monkeypatch.setattr(module, "autocast", lambda place: nullcontext())
    Sees.there.clear()
    original = network(1).eval()
    before = network(3)
    schedule = Schedule(8, 32, 0, 0.05, views=2, micro_batches=micro_batches)
    files = Files(tmp_path / "training.pt", tmp_path / "answers.pt")
    with SecondDevice():
        found = recover(network(3), original, TASK, Example((INPUTS[:2],)), schedule, files)
    assert Sees.there == {True}
    assert all(not isinstance(tensor, Second) for tensor in found.state_dict().values())
    assert not torch.equal(found[4].weight, before[4].weight)
    assert not any(isinstance(parameter, Second) for parameter in original.parameters())
