"""What goes wrong around the gate: each fault ends in its code, with one clear line, and never in 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from autocompress.runtimes import OnnxRuntime
from e2e.command import Done, children, command, command_line
from e2e.conftest import GATE as PROFILE

Prepare = Callable[[Path], None]


USUAL = ("model.onnx", "--profile", "profile.yaml", "--data", "data.npz")


def gate(shop: Path, *more: str, arguments: tuple[str, ...] = USUAL) -> Done:
    return command("check", *arguments, *more, folder=shop)


def test_without_a_fault_it_passes(shop: Path) -> None:
    done = gate(shop, "--baseline", "baseline.onnx")
    assert done.code == 0, done.out + done.err


def cut(name: str, share: float = 0.5) -> Prepare:
    def prepare(shop: Path) -> None:
        content = (shop / name).read_bytes()
        (shop / name).write_bytes(content[: int(share * len(content))])

    return prepare


def written(name: str, content: str | bytes) -> Prepare:
    def prepare(shop: Path) -> None:
        (shop / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def removed(name: str) -> Prepare:
    return lambda shop: (shop / name).unlink()


def folder_instead(name: str) -> Prepare:
    def prepare(shop: Path) -> None:
        (shop / name).unlink(missing_ok=True)
        (shop / name).mkdir()

    return prepare


def data(**changed: object) -> Prepare:
    def prepare(shop: Path) -> None:
        with np.load(shop / "data.npz") as file:
            arrays = {**file, **changed}
        np.savez(shop / "data.npz", **{key: value for key, value in arrays.items() if value is not None})

    return prepare


def edited(change: Callable[[onnx.ModelProto], None]) -> Prepare:
    def prepare(shop: Path) -> None:
        model = onnx.load(shop / "model.onnx")
        change(model)
        onnx.save(model, shop / "model.onnx")

    return prepare


def not_finite(model: onnx.ModelProto) -> None:
    tensor = next(one for one in model.graph.initializer if len(one.dims) > 1)
    broken = np.full_like(numpy_helper.to_array(tensor), np.nan)
    tensor.CopyFrom(numpy_helper.from_array(broken, tensor.name))


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"
    model.graph.node[0].domain = "nowhere"
    model.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))


def weights_elsewhere(model: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].ClearField("raw_data")


def certificate(**changed: object) -> Prepare:
    def prepare(shop: Path) -> None:
        runtime = OnnxRuntime()
        content = {
            "artifact_sha256": runtime.read(shop / "model.onnx").hash,
            "baseline_sha256": runtime.read(shop / "baseline.onnx").hash,
            "status": "met",
            "confidence": 0.95,
            "issued": "2026-01-01T00:00:00+00:00",
            "findings": [],
            "versions": dict(runtime.versions),
            "machine_fingerprint": "another",
            **changed,
        }
        kept = {key: value for key, value in content.items() if value is not None}
        (shop / "certificate.json").write_text(json.dumps(kept), encoding="utf-8")

    return prepare


def profile(text: str) -> Prepare:
    return written("profile.yaml", text)


def nothing(shop: Path) -> None:
    pass


CERTIFIED = ("--certificate", "certificate.json")
WRONG_SHAPE = np.zeros((60, 3, 8, 8), np.float32)
HOLES = np.full((60, 3, 16, 16), np.nan, np.float32)

RAISES = "def task():\n    raise ValueError('no')\n"
SCORE_RAISES = """
import numpy as np
from autocompress import Task
def score(outputs, targets):
    raise KeyError("x")
def task():
    return Task(test=(np.zeros((9, 3, 16, 16), "float32"), np.zeros(9, int)), score=score)
