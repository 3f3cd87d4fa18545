"""An ONNX file as the model, through the commands: run, resume, resolve, apply, plan, inspect, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from autocompress import autocompress
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.runtime import Example
from autocompress.runtimes import OnnxRuntime
from e2e.command import command

MODULE_NEEDED = "the model is a file; changing its structure needs the PyTorch module"


@pytest.fixture(scope="module")
def folder(work: Path, rows: Callable[[], nn.Module]) -> Path:
    """The user's folder, with the file of a trained network."""
    example = Example((np.zeros((2, 1, 8, 8), dtype=np.float32),))
    with chdir(work):
        model = onnx.load(OnnxRuntime().export(rows(), example, work / "net.onnx").path)
    model.doc_string = "from a colleague"
    onnx.save(model, work / "net.onnx")
    return work


@pytest.fixture(scope="module")
def file_run(folder: Path) -> Path:
    done = command(*f"{RUN} --out runs/file".split(), folder=folder)
    assert done.code == 0, done.err
    return folder / "runs" / "file"


RUN = "run --model net.onnx --data digits.npz --profile small.yaml"


@pytest.mark.slow
def test_a_file_is_compressed_and_judged_beside_itself(folder: Path, file_run: Path) -> None:
    result = json.loads((file_run / "result.json").read_text())
    assert result["status"] == "met"
    assert (file_run / "baseline.onnx").read_bytes() == (folder / "net.onnx").read_bytes()
    assert (file_run / "model.onnx").stat().st_size < 0.5 * (folder / "net.onnx").stat().st_size
    assert "the model is the file net.onnx" in (file_run / "report.html").read_text()


@pytest.mark.slow
def test_the_run_of_a_file_is_resumed_resolved_and_replayed(folder: Path, file_run: Path, tmp_path: Path) -> None:
    shutil.copytree(file_run, tmp_path / "run")
    assert command(*RUN.split(), "--out", tmp_path / "run", "--resume", folder=folder).code == 0
    done = command("resolve", tmp_path / "run", "--size-mb", "0.9x", folder=folder)
    assert done.code == 0, done.err
    line = f"apply {file_run / 'plan.yaml'} {RUN.removeprefix('run ')}"
    done = command(*line.split(), "--out", tmp_path / "replayed", folder=folder)
    assert done.code == 0, done.err
    assert (tmp_path / "replayed" / "model.onnx").read_bytes() == (file_run / "model.onnx").read_bytes()
    other = onnx.load(folder / "net.onnx")
    other.doc_string = "another"
    onnx.save(other, tmp_path / "net.onnx")
    line = RUN.replace("net.onnx", str(tmp_path / "net.onnx"))
    done = command(*line.split(), "--out", tmp_path / "run", "--resume", folder=folder)
    assert done.code == 2
    assert "model changed" in done.err


@pytest.mark.slow
def test_what_needs_the_module_is_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    done = command(*RUN.replace("run ", "plan ").split(), folder=folder)
    assert done.code == 0, done.err
    assert MODULE_NEEDED in done.out
    assert "distillation: the model is a file" in done.out
    step = Step("distillation", Stage.RECOVERY, {"steps": 4, "views": 1, "feature_weight": 0.0})
    (tmp_path / "plan.yaml").write_text(Plan(rounds=((step,),)).to_yaml(), encoding="utf-8")
    line = f"apply {tmp_path}/plan.yaml --model net.onnx --data digits.npz --out {tmp_path}/out"
    done = command(*line.split(), folder=folder)
    assert done.code == 2
    assert MODULE_NEEDED in done.err


def test_inspect_shows_the_layers_of_a_file(folder: Path) -> None:
    done = command("inspect", "--model", "net.onnx", "--json", folder=folder)
    facts = json.loads(done.out)
    assert facts["is_file"]
    assert sum(layer["kind"] == "convolution" for layer in facts["layers"]) == 2


@pytest.mark.slow
def test_without_data_a_file_needs_no_more_than_its_own_shapes(folder: Path, tmp_path: Path) -> None:
    result = autocompress(folder / "net.onnx", folder / "size-alone.yaml", out=tmp_path, budgets={"size_mb": "0.6x"})
    assert str(result.status) == "met"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--model nothing.onnx", "nothing.onnx: does not exist."),
        ("--model small.yaml.onnx", "not a whole ONNX model"),
        ("--model net.onnx --weights rows.pt", "holds its own weights"),
        ("--model net.onnx --output boxes", "has no output 'boxes'. It has output."),
        ("--model net.onnx --keep-float heat", "there is no layer named 'heat'"),
        ("--model net.onnx --input 1x9x8", "input input has 4 dimensions"),
    ],
)
def test_a_mistake_with_a_file_is_one_line(folder: Path, line: str, says: str) -> None:
    shutil.copyfile(folder / "small.yaml", folder / "small.yaml.onnx")
    done = command(*f"run {line} --data digits.npz --profile small.yaml --out runs/bad".split(), folder=folder)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.strip().splitlines()) == 1
