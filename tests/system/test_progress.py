import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.errors import UsageError
from autocompress.system.progress import Deadline, Event, parse_duration, silent


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("20m", 1200.0),
        ("2h", 7200.0),
        ("1.5h", 5400.0),
        ("0.5s", 0.5),
        ("90", 90.0),
        (" 20m ", 1200.0),
        ("2H", 7200.0),
        (45, 45.0),
        (0.25, 0.25),
        (None, None),
    ],
)
def test_a_time_is_read_in_seconds(text: str | float | None, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "s", "m", "0", "0s", "-5m", "1d", "1 day", "20 min", "m20", "1h30m", "1,5h", "5ms", "ms"),
        *("nan", "nans", "inf", "infh", "1e400s", 0, -1, float("nan"), float("inf")),
    ],
)
def test_what_is_no_positive_time_is_refused_with_the_way_to_write_it(text: str | float) -> None:
    with pytest.raises(UsageError, match="not a positive time") as caught:
        parse_duration(text)
    assert repr(text) in caught.value.message
    assert caught.value.where == "--max-time"
    assert caught.value.hint == "Write 90s, 20m or 2h."
    assert caught.value.exit_code == 2


def test_the_error_names_where_the_time_was_given() -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration("soon", where="max_time")
    assert caught.value.where == "max_time"


@given(st.integers(1, 10**6), st.sampled_from([("s", 1), ("m", 60), ("h", 3600)]))
def test_a_whole_number_of_a_unit_is_that_many_seconds(number: int, unit: tuple[str, int]) -> None:
    assert parse_duration(f"{number}{unit[0]}") == number * unit[1]


def test_a_deadline_counts_down_from_its_start() -> None:
    deadline = Deadline(10.0, 0.0, time.monotonic() - 4.0)
    assert deadline.spent == pytest.approx(4.0, abs=1.0)
    assert deadline.left == pytest.approx(6.0, abs=1.0)
    assert not deadline.over


def test_earlier_sittings_count() -> None:
    deadline = Deadline.start(10.0, spent_before=9.999_999)
    assert deadline.left is not None
    assert deadline.left < 0.001
    assert Deadline.start(10.0, spent_before=10.0).over
    assert not Deadline.start(10.0, spent_before=5.0).over


def test_time_that_is_over_does_not_become_negative() -> None:
    deadline = Deadline.start(10.0, spent_before=50.0)
    assert deadline.left == 0.0
    assert deadline.over
    assert deadline.spent >= 50.0


def test_without_a_limit_time_is_never_over() -> None:
    deadline = Deadline.start(None, spent_before=1e9)
    assert deadline.left is None
    assert not deadline.over
    assert deadline.spent >= 1e9


def test_a_silent_listener_takes_any_event(capsys: pytest.CaptureFixture[str]) -> None:
    silent(Event("search", "building", 1, 2, "best", 3.0))
    assert capsys.readouterr() == ("", "")
