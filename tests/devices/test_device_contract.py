import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from autocompress.core.device import Device
from autocompress.core.machine import Machine
from autocompress.core.profile import DeviceProfile, Profile, Protocol
from autocompress.devices import DEVICES, LocalDevice, alternation, device_of, meter
from autocompress.devices.processes import MeterProcess
from autocompress.errors import ProfileError, RuntimeFailureError
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.device_suite import DeviceSuite
from autocompress.testing.networks import Exported, Exports
from autocompress.testing.python_processes import child_environment

DESCRIBE = Path(meter.__file__).parent / "describe.py"
PROGRAM = Path(meter.__file__).parent / "program.py"
BACKEND = OnnxRuntime.meter_backend

MEASURE_FOR_LONG = """
import sys
from pathlib import Path
from autocompress.devices import LocalDevice
from autocompress.core.profile import Profile, Protocol
from autocompress.runtimes import OnnxRuntime

artifact = OnnxRuntime().read(Path(sys.argv[1]))
endless = Profile("long", protocol=Protocol(precision=1e-9, max_seconds=50))
LocalDevice(OnnxRuntime()).measure([artifact, artifact], endless)
"""

MEASURE_BRIEFLY = """
import os, sys
from pathlib import Path
from autocompress.devices import LocalDevice
from autocompress.core.profile import Profile, Protocol
from autocompress.runtimes import OnnxRuntime

artifact = OnnxRuntime().read(Path(sys.argv[1]))
(found,) = LocalDevice(OnnxRuntime()).measure([artifact], Profile("brief", protocol=Protocol(max_seconds=0.2)))
print(os.getpid(), found.readings["latency_ms"].samples.size > 0)
"""


@pytest.fixture(scope="module", autouse=True)
def _brief_warm_ups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alternation, "WARM_UP_SECONDS", 0.05)
        yield


@pytest.fixture
def brief_profile() -> Profile:
    """A profile as `testing.fixtures` has it, measured for less: nothing is judged by these figures."""
    return Profile("brief", protocol=Protocol(max_seconds=0.2, precision=0.05))


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def meters_of(parent: int) -> list[int]:
    """Process ids of the living measuring programs that a process started."""
    return [pid for pid in _processes() if _is_meter(pid) and _status(pid)[1] == parent]


def is_alive(pid: int) -> bool:
    return _status(pid)[0] not in ("gone", "Z", "X")


def _processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _is_meter(pid: int) -> bool:
    try:
        return b"meter/program.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _status(pid: int) -> tuple[str, int]:
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "gone", 0
    return state, int(parent)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Measuring(threading.Thread):
    """A measurement without end under way in a thread of its own."""

    def __init__(self, exported: Exported) -> None:
        super().__init__(daemon=True)
        self._exported = exported
        self.error: BaseException | None = None

    def run(self) -> None:
        endless = Profile("endless", protocol=Protocol(precision=1e-9, max_seconds=50.0))
        try:
            LocalDevice(OnnxRuntime()).measure([self._exported.artifact], endless)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error


