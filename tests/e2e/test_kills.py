"""A run that is killed four times; thirty kills are among the slow tests."""

from __future__ import annotations

import random
from pathlib import Path

from e2e.killing import Killed, left_behind


def test_a_run_that_is_killed_four_times_comes_to_its_answer(block_user: Path, tmp_path: Path) -> None:
    run = Killed(block_user, tmp_path / "run", random.Random(4), steps=40)
    run.go_on(4, (3.0, 7.0))
    assert run.end() in (0, 1, 3)
    assert left_behind(block_user) == []
