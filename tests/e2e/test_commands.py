"""The commands beside `run` and `apply`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper

from autocompress.core.budget import Budget
from autocompress.core.probes import Probe, Probes
from autocompress.core.profile import load_profile, shipped_profiles
from autocompress.core.profitable_settings import refuse_what_does_not_pay
from autocompress.runtimes import OnnxRuntime
from e2e.command import Done, command, process
from e2e.conftest import Run

COMMANDS = (
    "run", "plan", "apply", "resolve", "measure", "check", "inspect", "sensitivity", "report", "profile",
    "profile list", "profile show", "profile validate", "profile detect",
)  # fmt: skip


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a gradient was asked for")

    monkeypatch.setattr(torch.autograd, "backward", refuse)
    monkeypatch.setattr(torch.optim.Optimizer, "step", refuse)


@pytest.fixture
def elsewhere(work: Path, tmp_path: Path) -> Path:
    """A folder of a user without any run in it."""
    for path in work.iterdir():
        if path.is_file():
            shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


@pytest.fixture(scope="session")
def not_finite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose outputs are not numbers."""
    graph = helper.make_graph(
        [helper.make_node("Sqrt", ["input"], ["root"]), helper.make_node("Div", ["root", "zero"], ["output"])],
        "not_finite",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])],
    )
    path = tmp_path_factory.mktemp("not-finite") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.mark.usefixtures("no_training")
def test_plan_begins_with_what_would_be_tried_and_refused_and_leaves_nothing(elsewhere: Path) -> None:
    before = sorted(elsewhere.rglob("*"))
    given = ["--model", "models.py:rows", "--data", "digits.npz", "--profile", "small.yaml"]
    done = command("plan", *given, "--verbose", folder=elsewhere)
    assert (done.code, done.err) == (0, "")
    answer = done.out[done.out.index("To try, cheapest effort first") :]
    assert re.search(r"1\. int8_dynamic: \d+ plans?, size about 0\.\d\dx, latency about", answer)
    assert re.search(r"2\. int8_static: \d+ plans", answer)
    refused = re.findall(r"^  (\w+): (.*)", answer[answer.index("Refused") : answer.index("Preflight")], re.MULTILINE)
    assert refused
    assert all(reason.strip() for _, reason in refused)
    tree = answer[answer.index("Decision tree") :]
    assert "Does it already fit? no" in tree
    assert "What is it? a convolutional network" in tree
    assert "int8_dynamic  effort none" in tree
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.usefixtures("no_training")
def test_plan_is_brief_unless_more_is_asked(elsewhere: Path) -> None:
    given = ["--model", "models.py:rows", "--data", "digits.npz", "--profile", "small.yaml"]
    done = command("plan", *given, folder=elsewhere)
    assert "Preflight" in done.out
    assert "Decision tree" not in done.out
    assert "--verbose" in done.out


def test_the_ladder_gives_the_figures_behind_what_is_taken_and_refused(digits_run: Run) -> None:
    search_space = json.loads((digits_run.folder / "result.json").read_text(encoding="utf-8"))["search_space"]
    assert search_space["recipes"]
    for recipe in search_space["recipes"]:
        predicted = f"size about {recipe['predicted_size']:.2f}x, latency about {recipe['predicted_latency']:.2f}x"
        assert predicted in digits_run.done.out
    assert search_space["refusals"]
    for name, reason in search_space["refusals"].items():
        assert f"{name}: {reason['sentence']} ({reason['fact']})" in " ".join(digits_run.done.out.split())


def test_a_technique_slower_than_float_is_tried_where_the_budget_has_room_for_it(work: Path) -> None:
    # int8_dynamic needs no data and is the cheapest of all; at 1.4x it keeps a budget of 3x
    probe = Probe("int8_dynamic", {"weight": "uint8", "per_channel": False}, 1.4, 1.39, 1.41, 0.25)
    roomy = load_profile(work / "full.yaml").with_budgets([Budget("latency_ms", 3.0, relative=True)])
    assert refuse_what_does_not_pay("dynamic int8", "int8_dynamic", Probes((probe,), (), True), roomy) is None


