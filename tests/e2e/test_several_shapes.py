"""A profile that names several shapes: budgets on what is timed hold at each of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from autocompress.testing.networks import VOCABULARY, token_model
from e2e.command import command

PROFILE = """name: p
protocol: {max_seconds: 0.3, precision: 0.5}
budgets:
  size_mb: 1
  latency_ms: {limit: 5000, on_undecided: warn}
inputs: {input_ids: [[1, 64], [1, 8]], attention_mask: [[1, 64], [1, 8]]}
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    onnx.save(token_model(), tmp_path / "model.onnx")
    (tmp_path / "profile.yaml").write_text(PROFILE, encoding="utf-8")
    return tmp_path


def test_the_gate_has_a_finding_for_each_of_the_profiles_shapes(shop: Path) -> None:
    reports = ("--json", "v.json", "--junit", "v.xml", "--markdown", "v.md")
    done = command("check", "model.onnx", "--profile", "profile.yaml", *reports, folder=shop)
    assert done.code == 0, done.out + done.err
    check = json.loads((shop / "v.json").read_text(encoding="utf-8"))["checks"][0]
    found = {(one["metric"], one["shapes"]): one["value"] for one in check["findings"]}
    assert list(found) == [("size_mb", ""), ("latency_ms", "1x8"), ("latency_ms", "1x64")]
    assert found["latency_ms", "1x8"] != found["latency_ms", "1x64"]
    for text in (done.out, *((shop / name).read_text(encoding="utf-8") for name in ("v.xml", "v.md"))):
        assert "at 1x8" in text
        assert "at 1x64" in text


def test_a_shape_that_does_not_fit_is_an_error_also_where_another_one_fits(shop: Path) -> None:
    done = command("check", "model.onnx", "--profile", "profile.yaml", "--input", "attention_mask=1x8", folder=shop)
    assert done.code == 2, done.out
    assert "the sizes 64 and 8" in done.err


def test_a_repeated_input_of_the_command_line_is_measured_at_each_shape(shop: Path) -> None:
    shapes = [
        text for name in ("input_ids", "attention_mask") for size in (4, 16) for text in ("--input", f"{name}=1x{size}")
    ]
    done = command("measure", "model.onnx", "--profile", "profile.yaml", *shapes, "--json", folder=shop)
    assert done.code == 0, done.err
    measured = json.loads(done.out)
    assert measured["shapes"] == "1x16"
    assert list(measured["smaller"]) == ["1x4"]
    assert measured["smaller"]["1x4"]["size_mb"] == measured["size_mb"]
    assert measured["smaller"]["1x4"]["latency_ms"] != measured["latency_ms"]


def test_shapes_of_the_profile_go_before_those_of_the_data(shop: Path) -> None:
    ids = np.arange(60).reshape(10, 6) % VOCABULARY
    arrays = {"x_test.input_ids": ids, "x_test.attention_mask": np.ones_like(ids), "y_test": np.zeros(10, np.int64)}
    np.savez(shop / "data.npz", **arrays)  # type: ignore[arg-type]
    told = ("check", "model.onnx", "--profile", "profile.yaml", "--data", "data.npz", "--json", "v.json")
    done = command(*told, folder=shop)
    assert done.code == 0, done.out + done.err
    check = json.loads((shop / "v.json").read_text(encoding="utf-8"))["checks"][0]
    assert [one["shapes"] for one in check["findings"]] == ["", "1x8", "1x64"]
