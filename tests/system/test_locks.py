import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.system import locks
from autocompress.system.locks import folder_lock, measuring, working
from autocompress.testing.python_processes import child_environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks without POSIX")
HOLD = """
import sys, time
from autocompress.system import locks
with getattr(locks, sys.argv[1])():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test alone: other programs of this user may be measuring."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(locks.tempfile, "tempdir", None)
    monkeypatch.setattr(locks, "_locks", locks._Locks())


class Other(threading.Thread):
    """Another worker, in a thread: says when it has its turn."""

    def __init__(self, kind: str, log: list[str]) -> None:
        super().__init__(daemon=True)
        self._kind, self._log, self.has_turn, self.ends = kind, log, threading.Event(), threading.Event()

    def run(self) -> None:
        with getattr(locks, self._kind)():
            self._log.append(self._kind)
            self.has_turn.set()
            self.ends.wait(20)

    def stop(self) -> None:
        self.ends.set()
        self.join(20)


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.mark.parametrize(
    ("held", "asked"), [("measuring", "measuring"), ("measuring", "working"), ("working", "measuring")]
)
def test_nothing_runs_beside_a_measurement(held: str, asked: str, log: list[str]) -> None:
    other = Other(asked, log)
    with getattr(locks, held)():
        other.start()
        assert not other.has_turn.wait(0.1)
    assert other.has_turn.wait(20)
    other.stop()


def test_two_may_work_at_once(log: list[str]) -> None:
    other = Other("working", log)
    with working():
        other.start()
        assert other.has_turn.wait(20)
        other.stop()


def test_a_measurement_that_waits_goes_before_the_next_step(log: list[str]) -> None:
    measurer, worker = Other("measuring", log), Other("working", log)
    with working():
        measurer.start()
        while locks._lock(locks._locks.gate, locks.SHARED):
            locks._lock(locks._locks.gate, locks.FREE)
        # it has announced itself: who works may end the step, but begins no other
        worker.start()
        assert not worker.has_turn.wait(0.1)
        assert not measurer.has_turn.is_set()
    assert measurer.has_turn.wait(20)
    assert not worker.has_turn.wait(0.1)
    measurer.stop()
    assert worker.has_turn.wait(20)
    worker.stop()
    assert log == ["measuring", "working"]


def test_turns_stand_inside_each_other(log: list[str]) -> None:
    with working(), measuring(), measuring(), working():
        pass
    with working():
        other = Other("measuring", log)
        with measuring():
            pass
        other.start()
        # the step is still under way
        assert not other.has_turn.wait(0.1)
    assert other.has_turn.wait(20)
    other.stop()


@pytest.mark.parametrize("kind", ["measuring", "working"])
def test_an_error_gives_the_turn_back(kind: str, log: list[str]) -> None:
    with pytest.raises(ValueError, match="broken"), getattr(locks, kind)():
        raise ValueError("broken")
    other = Other("measuring", log)
    other.start()
    assert other.has_turn.wait(20)
    other.stop()


@pytest.fixture(params=["measuring", "working"])
def holder(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, request.param]
    with subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_process_that_is_killed_gives_its_turn_back(holder: subprocess.Popen[str], log: list[str]) -> None:
    other = Other("measuring", log)
    other.start()
    assert not other.has_turn.wait(0.1)
    holder.kill()
    assert other.has_turn.wait(20)
    other.stop()


def test_a_process_that_never_goes_on_holds_up_nobody_for_good(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert holder.poll() is None
    monkeypatch.setattr(locks, "PATIENCE_S", 0.1)
    with measuring():
        pass


def test_a_temporary_folder_that_cannot_be_written_costs_the_turns_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.tempfile, "tempdir", str(tmp_path / "missing"))
    monkeypatch.setattr(locks, "_locks", locks._Locks())
    with working(), measuring():
        pass


def test_one_at_a_time_is_in_a_folder_and_the_second_is_told(tmp_path: Path) -> None:
    told, entered = threading.Event(), threading.Event()

    def second() -> None:
        with folder_lock(tmp_path, told.set):
            entered.set()

    with folder_lock(tmp_path, lambda: pytest.fail("nobody else is there")):
        other = threading.Thread(target=second, daemon=True)
        other.start()
        assert told.wait(20)
        assert not entered.is_set()
    assert entered.wait(20)
    other.join(20)
    assert list(tmp_path.iterdir()) == []
