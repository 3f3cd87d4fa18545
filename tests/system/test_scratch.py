import os
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.system import scratch as module
from autocompress.system import workers as worker
from autocompress.system.scratch import scratch, sweep_scratch
from autocompress.system.workers import Worker, left_by_the_dead
from autocompress.system.workspace import Workspace
from autocompress.testing.python_processes import child_environment

LEAVE = """
import os, sys
from pathlib import Path
from autocompress.system.scratch import scratch
from autocompress.system.workspace import write_atomically
with scratch("meter") as folder:
    (folder / "0.npz").write_text("x")
    def die(target):
        target.write_text("half")
        os.kill(os.getpid(), 9)
    write_atomically(Path(sys.argv[1]) / "module.pt", die)
"""
WAIT = """
from autocompress.system.scratch import scratch
with scratch("probe") as folder:
    print(folder, flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(module.tempfile, "tempdir", None)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_scratch_folder_is_there_and_then_gone(temporary: Path) -> None:
    with scratch("meter") as folder:
        assert folder.is_dir()
        assert folder.parent == temporary
        assert folder.name.startswith("autocompress-meter-")
    assert names(temporary) == []


def test_what_a_killed_process_leaves_is_swept(temporary: Path, tmp_path: Path) -> None:
    run = Workspace(tmp_path / "run")
    folder = run.checkpoints / "abc"
    folder.mkdir(parents=True)
    done = subprocess.run([sys.executable, "-c", LEAVE, str(folder)], env=child_environment(), check=False, timeout=60)
    assert done.returncode == -9
    assert [name.partition("-w")[0] for name in names(temporary)] == ["autocompress-meter"]
    assert [name.partition("-w")[0] for name in names(folder)] == [".module.pt"]
    assert sweep_scratch() == 1
    assert names(temporary) == []
    run.sweep()
    assert names(folder) == []


def test_folders_of_living_processes_and_of_others_stay(temporary: Path) -> None:
    elsewhere = Worker("another host", 1, "1")
    for name in (f"autocompress-meter{elsewhere.tag}x", "autocompress-meter-abcdefgh", "somebody-else"):
        (temporary / name).mkdir()
    command = [sys.executable, "-c", WAIT]
    with (
        scratch("training") as mine,
        subprocess.Popen(command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().decode().strip())
        assert sweep_scratch() == 0
        assert mine.is_dir()
        assert theirs.is_dir()
        other.communicate(b"\n", timeout=20)
    assert len(names(temporary)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_process_that_nobody_has_waited_for_is_dead() -> None:
    # in a container without an init it stays in the table for ever
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    killed = Worker(Worker.me().host, process.pid, worker._state(process.pid)[1])
    assert killed.alive
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not killed.alive
    assert left_by_the_dead(f"autocompress-meter{killed.tag}x")
    process.communicate()


def test_a_number_that_is_in_use_again_is_another_process() -> None:
    me = Worker.me()
    assert me.alive
    assert not Worker(me.host, me.pid, "1").alive
    assert not left_by_the_dead(f"autocompress-meter{me.tag}x")
