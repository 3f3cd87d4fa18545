"""Training that is changed on the way to fit time and memory, and that gives the same weights again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.errors import PlanError, TechniqueError
from autocompress.training import recovery
from autocompress.training.memory import is_out_of_memory, parts_of
from autocompress.training.pace import Pace
from autocompress.training.recovery import Files, Watch, recover
from autocompress.training.schedule import Schedule, changes_text, parse_changes

ITEMS = 256
SCHEDULE = Schedule(steps=60, batch=32, seed=0, learning_rate=0.1)
EXAMPLE = Example((np.zeros((2, 6), np.float32),))


def make_task() -> Task:
    inputs = np.random.default_rng(0).standard_normal((ITEMS, 6)).astype(np.float32)
    labels = (inputs[:, 0] + inputs[:, 1] > 0).astype(np.int64)
    return Task(test=(inputs, labels), train=(inputs, labels))


TASK = make_task()


class Limited(nn.Module):
    """Runs out of memory, as `error` says, where a training batch has more than `most` items."""

    def __init__(self, most: int, error: Callable[[], BaseException], *, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.ReLU(), nn.Linear(8, 2))
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.body(x)
        if self.training:
            self.sizes.append(len(x))
            if len(x) > self.most:
                raise self.error()
        return found


def teacher() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2)).eval()


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.state_dict())


def equal(one: nn.Module, other: nn.Module) -> bool:
    states = state_of(one), state_of(other)
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


ERRORS = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError,
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_batch_that_does_not_fit_into_memory_is_trained_in_parts_of_it(
    tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    brief = replace(SCHEDULE, steps=6)
    student, told, found = Limited(10, error), [], []
    recover(
        student,
        teacher(),
        TASK,
        EXAMPLE,
        brief,
        Files(tmp_path / "a.pt"),
        Watch(adapted=found.append, tell=told.append),
    )
    assert found[-1].micro_batches == ((0, 8),)
    assert student.sizes[:3] == [32, 16, 8]
    # the batch of a step and the number of steps stay
    assert student.sizes[2:] == [8] * (4 * 6)
    assert "gradients of 8 items at a time" in told[-1]


def test_parts_of_a_batch_teach_what_the_whole_does(tmp_path: Path) -> None:
    whole, parts = (Limited(most, MemoryError) for most in (32, 8))
    brief = replace(SCHEDULE, steps=10)
    for student in (whole, parts):
        recover(student, teacher(), TASK, EXAMPLE, brief, Files(tmp_path / f"{student.most}.pt"))
    for name, tensor in state_of(whole).items():
        torch.testing.assert_close(state_of(parts)[name], tensor, rtol=0.02, atol=2e-3)


def test_a_step_that_ran_out_of_memory_leaves_no_trace(tmp_path: Path) -> None:
    found: list[Schedule] = []
    failed, knew = (Limited(most, MemoryError, norm=True) for most in (10, 10**6))
    recover(failed, teacher(), TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "a.pt"), Watch(adapted=found.append))
    recover(knew, teacher(), TASK, EXAMPLE, found[-1], Files(tmp_path / "b.pt"))
    assert knew.sizes[0] == 8
    assert equal(failed, knew)


def test_what_does_not_fit_in_the_smallest_parts_is_a_technique_error(tmp_path: Path) -> None:
    with pytest.raises(TechniqueError, match="even with 1 items at a time"):
        recover(Limited(0, MemoryError), teacher(), TASK, EXAMPLE, replace(SCHEDULE, batch=2), Files(tmp_path / "a.pt"))
    with pytest.raises(TechniqueError, match="even with 4 items at a time"):
        recover(
            Limited(3, MemoryError, norm=True),
            teacher(),
            TASK,
            EXAMPLE,
            replace(SCHEDULE, batch=8),
            Files(tmp_path / "b.pt"),
        )


def test_other_errors_are_not_taken_for_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


def test_parts_are_nearly_equal() -> None:
    assert [part.stop - part.start for part in parts_of(10, 4)] == [3, 3, 4]
    assert parts_of(8, 100) == [slice(0, 8)]


def left(*seconds: float) -> Callable[[], float | None]:
    given: Iterator[float] = iter(seconds)
    last = [0.0]

    def seconds_left() -> float:
        last[0] = next(given, last[0])
        return last[0]

    return seconds_left


def test_a_cut_schedule_ends_with_a_rate_of_nothing_and_gives_the_same_weights_again(tmp_path: Path) -> None:
    found: list[Schedule] = []
    # from the twentieth step on no time is left
    clock = left(*[1e6] * 19, 0.0)
    cut = recover(network(), teacher(), TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "a.pt"), Watch(clock, found.append))
    assert found[-1].cuts == ((20, 20),)
    again = recover(network(), teacher(), TASK, EXAMPLE, found[-1], Files(tmp_path / "b.pt"))
    assert equal(cut, again)
    whole = recover(network(), teacher(), TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "c.pt"))
    assert not equal(cut, whole)


def test_a_cut_training_that_was_broken_off_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "CHECKPOINT_SECONDS", 0.0)
    schedule = SCHEDULE.cut(10, 40).with_micro_batch(5, 8)
    wanted = recover(network(), teacher(), TASK, EXAMPLE, schedule, Files(tmp_path / "a.pt"))

    def stop(step: int, _steps: int, _left: float) -> None:
        if step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(network(), teacher(), TASK, EXAMPLE, schedule, Files(tmp_path / "b.pt"), Watch(on_step=stop))
    # the changes come from the checkpoint: the plan that is resumed does not have them
    assert equal(recover(network(9), teacher(), TASK, EXAMPLE, SCHEDULE, Files(tmp_path / "b.pt")), wanted)


def network(seed: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("cuts", [((30, 40),), ((5, 20),), ((20, 50), (30, 35))])
def test_the_rate_falls_to_nothing_wherever_a_schedule_is_cut(cuts: tuple[tuple[int, int], ...]) -> None:
    schedule = replace(SCHEDULE, steps=60, cuts=cuts)
    rates = [schedule.learning_rate_at(step) for step in range(schedule.end)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.05 * SCHEDULE.learning_rate
    first = cuts[0][0]
    assert rates[:first] == [SCHEDULE.learning_rate_at(step) for step in range(first)]
    assert schedule.planned_step(schedule.end) == pytest.approx(60)


def test_changes_are_written_and_read() -> None:
    changes = ((0, 128), (700, 64))
    assert parse_changes(changes_text(changes), "here") == changes
    for wrong in ("x", "5", "5:3:2", "7:3 5:2", "-1:2", "3:0"):
        with pytest.raises(PlanError, match="no list of steps"):
            parse_changes(wrong, "here")


def test_a_pause_of_the_machine_cuts_nothing_and_a_lasting_shortage_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("autocompress.training.pace.time.monotonic", lambda: now[0])
    pace = Pace(lambda: 1000.0 - now[0])

    def steps(count: int, seconds: float, remaining: int) -> list[int | None]:
        found = []
        for _ in range(count):
            now[0] += seconds
            pace.step_taken()
            found.append(pace.steps_left(remaining, 0))
        return found

    assert not any(steps(10, 1.0, 900))
    assert not any(steps(1, 6.0, 900))
    assert not any(steps(10, 1.0, 900))
    cut = [found for found in steps(4, 3.0, 900) if found is not None]
    assert cut
    assert 0.9 * (1000 - now[0]) / 3 < cut[0] < (1000 - now[0]) / 3 + 4