@pytest.mark.usefixtures("no_training")
def test_plan_as_json_holds_facts_probes_and_ladder(elsewhere: Path) -> None:
    done = command(
        "plan", "--model", "models.py:rows", "--input", "1x1x8x8", "--profile", "small.yaml", "--json", folder=elsewhere
    )
    assert done.code == 0, done.err
    planned = json.loads(done.out)
    assert planned["schema"] == 2
    assert planned["facts"]["family"] == "cnn"
    assert set(planned) == {"schema", "facts", "probes", "search_space"}
    assert "int8_dynamic" in {recipe["name"] for recipe in planned["search_space"]["recipes"]}
    assert (
        planned["search_space"]["refusals"]["int8_static"]["sentence"] == "needs calibration data, and there are none."
    )
    assert "space" in done.err
    assert not (elsewhere / "runs").exists()


@pytest.mark.parametrize("name", ["inspect", "plan"])
def test_json_is_alone_on_standard_output(name: str, elsewhere: Path) -> None:
    profile = ["--profile", "small.yaml"] if name == "plan" else []
    done = command(name, "--model", "models.py:chatty", "--input", "1x1x8x8", *profile, "--json", folder=elsewhere)
    assert done.code == 0
    json.loads(done.out)


def test_measure_gives_size_latency_with_its_interval_and_memory(digits_run: Run, work: Path) -> None:
    shipped = digits_run.folder / "model.onnx"
    done = command("measure", shipped, "--profile", "full.yaml", "--streams", "2", folder=work)
    assert done.code == 0, done.err
    assert f"{shipped.stat().st_size / 1e6:.3f} MB" in done.out
    for words in (
        "latency p50",
        " to ",
        "p95",
        "items/s (",
        "2 stream(s) of batch 1",
        "MB above an empty runtime",
        "1 thread",
    ):
        assert words in done.out