"""
ELSEWHERE = "device: {fingerprint: {arch: riscv64}}\n"
SIZE = "name: x\nbudgets: {size_mb: "

FAULTS: dict[str, tuple[Prepare, tuple[str, ...], int, str]] = {
    "file truncated": (cut("model.onnx"), (), 2, "not a whole ONNX model"),
    "file empty": (written("model.onnx", b""), (), 2, "model.onnx"),
    "file is text": (written("model.onnx", "hello " * 50), (), 2, "model.onnx"),
    "file missing": (removed("model.onnx"), (), 2, "model.onnx"),
    "file is a folder": (folder_instead("model.onnx"), (), 2, "model.onnx"),
    "operator unknown": (edited(unknown_operator), (), 4, "model.onnx"),
    "weights in another file": (edited(weights_elsewhere), (), 2, "which is not beside it"),
    "outputs are NaN": (edited(not_finite), (), 4, "NaN"),
    "baseline truncated": (cut("baseline.onnx"), ("--baseline", "baseline.onnx"), 2, "baseline.onnx"),
    "baseline missing": (removed("baseline.onnx"), ("--baseline", "baseline.onnx"), 2, "baseline.onnx"),
    "data missing": (removed("data.npz"), (), 2, "data.npz"),
    "data truncated": (cut("data.npz"), (), 2, "data.npz"),
    "data empty": (data(x_test=np.zeros((0, 3, 16, 16), np.float32), y_test=np.zeros(0, np.int64)), (), 2, "empty"),
    "data without labels": (data(y_test=None), (), 2, "y_test"),
    "data of another shape": (data(x_test=WRONG_SHAPE), (), 2, "shape"),
    "data with NaN": (data(x_test=HOLES), (), 2, "not finite"),
    "data fewer labels than images": (data(y_test=np.zeros(59, np.int64)), (), 2, "59"),
    "labels out of range": (data(y_test=np.full(60, 99)), (), 2, "99"),
    "labels are fractions": (data(y_test=np.full(60, 0.5)), (), 2, "y_test"),
    "data SPEC unknown": (nothing, ("--data", "nonsense"), 2, "nonsense"),
    "data code raises": (written("tasks.py", RAISES), ("--data", "tasks.py:task"), 2, "no"),
    "score raises": (written("tasks.py", SCORE_RAISES), ("--data", "tasks.py:task"), 2, "KeyError"),
    "profile of another machine": (profile(PROFILE + ELSEWHERE), (), 4, "another machine"),
    "second profile of another machine": (nothing, ("--profile", "raspberry-pi-4"), 4, "another machine"),
    "profile missing": (removed("profile.yaml"), (), 2, "profile.yaml"),
    "profile is no YAML": (profile("a: [1"), (), 2, "not YAML"),
    "profile with an unknown key": (profile(PROFILE + "budget: {}\n"), (), 2, "budget"),
    "severity unknown": (profile(SIZE + "{limit: 1, severity: fatal}}"), (), 2, "severity"),
    "severity misspelt": (profile(SIZE + "{limit: 1, sevirity: warn}}"), (), 2, "Did you mean 'severity'"),
    "budget without a limit": (profile(SIZE + "{severity: warn}}"), (), 2, "limit"),
    "budget below zero": (nothing, ("--size-mb", "-1"), 2, "size-mb"),
    "session option refused": (
        profile(PROFILE + "runtime: {options: {session.intra_op_thread_affinities: nonsense}}\n"), (), 4, "onnxruntime",
    ),
    "certificate missing": (nothing, CERTIFIED, 2, "certificate.json"),
    "certificate is no JSON": (written("certificate.json", "{"), CERTIFIED, 2, "not JSON"),
    "certificate is a list": (written("certificate.json", "[]"), CERTIFIED, 2, "no certificate"),
    "certificate of another file": (certificate(artifact_sha256="0" * 64), CERTIFIED, 2, "vouches"),
    "certificate lacks its findings": (certificate(findings=None), CERTIFIED, 2, "no certificate"),
    "certificate of budgets not met": (certificate(status="not met"), CERTIFIED, 2, "certifies nothing"),
    "JSON in a folder that is not there": (nothing, ("--json", "no/such.json"), 2, "no/such.json"),
    "JUnit in a folder that is not there": (nothing, ("--junit", "no/such.xml"), 2, "no/such.xml"),
    "markdown over a folder": (folder_instead("budgets.md"), ("--markdown", "budgets.md"), 2, "budgets.md"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_its_code_with_one_line(shop: Path, fault: str) -> None:
    prepare, more, code, said = FAULTS[fault]
    prepare(shop)
    done = gate(shop, *more)
    assert done.code == code, done.out + done.err
    assert len(done.error_lines) == 1, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert "internal" not in done.err


def test_a_job_summary_that_cannot_be_written_is_no_success(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(shop / "no" / "summary.md"))
    done = gate(shop)
    assert done.code == 2
    assert "cannot be written" in done.err


def test_a_stale_certificate_leaves_accuracy_unmeasured_and_says_so(shop: Path) -> None:
    certificate()(shop)
    done = gate(shop, *CERTIFIED, arguments=USUAL[:3])
    assert done.code == 3
    assert "stale" in done.out


def test_a_certificate_of_less_confidence_leaves_accuracy_unmeasured_and_says_so(shop: Path) -> None:
    certificate(confidence=0.6)(shop)
    done = gate(shop, *CERTIFIED, "--json", "check.json", arguments=USUAL[:3])
    assert done.code == 3
    (only,) = json.loads((shop / "check.json").read_text(encoding="utf-8"))["checks"]
    assert only["notes"] == [
        "certificate.json was certified at 0.6, the profile asks 0.95: measure accuracy again with --data."
    ]


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_changes_nothing(shop: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    calls = iter(range(10**9))
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + jump * (next(calls) % 2))
    assert gate(shop).code == 0


def run_apart(shop: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autocompress.cli.commands", "check", *USUAL, *more],
        cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # type: ignore[call-overload]  # fmt: skip


def test_a_meter_that_is_killed_ends_in_4(shop: Path) -> None:
    profile(PROFILE.replace("max_seconds: 0.5, precision: 0.2", "max_seconds: 30, precision: 0.000001"))(shop)
    process = run_apart(shop)
    deadline = time.monotonic() + 60
    meters: list[int] = []
    while not meters and time.monotonic() < deadline and process.poll() is None:
        # the program that describes the machine is a child as well, for a moment
        meters = [pid for pid in children(process.pid) if b"program.py" in command_line(pid)]
        time.sleep(0.05)
    os.kill(meters[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert "measuring process died (signal 9)" in errors


def test_a_full_disk_ends_in_one_line(shop: Path) -> None:
    def no_room() -> None:
        import resource

        # files of at most 100 bytes, as on a disk with no more room than that
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    process = run_apart(shop, "--json", "verdict.json", preexec_fn=no_room)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (2, 4), errors
    assert len([line for line in errors.splitlines() if line.strip()]) == 1
    assert not (shop / "verdict.json").exists()
