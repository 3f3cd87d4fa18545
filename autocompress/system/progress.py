"""Progress events, which a run reports while it works, and deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from autocompress.errors import UsageError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Event:
    """One progress report.

    `stage` is one of baseline, facts, probes, search space, search, confirm, result. `done` and `total` count plans,
    `best` describes the best answer so far, `seconds_left` estimates the rest.
    """

    stage: str
    sentence: str
    done: int | None = None
    total: int | None = None
    best: str = ""
    seconds_left: float | None = None


Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """A progress callback that does nothing."""


@dataclass(frozen=True)
class Deadline:
    """The time limit of a run over all its resumptions.

    `spent_before` are the seconds spent before the run was last resumed.
    """

    max_seconds: float | None
    spent_before: float
    started: float

    @staticmethod
    def start(max_seconds: float | None, spent_before: float = 0.0) -> Deadline:
        """A deadline that counts from now."""
        return Deadline(max_seconds, spent_before, time.monotonic())

    @property
    def spent(self) -> float:
        """Seconds spent over all resumptions."""
        return self.spent_before + time.monotonic() - self.started

    @property
    def left(self) -> float | None:
        """Seconds left, None without a limit."""
        return None if self.max_seconds is None else max(0.0, self.max_seconds - self.spent)

    @property
    def over(self) -> bool:
        """True when the time is up."""
        return self.left is not None and self.left <= 0


def parse_duration(text: str | float | None, where: str = "--max-time") -> float | None:
    """Seconds from `90s`, `20m`, `2h` or a number of seconds.

    Raises:
        UsageError: when the text is no positive time.
    """
    if text is None:
        return None
    if isinstance(text, int | float):
        number, unit = float(text), 1.0
    else:
        unit = UNITS.get(text.strip()[-1:].lower(), 0.0)
        body = text.strip()[:-1] if unit else text.strip()
        try:
            number, unit = float(body), unit or 1.0
        except ValueError:
            number = float("nan")
    if not 0 < number < float("inf"):
        raise UsageError(f"{text!r} is not a positive time.", where=where, hint="Write 90s, 20m or 2h.")
    return number * unit