def test_measure_as_json_beside_a_baseline_gives_ratios(digits_run: Run, work: Path) -> None:
    shipped = digits_run.folder / "model.onnx"
    done = command(
        "measure", shipped, "--baseline", digits_run.baseline, "--profile", "full.yaml", "--json", folder=work
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["size_mb"] == shipped.stat().st_size / 1e6
    assert found["size_ratio"] == pytest.approx(shipped.stat().st_size / digits_run.baseline.stat().st_size)
    interval, latency = found["latency_interval_ms"], found["latency_ms"]
    assert 0 < interval["low"] <= latency["p50"] * 1.05
    assert interval["low"] <= interval["high"]
    assert latency["p50"] <= latency["p95"] <= latency["p99"]
    assert found["latency_ratio"]["low"] <= found["latency_ratio"]["value"] <= found["latency_ratio"]["high"]
    assert found["conditions"]["artifact_hash"] == OnnxRuntime().read(shipped).hash
    assert found["memory_mb"] > 0


def check(run: Run, work: Path, *more: str | Path, baseline: bool = True) -> Done:
    beside = ("--baseline", run.baseline) if baseline else ()
    return command("check", run.folder / "model.onnx", *beside, *more, folder=work)


def test_check_of_what_was_certified_ends_0_and_writes_the_verdict(digits_run: Run, work: Path, tmp_path: Path) -> None:
    verdict = tmp_path / "verdict.json"
    done = check(digits_run, work, "--profile", "full.yaml", "--data", "digits", "--json", verdict)
    assert done.code == 0, done.out + done.err
    assert done.out.startswith("met: ")
    found = json.loads(verdict.read_text(encoding="utf-8"))
    (only,) = found["checks"]
    assert (found["exit_code"], only["status"]) == (0, "met")
    assert {finding["standing"] for finding in only["findings"]} == {"met"}
    assert only["artifact_sha256"] == OnnxRuntime().read(digits_run.folder / "model.onnx").hash


def test_check_of_a_broken_budget_ends_1_and_names_it(rows_run: Run, work: Path, tmp_path: Path) -> None:
    verdict = tmp_path / "verdict.json"
    done = check(rows_run, work, "--profile", "size-alone.yaml", "--size-mb", "0.1x", "--json", verdict)
    assert done.code == 1
    assert done.out.startswith("not met: ")
    assert "largest tensors: " in done.out
    (only,) = json.loads(verdict.read_text(encoding="utf-8"))["checks"]
    assert only["status"] == "not met"
    assert [finding["standing"] for finding in only["findings"] if finding["metric"] == "size_mb"] == ["exceeded"]


def test_check_without_what_it_takes_ends_3_and_says_what_is_unmeasured(rows_run: Run, work: Path) -> None:
    done = check(rows_run, work, "--profile", "small.yaml", baseline=False)
    assert done.code == 3
    assert done.out.startswith("undecided: ")
    assert "size_mb: the baseline was not measured" in done.out
    assert "max_accuracy_drop_pp: accuracy was not measured" in done.out


def test_check_with_a_baseline_and_no_data_is_undecided_about_accuracy_alone(rows_run: Run, work: Path) -> None:
    done = check(rows_run, work, "--profile", "small.yaml")
    assert done.code == 3
    assert "passed  size_mb" in done.out
    assert "failed  max_accuracy_drop_pp" in done.out


def test_check_on_another_machine_ends_4(rows_run: Run, work: Path) -> None:
    done = check(rows_run, work, "--profile", "raspberry-pi-4")
    assert done.code == 4
    assert len(done.error_lines) == 1
    assert "describes another machine" in done.err


def test_check_of_outputs_that_are_not_finite_ends_4(not_finite: Path, work: Path) -> None:
    done = command("check", not_finite, "--profile", "size-alone.yaml", "--size-mb", "1", folder=work)
    assert done.code == 4
    assert len(done.error_lines) == 1
    assert "NaN" in done.err


def test_check_without_any_budget_is_never_met(rows_run: Run, work: Path, tmp_path: Path) -> None:
    profile = tmp_path / "none.yaml"
    profile.write_text("name: none\nprotocol: {max_seconds: 0.2}\n", encoding="utf-8")
    assert check(rows_run, work, "--profile", profile).code == 3


def test_a_share_without_a_baseline_is_explained_by_the_missing_baseline(rows_run: Run, work: Path) -> None:
    done = check(rows_run, work, "--profile", "size-alone.yaml", "--latency-ms", "2x", baseline=False)
    assert done.code == 3
    assert "latency was not measured" not in done.out


def test_inspect_counts_parameters_and_work(work: Path) -> None:
    done = command("inspect", "--model", "models.py:rows", "--input", "1x1x8x8", folder=work)
    assert done.code == 0, done.err
    layers = {line.split()[0]: line.split() for line in done.out.splitlines()[2:]}
    # 8 * 64 * 3 weights and 64 biases; each weight is used at 8 places
    assert layers["body.0"][1:5] == ["Conv1d", "64x8", "1.60k", "12.3k"]
    assert layers["head"][1:5] == ["Linear", "10", "650", "640"]
    assert done.out.startswith("cnn: ")
    assert "14,602 parameters (100.0% non-zero," in done.out


def test_sensitivity_lists_the_layers_and_writes_what_it_measured(work: Path, tmp_path: Path) -> None:
    files = tmp_path / "s.json", tmp_path / "s.html"
    asked = ("--data", "digits.npz", "--setting", "samples=64", "--json", files[0], "--html", files[1])
    done = command("sensitivity", "--model", "models.py:rows", *asked, folder=work)
    assert done.code == 0, done.err
    written = json.loads(files[0].read_text(encoding="utf-8"))
    assert {layer["name"] for layer in written["layers"]} == {"body.0", "body.2", "head"}
    assert written["settings"]["samples"] == 64
    assert all(layer["name"] in done.out for layer in written["layers"])
    assert all(layer["milliseconds"] is not None for layer in written["layers"] if layer["operator"] == "Conv")
    page = files[1].read_text(encoding="utf-8")
    assert "<svg" in page
    assert "body.2" in page


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--technique", "distillation"), "does not act on files"),
        (("--technique", "magic"), "there is no technique named 'magic'"),
        (("--technique", "float16"), "cannot leave single layers"),
        (("--setting", "colour=red"), "has no setting 'colour'"),
        (("--setting", "colour"), "Write NAME=VALUE"),
    ],
)
def test_what_sensitivity_cannot_do_is_said(work: Path, asked: tuple[str, str], said: str) -> None:
    done = command("sensitivity", "--model", "models.py:rows", "--data", "digits.npz", *asked, folder=work)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert said in done.err


def test_sensitivity_needs_data(work: Path) -> None:
    done = command("sensitivity", "--model", "models.py:rows", "--input", "1x1x8x8", folder=work)
    assert done.code == 2
    assert "Give --data" in done.err