class TestLocalDevice(DeviceSuite):
    device: ClassVar[type[Device]] = LocalDevice
    connection: ClassVar[str] = "local"

    @linux_only
    @pytest.mark.parametrize(
        ("sent", "delay"),
        [(signal.SIGKILL, 0.0), (signal.SIGKILL, 1.0), (signal.SIGSEGV, 1.0)],
        ids=["killed while it loads", "killed while it measures", "crashed while it measures"],
    )
    def test_a_measuring_process_that_dies_is_a_runtime_failure_that_names_the_signal(
        self, mlp: Exported, sent: signal.Signals, delay: float
    ) -> None:
        measuring = Measuring(mlp)
        measuring.start()
        assert wait_for(lambda: bool(meters_of(os.getpid())))
        time.sleep(delay)
        (child,) = meters_of(os.getpid())
        os.kill(child, sent)
        measuring.join(timeout=30)
        assert isinstance(measuring.error, RuntimeFailureError)
        assert f"the measuring process died (signal {int(sent)})" in measuring.error.message
        assert measuring.error.where == str(mlp.artifact.path)
        assert not is_alive(child)

    @linux_only
    def test_no_child_is_left_after_a_measurement(self, mlp: Exported, brief_profile: Profile) -> None:
        LocalDevice(OnnxRuntime()).measure([mlp.artifact, mlp.artifact], brief_profile)
        assert meters_of(os.getpid()) == []

    @linux_only
    def test_no_child_is_left_after_a_failure(self, mlp: Exported, tmp_path: Path, brief_profile: Profile) -> None:
        broken = mlp.artifact.copy_to(tmp_path / "broken.onnx")
        broken.path.write_bytes(b"broken")
        with pytest.raises(RuntimeFailureError):
            LocalDevice(OnnxRuntime()).measure([mlp.artifact, broken], brief_profile)
        assert meters_of(os.getpid()) == []

    @linux_only
    def test_children_die_with_their_parent(self, mlp: Exported) -> None:
        parent = subprocess.Popen(
            [sys.executable, "-c", MEASURE_FOR_LONG, str(mlp.artifact.path)], env=child_environment()
        )
        try:
            assert wait_for(lambda: len(meters_of(parent.pid)) == 2)
            children = meters_of(parent.pid)
        finally:
            parent.kill()
            parent.wait()
        assert wait_for(lambda: not any(is_alive(child) for child in children), seconds=10)

    @linux_only
    def test_the_program_dies_with_its_parent_even_while_its_input_stays_open(self) -> None:
        # the end of its input would end it as well, but not in the middle of a long block
        starting = (
            "import os, subprocess, sys; subprocess.run([sys.executable, sys.argv[1], str(os.getpid()), sys.argv[2]])"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", starting, str(PROGRAM), str(BACKEND)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert parent.stdin is not None
        assert parent.stdout is not None
        try:
            parent.stdin.write(b'{"do": "nonsense"}\n')
            parent.stdin.flush()
            assert b"error" in parent.stdout.readline()
            (child,) = meters_of(parent.pid)
            parent.kill()
            parent.wait()
            assert wait_for(lambda: not is_alive(child), seconds=10)
        finally:
            parent.kill()
            parent.stdin.close()
            parent.stdout.close()

    @linux_only
    def test_the_first_process_of_a_container_can_measure(self, mlp: Exported) -> None:
        unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            pytest.skip("this system has no user namespaces")
        done = subprocess.run(
            [*unshare, sys.executable, "-c", MEASURE_BRIEFLY, str(mlp.artifact.path)],
            env=child_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.split() == ["1", "True"], done.stderr

    def test_the_feed_of_a_measurement_is_not_left_behind(
        self, mlp: Exported, tmp_path: Path, brief_profile: Profile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        LocalDevice(OnnxRuntime()).measure([mlp.artifact], brief_profile)
        assert list(tmp_path.iterdir()) == []


def test_describe_prints_the_machine_with_nothing_but_the_standard_library() -> None:
    # -I -S: no site packages, no current folder
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(DESCRIBE)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    described = json.loads(done.stdout)
    assert Machine.from_json(described) == LocalDevice(OnnxRuntime()).machine()
    assert described["cores"] == len(os.sched_getaffinity(0))
    assert described["features"] == sorted(set(described["features"]))


def test_the_program_answers_commands_with_one_line_each_until_its_input_ends(exports: Exports) -> None:
    artifact = exports(OnnxRuntime(), "mlp").artifact
    commands = [
        {"do": "block", "calls": 1, "discard": 0},
        {"do": "open", "artifact": str(artifact.path), "inputs": "missing.npz", "threads": 1, "options": {}},
        {"do": "nonsense"},
    ]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(os.getpid()), str(BACKEND)],
        input="".join(json.dumps(command) + "\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(replies) == len(commands)
    assert all(set(reply) == {"error"} for reply in replies)
    assert "FileNotFoundError" in replies[1]["error"]


def test_the_program_measures_what_a_backend_loads_whatever_it_is(tmp_path: Path) -> None:
    # a backend of the test's own: it doubles, and wants an option
    backend = tmp_path / "doubling.py"
    backend.write_text(
        "class Backend:\n"
        "    version = '7.0'\n"
        "    def __init__(self, threads, options):\n"
        "        assert (threads, options) == (3, {'fast': 'yes'})\n"
        "    def load(self, artifact):\n"
        "        content = open(artifact).read()\n"
        "        assert content == 'a model'\n"
        "        return lambda feed: [2 * feed['x']]\n"
    )
    (tmp_path / "model.txt").write_text("a model")
    np.savez(tmp_path / "inputs.npz", **{"input x": np.ones((1, 2))})
    with MeterProcess(PROGRAM, backend, [(tmp_path / "model.txt", tmp_path / "inputs.npz")], 0) as process:
        process.open(3, {"fast": "yes"})
        assert process.version == "7.0"
        process.load(0, padding=100)
        block = process.block(5, discard=1)
    assert len(block.times) == 5
    assert min(block.times) > 0


@pytest.mark.parametrize(
    ("content", "words"),
    [("raise OSError('no such library')", "no such library"), ("", "Backend"), ("class Backend: pass", "Backend")],
)
def test_a_backend_that_cannot_be_used_is_a_runtime_failure_with_its_words(
    mlp_file: Path, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "backend.py").write_text(content)
    np.savez(tmp_path / "inputs.npz", **{"input input": np.ones((1, 24), dtype=np.float32)})
    with (
        MeterProcess(PROGRAM, tmp_path / "backend.py", [(mlp_file, tmp_path / "inputs.npz")], 0) as process,
        pytest.raises(RuntimeFailureError, match=words),
    ):
        process.open(1, {})


@pytest.fixture
def mlp_file(exports: Exports) -> Path:
    return exports(OnnxRuntime(), "mlp").artifact.path


@pytest.mark.parametrize(
    ("connection", "hint"),
    [("loacl", "Did you mean 'local'?"), ("ssh://board", "Known: local."), ("", "Known: local.")],
)
def test_a_connection_that_no_device_is_reached_by_is_refused_with_the_profile_and_a_hint(
    connection: str, hint: str
) -> None:
    profile = Profile("board", DeviceProfile(connection=connection))
    with pytest.raises(ProfileError, match=f"no device is reached by '{connection}'") as caught:
        device_of(profile, OnnxRuntime())
    assert caught.value.where == "profile board: device.connection"
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


def test_a_profile_that_says_nothing_is_of_this_machine() -> None:
    assert isinstance(device_of(Profile("here"), OnnxRuntime()), LocalDevice)


def test_every_device_that_ships_has_a_scheme_of_its_own() -> None:
    assert len({device.scheme for device in DEVICES}) == len(DEVICES)


def test_every_device_inherits_the_suite() -> None:
    suites = {suite.device: suite for suite in DeviceSuite.__subclasses__() if suite.__module__ == __name__}
    for device in DEVICES:
        assert suites[device].__name__.startswith("Test"), device
    assert set(suites) == set(DEVICES)


def test_each_stream_calls_with_inputs_of_its_own_at_the_same_time(tmp_path: Path) -> None:
    # all streams have to be inside a call at once, or none gets out
    backend = tmp_path / "together.py"
    backend.write_text(
        "import threading\n"
        "class Backend:\n"
        "    version = '1'\n"
        "    def __init__(self, threads, options):\n"
        "        self.inside, self.feeds = threading.Barrier(3), set()\n"
        "    def load(self, artifact):\n"
        "        return self.call\n"
        "    def call(self, feed):\n"
        "        if threading.current_thread() is not threading.main_thread():\n"
        "            self.feeds.add(id(feed['x']))\n"
        "            self.inside.wait(timeout=30)\n"
        "            assert len(self.feeds) == 3\n"
        "        return [feed['x']]\n"
    )
    (tmp_path / "model.txt").write_text("a model")
    np.savez(tmp_path / "inputs.npz", **{"input x": np.ones((1, 2))})
    with MeterProcess(PROGRAM, backend, [(tmp_path / "model.txt", tmp_path / "inputs.npz")], 0) as process:
        process.open(1, {})
        calls_per_s, control_ms = process.under_load(3, 0.0)
    assert calls_per_s > 0
    assert control_ms > 0


def test_a_failure_under_load_is_told_with_its_message(tmp_path: Path) -> None:
    backend = tmp_path / "refusing.py"
    backend.write_text(
        "import threading\n"
        "class Backend:\n"
        "    version = '1'\n"
        "    def __init__(self, threads, options):\n"
        "        pass\n"
        "    def load(self, artifact):\n"
        "        return self.call\n"
        "    def call(self, feed):\n"
        "        if threading.current_thread() is not threading.main_thread():\n"
        "            raise RuntimeError('one caller at a time')\n"
        "        return [feed['x']]\n"
    )
    (tmp_path / "model.txt").write_text("a model")
    np.savez(tmp_path / "inputs.npz", **{"input x": np.ones((1, 2))})
    with MeterProcess(PROGRAM, backend, [(tmp_path / "model.txt", tmp_path / "inputs.npz")], 0) as process:
        process.open(1, {})
        with pytest.raises(RuntimeFailureError, match="one caller at a time"):
            process.under_load(2, 0.0)
