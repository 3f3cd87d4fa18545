import pytest

from autocompress.system import progress, time_limit
from autocompress.system.time_limit import TimeLimit


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time_limit, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_without_seconds_there_is_no_end(clock: Clock) -> None:
    limit = TimeLimit(None, expected=50.0)
    clock.now += 1e6
    assert not limit.is_over()
    assert not limit.is_too_short()


def test_it_is_too_short_before_it_is_over(clock: Clock) -> None:
    limit = TimeLimit(10.0, expected=4.0)
    clock.now += 5.9
    assert not limit.is_too_short()
    clock.now += 0.2
    assert limit.is_too_short()
    assert not limit.is_over()
    clock.now += 4.0
    assert limit.is_over()


def test_the_longest_piece_so_far_is_what_the_next_one_is_expected_to_take(clock: Clock) -> None:
    limit = TimeLimit(20.0, expected=1.0)
    for seconds in (6.0, 2.0):
        with limit.piece():
            clock.now += seconds
    # 12 seconds are left
    assert not limit.is_too_short()
    clock.now += 6.5
    assert limit.is_too_short()
