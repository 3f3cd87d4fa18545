"""Downloads as files, the commands, and what a run and the gate do with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from e2e.command import command

from autocompress.core.artifact import BYTES_PER_MB
from autocompress.download import files
from autocompress.errors import ArtifactError
from autocompress.report.files import write_files
from autocompress.runtimes import OnnxRuntime
from autocompress.testing.fakes import Scripted, Stand, Variant, ramp, task_of
from autocompress.testing.networks import Exported, Exports

from .small_files import small_model


@pytest.fixture
def model(exports: Exports, tmp_path: Path) -> Path:
    exported: Exported = exports(OnnxRuntime(), "cnn")
    return exported.artifact.copy_to(tmp_path / "model.onnx").path


def test_a_file_is_packed_and_unpacked_by_command(model: Path, tmp_path: Path) -> None:
    packed = command("pack", model, folder=tmp_path)
    assert packed.code == 0, packed.err
    download = tmp_path / "model.onnx.acz"
    assert f"{download.stat().st_size / BYTES_PER_MB:.3f} MB" in packed.out
    content = model.read_bytes()
    model.unlink()
    assert command("unpack", download, folder=tmp_path).code == 0
    assert model.read_bytes() == content
    assert command("unpack", download, "--out", "other.onnx", folder=tmp_path).code == 0
    assert (tmp_path / "other.onnx").read_bytes() == content


def test_a_damaged_download_is_one_error_and_leaves_no_file(model: Path, tmp_path: Path) -> None:
    download = tmp_path / "new.onnx.acz"
    files.pack(model, download)
    download.write_bytes(download.read_bytes()[:-2])
    done = command("unpack", download, folder=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert f"error {download}: cannot be unpacked: " in done.err
    assert "Download it again" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "new.onnx.acz"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("unpack", "none.acz"), "none.acz: does not exist"),
        (("unpack",), "Give the path of an .acz file"),
        (("unpack", "model.onnx"), "does not end in .acz"),
        (("unpack", "model.onnx", "--out", "model.onnx"), "would be written over itself"),
        (("unpack", "model.onnx", "--out", "x"), "model.onnx: cannot be unpacked: it is no .acz file"),
        (("pack", "text.onnx"), "text.onnx: is not a whole ONNX model"),
        (("pack", "model.onnx", "--out", "model.onnx"), "would be written over itself"),
        (("pack", "model.onnx", "--out", "no/folder.acz"), "cannot be written"),
        (("unpack", "--decoder-source", "pyton"), "Did you mean 'python'?"),
    ],
)
def test_bad_input_is_one_error(model: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    done = command(*arguments, folder=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1), done.err
    assert said in done.err


def test_the_decoder_that_is_printed_needs_nothing_else(model: Path, tmp_path: Path) -> None:
    files.pack(model, tmp_path / "model.onnx.acz")
    printed = command("unpack", "--decoder-source", "python", folder=tmp_path)
    decoder = tmp_path / "decoder.py"
    decoder.write_text(printed.out)
    arguments = [sys.executable, "-I", "-S", decoder.name, "model.onnx.acz"]
    subprocess.run([*arguments, "again.onnx"], cwd=tmp_path, check=True)
    assert (tmp_path / "again.onnx").read_bytes() == model.read_bytes()
    (tmp_path / "model.onnx.acz").write_bytes(b"ACZ")
    done = subprocess.run([*arguments, "wrong.onnx"], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (2, b"error: model.onnx.acz: it is no .acz file\n")
    assert not (tmp_path / "wrong.onnx").exists()


def test_weights_in_a_second_file_are_refused(tmp_path: Path) -> None:
    model = small_model()
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    onnx.load(path)
    with pytest.raises(ArtifactError, match=r"weights in a second file.*download: zstd"):
        files.download_of(path)


def test_a_run_writes_the_download_that_it_was_judged_by(tmp_path: Path) -> None:
    stand = Stand(
        tmp_path,
        [Scripted("scripted", {"good": Variant()})],
        budgets={"download_mb": "0.9x", "latency_ms": "0.6x"},
        task=task_of(ramp(300), ramp(600)),
        download="acz",
    )
    result = stand.result()
    assert result.artifact is not None
    download = tmp_path / "model.onnx.acz"
    assert result.download_bytes == download.stat().st_size
    assert result.measurement.readings["download_mb"].value == result.download_bytes / BYTES_PER_MB
    assert any("model.onnx.acz holds it in" in sentence for sentence in result.explanation)
    again = tmp_path / "again.onnx"
    files.unpack(download, again)
    assert again.read_bytes() == result.artifact.path.read_bytes()
    write_files(result)
    assert json.loads((tmp_path / "result.json").read_text())["download_bytes"] == result.download_bytes


def test_without_the_key_no_download_is_written(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.acz").write_bytes(b"of an earlier answer")
    result = Stand(tmp_path, [], budgets={"size_mb": 1.0}).result()
    assert result.download_bytes is None
    assert not (tmp_path / "model.onnx.acz").exists()


def test_files_that_are_the_same_are_packed_to_the_same_download(model: Path) -> None:
    assert files.download_of(model) == files.download_of(model)
    assert np.frombuffer(files.download_of(model)[:4], dtype=np.uint8).tolist() == [65, 67, 90, 1]