def test_inspect_as_json_agrees_with_torch(work: Path) -> None:
    done = command("inspect", "--model", "models.py:rows", "--data", "digits.npz", "--json", folder=work)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    state = torch.load(work / "rows.pt", weights_only=True)
    assert facts["parameters"] == sum(value.numel() for value in state.values())
    assert facts["macs"] == sum(layer["macs"] for layer in facts["layers"])


def test_report_shows_the_run_again(digits_run: Run, work: Path) -> None:
    done = command("report", digits_run.folder, folder=work)
    assert done.code == 0, done.err
    answer = digits_run.done.out[digits_run.done.out.index("\nmet: ") :].splitlines()[:-1]
    assert "\n".join(answer) in done.out


def test_profile_list_names_what_is_shipped(work: Path) -> None:
    done = command("profile", "list", folder=work)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:] if line.strip()] == sorted(shipped_profiles())
    assert "max_accuracy_drop_pp <= 1.5 pp" in done.out


def test_profile_show_prints_a_profile_that_can_be_used(work: Path, tmp_path: Path) -> None:
    done = command("profile", "show", "raspberry-pi-4", folder=work)
    assert done.code == 0
    (tmp_path / "mine.yaml").write_text(done.out, encoding="utf-8")
    assert load_profile(tmp_path / "mine.yaml") == load_profile("raspberry-pi-4")


@pytest.mark.parametrize("name", sorted(shipped_profiles()))
def test_profile_validate_tells_whether_this_machine_is_meant(name: str, work: Path) -> None:
    done = command("profile", "validate", name, folder=work)
    assert done.code == 0
    assert done.out.startswith(f"{name}: valid; budgets size_mb <= ")
    fits = "fits this machine" in done.out
    assert fits != ("this machine is another: " in done.out)
    assert fits or name != "local"


def test_what_profile_detect_writes_is_valid_and_fits_this_machine(work: Path, tmp_path: Path) -> None:
    file = tmp_path / "box.yaml"
    done = command("profile", "detect", "--out", file, "--name", "box", folder=work)
    assert (done.code, done.out) == (0, f"wrote {file}\n")
    checked = command("profile", "validate", file, folder=work)
    assert checked.code == 0
    assert "box: valid; " in checked.out
    assert "fits this machine: " in checked.out
    assert load_profile(file).budgets == load_profile("local").budgets
    printed = yaml.safe_load(command("profile", "detect", folder=work).out)
    assert printed["device"]["fingerprint"] == yaml.safe_load(file.read_text(encoding="utf-8"))["device"]["fingerprint"]


def test_a_detected_profile_refuses_a_machine_that_differs_in_one_fact(work: Path, tmp_path: Path) -> None:
    profile = yaml.safe_load(command("profile", "detect", folder=work).out)
    profile["device"]["fingerprint"]["cores"] += 1
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(profile), encoding="utf-8")
    done = command("run", "--model", "models.py:rows", "--data", "digits.npz", "--profile", file, folder=work)
    assert done.code == 4
    assert f"{profile['device']['fingerprint']['cores']} cores, here" in done.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, work: Path) -> None:
    done = command(*name.split(), "--help", folder=work, columns=80)
    assert done.code == 0
    assert done.err == ""
    assert f" {name} " in done.out
    assert "--help" in done.out
    assert "…" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("name", ["run", "plan", "apply", "resolve", "check"])
def test_every_command_that_judges_takes_every_budget(name: str, work: Path) -> None:
    said = command(name, "--help", folder=work).out
    for flag in ("--size-mb", "--download-mb", "--memory-mb", "--latency-ms", "--throughput-per-s", "--energy-mj",
                 "--max-accuracy-drop-pp", "--min-accuracy", "--max-score-drop"):  # fmt: skip
        assert f" {flag} " in said


def test_help_comes_from_a_process_that_imports_no_heavy_library(work: Path) -> None:
    script = (
        "import sys; sys.argv = ['autocompress', 'run', '--help']\n"
        "from autocompress.cli.commands import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "heavy = ('torch', 'onnxruntime', 'onnx', 'pandas', 'scipy', 'optuna')\n"
        "print('HEAVY', code, [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=work
    )
    assert done.stdout.splitlines()[-1] == "HEAVY 0 []"


def test_the_module_runs_as_a_program(work: Path) -> None:
    done = process("profile", "validate", "local", folder=work)
    assert done.code == 0
    assert done.out.startswith("local: valid")
