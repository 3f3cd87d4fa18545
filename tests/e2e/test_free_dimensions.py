"""The gate times a file at the shapes that it is told, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from autocompress.testing.networks import VOCABULARY, token_model
from e2e.command import command

# too few blocks to tell are no failure here, what was not measured is one
PROFILE = (
    "name: p\nprotocol: {max_seconds: 0.3, precision: 0.5}\n"
    "budgets: {size_mb: 1, latency_ms: {limit: 5000, on_undecided: warn}}\n"
)
UNSIZED = (
    "input input_ids has a free dimension (sequence): give its shape with inputs: in the profile, "
    "--input input_ids=1x128, or --data"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    onnx.save(token_model(), tmp_path / "model.onnx")
    (tmp_path / "profile.yaml").write_text(PROFILE, encoding="utf-8")
    return tmp_path


def test_a_free_dimension_leaves_all_that_is_timed_unmeasured_and_size_judged(shop: Path) -> None:
    reports = ("--json", "v.json", "--junit", "v.xml", "--markdown", "v.md")
    limits = ("--memory-mb", "4000", "--throughput-per-s", "0.1", "--energy-mj", "1e9")
    done = command("check", "model.onnx", "--profile", "profile.yaml", *limits, *reports, folder=shop)
    assert done.code == 3, done.out + done.err
    verdict = json.loads((shop / "v.json").read_text(encoding="utf-8"))["checks"][0]
    standings = {one["metric"]: one["standing"] for one in verdict["findings"]}
    assert standings.pop("size_mb") == "met"
    assert set(standings.values()) == {"unmeasured"}
    assert len(standings) == 4
    sentences = {one["metric"]: one["sentence"] for one in verdict["findings"]}
    assert sentences["latency_ms"] == f"latency was not measured: {UNSIZED}"
    assert sentences["energy_mj"] == f"energy was not measured: {UNSIZED}"
    for text in (done.out, *((shop / name).read_text(encoding="utf-8") for name in ("v.xml", "v.md"))):
        assert f"memory was not measured: {UNSIZED}" in " ".join(text.split())


def with_inputs(shop: Path, inputs: str) -> None:
    (shop / "profile.yaml").write_text(f"{PROFILE}inputs: {inputs}\n", encoding="utf-8")


@pytest.mark.parametrize(
    "inputs",
    ["{input_ids: [1, 16]}", "{input_ids: [1, 16], attention_mask: 1x16:int64}", '["input_ids=1x16:int64"]'],
)
def test_shapes_of_the_profile_are_what_is_timed(shop: Path, inputs: str) -> None:
    with_inputs(shop, inputs)
    done = command("check", "model.onnx", "--profile", "profile.yaml", folder=shop)
    assert done.code == 0, done.out + done.err


def test_the_shape_is_what_is_fed(shop: Path) -> None:
    # a table of another length than is given makes the runtime fail, at the given length it does not
    model = token_model()
    model.graph.node.append(onnx.helper.make_node("Reshape", ["attention_mask", "as_16"], ["mask"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 16]), "as_16"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.INT64, ["rows", 16]))
    onnx.save(model, shop / "model.onnx")
    assert command("measure", "model.onnx", "--input", "input_ids=1x16", folder=shop).code == 0
    other = command("measure", "model.onnx", "--input", "input_ids=1x24", folder=shop)
    assert other.code == 4, other.out


def test_the_command_line_replaces_the_profiles_shape(shop: Path) -> None:
    with_inputs(shop, "{input_ids: [1, 2, 3]}")
    told = ("check", "model.onnx", "--profile", "profile.yaml")
    assert command(*told, folder=shop).code == 2
    done = command(*told, "--input", "input_ids=1x16:int64", "--input", "attention_mask=1x16", folder=shop)
    assert done.code == 0, done.out + done.err


def test_data_give_the_shapes(shop: Path) -> None:
    ids = np.arange(60).reshape(10, 6) % VOCABULARY
    arrays = {"x_test.input_ids": ids, "x_test.attention_mask": np.ones_like(ids), "y_test": np.zeros(10, np.int64)}
    np.savez(shop / "data.npz", **arrays)  # type: ignore[arg-type]
    done = command("check", "model.onnx", "--profile", "profile.yaml", "--data", "data.npz", folder=shop)
    assert done.code == 0, done.out + done.err


def test_a_free_batch_alone_is_measured_at_the_profiles_batch(shop: Path) -> None:
    onnx.save(token_model(sequence=16), shop / "model.onnx")
    (shop / "profile.yaml").write_text(PROFILE.replace("protocol: {", "protocol: {batch: 4, "), encoding="utf-8")
    done = command("measure", "model.onnx", "--profile", "profile.yaml", "--json", folder=shop)
    assert done.code == 0, done.err
    assert json.loads(done.out)["conditions"]["batch"] == 4


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("input_idz=1x16", "Did you mean 'input_ids'?"),
        ("input_ids=16", "input_ids has 2 dimensions"),
        ("input_ids=1x16:float32", "takes int64"),
        ("input_ids=8x16", "batch"),
        ("input_ids=1xx", "is not an input spec"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error_of_usage(shop: Path, shape: str, said: str) -> None:
    for name in ("check", "measure"):
        done = command(name, "model.onnx", "--input", shape, folder=shop)
        assert done.code == 2, done.out + done.err
        assert said in done.err
        assert len(done.error_lines) == 1


def test_shapes_that_contradict_each_other_or_the_file_are_errors(shop: Path) -> None:
    both = ("--input", "input_ids=1x16", "--input", "attention_mask=1x8")
    done = command("check", "model.onnx", *both, folder=shop)
    assert (done.code, "sequence" in done.err) == (2, True), done.err
    onnx.save(token_model(sequence=16), shop / "model.onnx")
    done = command("check", "model.onnx", "--input", "input_ids=1x8", folder=shop)
    assert (done.code, "fixed at 16" in done.err) == (2, True), done.err


def test_measure_gives_the_size_and_says_what_is_missing(shop: Path) -> None:
    done = command("measure", "model.onnx", folder=shop)
    assert done.code == 3, done.err
    assert "size" in done.out
    assert f"not measured: {UNSIZED}" in " ".join(done.out.split())
    done = command("measure", "model.onnx", "--json", folder=shop)
    found = json.loads(done.out)
    assert done.code == 3
    assert (found["latency_ms"], found["memory_mb"], found["unmeasured"]) == (None, None, UNSIZED)


def test_a_baseline_with_free_dimensions_is_timed_at_the_files_shapes(shop: Path) -> None:
    onnx.save(token_model(sequence=16), shop / "model.onnx")
    onnx.save(token_model(), shop / "baseline.onnx")
    beside = ("--baseline", "baseline.onnx", "--latency-ms", "100x")
    done = command("check", "model.onnx", "--profile", "profile.yaml", *beside, folder=shop)
    assert done.code == 0, done.out + done.err


TOKENS = """
import torch
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(40, 64), nn.Linear(64, 2)

    def forward(self, input_ids):
        return self.head(self.table(input_ids).mean(1))

def model():
    torch.manual_seed(0)
    return Tokens()
"""


@pytest.mark.parametrize("inputs", ["{input_ids: [1, 16]}", "{input_ids: 1x16:int64}"])
def test_a_run_without_data_takes_the_profiles_shapes(shop: Path, inputs: str) -> None:
    (shop / "tokens.py").write_text(TOKENS, encoding="utf-8")
    text = f"name: p\nprotocol: {{max_seconds: 0.3}}\nbudgets: {{size_mb: 1x}}\ninputs: {inputs}\n"
    (shop / "profile.yaml").write_text(text, encoding="utf-8")
    done = command("run", "--model", "tokens.py:model", "--profile", "profile.yaml", "--out", "out", folder=shop)
    assert done.code == 0, done.out + done.err
    shipped = onnx.load(shop / "out" / "model.onnx")
    assert [value.name for value in shipped.graph.input] == ["input_ids"]
    assert shipped.graph.input[0].type.tensor_type.shape.dim[1].dim_param == "sequence"
