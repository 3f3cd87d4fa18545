"""Thirty kills at random moments: the answer comes all the same, and nothing is lost, torn or done twice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from e2e.conftest import residual
from e2e.killing import Killed, left_behind

KILLS = 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def block_user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual(tmp_path_factory.mktemp("blocks"))


def test_thirty_kills_cost_time_and_nothing_else(block_user: Path, tmp_path: Path) -> None:
    chance = random.Random(20)
    made, resumed, runs = 0, 0, 0
    while made < KILLS:
        run = Killed(block_user, tmp_path / f"run{runs}", chance, steps=100)
        # every plan is tried for this objective, so there is much to kill, the trainings among it
        if not run.go_on(KILLS - made, (2.0, 14.0), "--objective", "accuracy"):
            run.end("--objective", "accuracy")
        made, resumed, runs = made + run.kills, resumed + run.resumed_trainings, runs + 1
    print(f"{made} kills in {runs} runs, {resumed} trainings went on from a checkpoint")
    assert left_behind(block_user) == []
