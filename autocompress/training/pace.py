"""The pace of a training, and when it has to end sooner to keep its time."""

from __future__ import annotations

import time
from collections.abc import Callable

# steps are timed for so many seconds, or this share of what is left, before anything is decided
WINDOW_SECONDS, WINDOW_SHARE = 5.0, 0.05
# a shortage has to show in so many windows in a row: the machine may only have paused
SHORTAGES = 2
# part of the time left that a cut schedule is made for
USED = 0.95


class Pace:
    """Times the steps of a training and tells when the time left does not suffice for the rest.

    `seconds_left` gives the seconds left for training, None without a limit.
    """

    def __init__(self, seconds_left: Callable[[], float | None]) -> None:
        self._left = seconds_left
        self._began = time.monotonic()
        self._steps = self._shortages = 0
        self._seconds = 0.0
        # what scoring the module takes, once it is known
        self._scoring = 0.0
        self.seconds_per_step = 0.0

    def step_taken(self) -> None:
        """Count a step, which took the time since the last step or score."""
        now = time.monotonic()
        self._seconds += now - self._began
        self._began = now
        self._steps += 1
        self.seconds_per_step = self._seconds / self._steps

    def scored(self) -> None:
        """Note that the module was scored, which took the time since the last step."""
        now = time.monotonic()
        self._scoring, self._began = now - self._began, now

    def steps_left(self, steps: int, scores: int) -> int | None:
        """How many steps may still be taken instead of `steps`; None where the time suffices for all of them.

        `scores` is how many times the module will be scored until then.
        """
        left = self._left()
        if left is None or steps <= 0 or not self._steps:
            return None
        short = left <= 0
        if not short and self._seconds < min(WINDOW_SECONDS, WINDOW_SHARE * left):
            return None
        each = self.seconds_per_step
        self._seconds, self._steps = 0.0, 0
        usable = left - scores * self._scoring
        if steps * each <= usable:
            self._shortages = 0
            return None
        self._shortages += 1
        # when there is hardly time for a few windows, nothing is waited for
        if self._shortages < SHORTAGES and not short and usable > SHORTAGES * WINDOW_SECONDS:
            return None
        self._shortages = 0
        affordable = max(0, int(USED * usable / max(each, 1e-9)))
        return affordable if affordable < steps else None
