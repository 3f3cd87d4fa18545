"""What a user gets wrong: one line that says what, where and what to do, exit code 2, no traceback."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from e2e.command import ADVICE, Done, command, process
from e2e.conftest import Run, digits

RUN = "run --model models.py:rows --data digits.npz --profile small.yaml"


@dataclass(frozen=True)
class Case:
    """A command line in the folder `bad`, and what its error line has to hold."""

    line: str
    says: tuple[str, ...]
    silent_on_what_to_do: bool = False


def case(line: str, *says: str) -> Case:
    return Case(line, says)


def without_advice(line: str, *says: str) -> Case:
    return Case(line, says, silent_on_what_to_do=True)


CASES: Mapping[str, Case] = {
    # profiles
    "profile_with_an_unknown_key": case(
        f"{RUN} --profile bad/key.yaml", "bad/key.yaml", "no key 'budgetz'", "Did you mean 'budgets'?"
    ),
    "profile_with_an_unknown_key_inside": case(
        f"{RUN} --profile bad/inner.yaml", "bad/inner.yaml: device.fingerprint.arhc", "Did you mean 'arch'?"
    ),
    "profile_with_an_unknown_budget": case(
        f"{RUN} --profile bad/budget.yaml", "bad/budget.yaml: budgets.size_bm", "Did you mean 'size_mb'?"
    ),
    "profile_with_a_negative_budget": case(
        f"{RUN} --profile bad/negative.yaml", "bad/negative.yaml: budgets.size_mb", "at least 0, not -1"
    ),
    "profile_with_a_budget_that_is_no_number": case(
        f"{RUN} --profile bad/words.yaml", "bad/words.yaml: budgets.size_mb", "'small' is not a limit"
    ),
    "profile_that_is_not_yaml": case(f"{RUN} --profile bad/broken.yaml", "bad/broken.yaml, line 1", "is not YAML"),
    "profile_that_is_a_sentence": case(f"{RUN} --profile bad/sentence.yaml", "bad/sentence.yaml", "is not a profile"),
    "profile_that_is_missing": case(f"{RUN} --profile bad/nowhere.yaml", "bad/nowhere.yaml", "local"),
    "profile_that_is_a_folder": case(f"{RUN} --profile bad", "bad: is not a file"),
    "profile_with_an_unknown_objective": case(
        f"{RUN} --profile bad/objective.yaml", "bad/objective.yaml: objective", "effort", "'fast' is not"
    ),
    # flags
    "negative_budget": case(f"{RUN} --size-mb -1", "size", "at least 0, not -1"),
    "budget_that_is_no_number": case(f"{RUN} --latency-ms quick", "latency", "'quick' is not a limit", "0.5x"),
    "budget_that_is_not_finite": case(f"{RUN} --size-mb nan", "size", "not nan"),
    "share_of_an_accuracy": case(f"{RUN} --max-accuracy-drop-pp 0.5x", "drop", "cannot be a share", "give it in pp"),
    "accuracy_above_100": case(f"{RUN} --min-accuracy 101", "accuracy", "at most 100"),
    "negative_time": case(f"{RUN} --max-time -5s", "--max-time", "'-5s' is not a positive time", "20m"),
    "time_in_words": case(f"{RUN} --max-time soon", "--max-time", "'soon' is not a positive time", "20m"),
    "unknown_objective": case(f"{RUN} --objective fast", "objective", "'fast' is not an objective", "serving_cost"),
    "unknown_augmentation": case(f"{RUN} --augment flop", "augment", "no 'flop'", "Did you mean 'flip'?"),
    "input_that_is_no_spec": case(
        "run --model models.py:rows --profile small.yaml --input 8by8", "--input", "'8by8' is not an input spec"
    ),
    "nothing_to_call_the_model_with": case("run --model models.py:rows", "model", "--input"),
    "out_that_is_a_file": without_advice(f"{RUN} --out bad/key.yaml", "bad/key.yaml", "run's folder"),
    "layer_that_is_not_there": case(f"{RUN} --keep-float bodies", "keep_float", "no layer named 'bodies'", "'body'"),
    # models
    "model_of_a_missing_file": case(f"{RUN} --model nowhere.py:rows", "nowhere.py: does not exist"),
    "model_of_a_missing_package": case(f"{RUN} --model nowhere.models:rows", "no module 'nowhere'"),
    "model_with_an_error_in_its_file": case(
        f"{RUN} --model bad/syntax.py:rows", "bad/syntax.py, line 2", "SyntaxError"
    ),
    "model_that_imports_what_is_missing": case(
        f"{RUN} --model bad/imports.py:rows", "bad/imports.py, line 1", "nowhere"
    ),
    "model_of_an_unknown_name": case(f"{RUN} --model models.py:row", "models.py", "no callable 'row'", "'rows'"),
    "model_without_a_name": case(f"{RUN} --model models", "'models': names no callable", "file.py:callable"),
    "model_that_raises": case(
        f"{RUN} --model models.py:raises", "models.py, line", "raised RuntimeError: the weights are gone"
    ),
    "model_that_is_nothing": case(f"{RUN} --model models.py:nothing", "models.py", "returned None, not an nn.Module"),
    "model_that_cannot_be_exported": case(
        f"{RUN} --model models.py:unexportable", "layer '2' (Sorts)", "cannot be exported to ONNX"
    ),
    "model_whose_outputs_are_not_finite": case(f"{RUN} --model models.py:not_finite", "model", "NaN"),
    "weights_of_another_model": case(
        f"{RUN} --model torchvision:resnet18 --weights rows.pt", "rows.pt", "does not fit the model"
    ),
    "weights_that_are_no_checkpoint": case(f"{RUN} --weights bad/noise.onnx", "bad/noise.onnx", "is not a checkpoint"),
    # data
    "data_that_are_missing": case(f"{RUN} --data bad/nowhere.npz", "bad/nowhere.npz: does not exist"),
    "data_of_an_unknown_name": case(f"{RUN} --data digit", "'digit'", "Did you mean 'digits'?"),
    "data_of_the_wrong_shape": case(f"{RUN} --data bad/shape.npz", "(2, 1, 5, 8)", "what the model takes"),
    "data_of_the_wrong_type": case(f"{RUN} --data bad/type.npz", "int64", "It takes (2, 1, 8, 8) torch.float32"),
    "data_that_are_empty": case(f"{RUN} --data bad/empty.npz", "bad/empty.npz: ", "is empty", "at least one item"),
    "data_that_are_not_finite": case(f"{RUN} --data bad/nan.npz", "bad/nan.npz: x_test", "NaN", "item 7"),
    "data_of_an_unknown_key": case(f"{RUN} --data bad/key.npz", "bad/key.npz", "'x_trian'", "Did you mean 'x_train'?"),
    "data_without_labels": case(f"{RUN} --data bad/lonely.npz", "bad/lonely.npz", "no y_test"),
    "data_that_are_no_archive": case(f"{RUN} --data bad/noise.npz", "bad/noise.npz", "not an npz file"),
    "labels_out_of_range": without_advice(f"{RUN} --data bad/label.npz", "label", "is out of range", "10 classes"),
    "labels_that_are_negative": case(f"{RUN} --data bad/minus.npz", "bad/minus.npz: y_test", "negative", "item 3"),
    "data_that_are_no_task": case(f"{RUN} --data tasks.py:pair", "tasks.py: pair() returned a tuple, not a Task"),
    "score_of_the_wrong_shape": case(
        f"{RUN} --data tasks.py:no_scores", "score: returned shape ()", "One score per item"
    ),
    # artifacts
    "measure_of_no_model": without_advice("measure bad/noise.onnx", "bad/noise.onnx", "ONNX"),
    "check_of_no_model": without_advice("check bad/noise.onnx", "bad/noise.onnx", "ONNX"),
    "measure_of_an_empty_file": without_advice("measure bad/empty.onnx", "bad/empty.onnx: is empty"),
    "check_of_a_missing_file": without_advice("check bad/nowhere.onnx", "bad/nowhere.onnx: does not exist"),
    "measure_of_a_folder": case("measure bad", "bad: is not a file"),
    "check_beside_no_model": without_advice("check rows.onnx --baseline bad/noise.onnx", "bad/noise.onnx", "ONNX"),
    "check_with_data_of_the_wrong_shape": without_advice(
        "check rows.onnx --profile small.yaml --data bad/shape.npz", "(1, 1, 5, 8)", "(n, 1, 8, 8)"
    ),
    "report_of_no_run": case("report bad", "bad/result.json", "finished run"),
    # plans
    "plan_that_is_missing": without_advice(f"{RUN} PLAN bad/nowhere.yaml", "bad/nowhere.yaml", "cannot be read"),
    "plan_that_is_not_yaml": case(f"{RUN} PLAN bad/broken.yaml", "bad/broken.yaml", "is not YAML"),
    "plan_that_is_a_profile": case(f"{RUN} PLAN small.yaml", "small.yaml", "is not a plan", "finish"),
    "plan_of_another_schema": without_advice(f"{RUN} PLAN bad/schema.yaml", "bad/schema.yaml", "schema 9"),
    "plan_with_half_a_step": case(f"{RUN} PLAN bad/half.yaml", "bad/half.yaml", "malformed step", "settings"),
    "plan_of_an_unknown_stage": case(f"{RUN} PLAN bad/stage.yaml", "bad/stage.yaml", "malformed step", "'magic'"),
    "plan_of_an_unknown_technique": case(f"{RUN} PLAN bad/technique.yaml", "no technique named 'int9'", "int8_static"),
    "plan_of_an_unknown_setting": case(f"{RUN} PLAN bad/setting.yaml", "no setting 'bits'", "per_channel"),
    "plan_of_an_unknown_value": case(f"{RUN} PLAN bad/value.yaml", "weight cannot be 'int7'", "uint8"),
}


def _write_data(bad: Path) -> None:
    images, labels = digits("test")
    not_finite, minus = images.copy(), labels.copy()
    not_finite[7, 0, 0, 0], minus[3] = np.nan, -1
    for name, arrays in {
        "shape": {"x_test": images[:, :, :5], "y_test": labels},
        "type": {"x_test": images.astype(np.int64), "y_test": labels},
        "empty": {"x_test": images[:0], "y_test": labels[:0]},
        "nan": {"x_test": not_finite, "y_test": labels},
        "key": {"x_test": images, "y_test": labels, "x_trian": images, "y_train": labels},
        "lonely": {"x_test": images},
        "label": {"x_test": images, "y_test": labels + 3},
        "minus": {"x_test": images, "y_test": minus},
    }.items():
        np.savez(bad / f"{name}.npz", **arrays)


def _write_plans(bad: Path, good: dict) -> None:
    for name, change in {
        "schema": {"schema": 9},
        "half": {"settings": None},
        "stage": {"stage": "magic"},
        "technique": {"technique": "int9"},
        "setting": {"settings": {**good["finish"][0]["settings"], "bits": 4}},
        "value": {"settings": {**good["finish"][0]["settings"], "weight": "int7"}},
    }.items():
        plan = copy.deepcopy(good)
        (plan if name == "schema" else plan["finish"][0]).update(change)
        if name == "half":
            del plan["finish"][0]["settings"]
        (bad / f"{name}.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")


@pytest.fixture(scope="session")
def bad(work: Path, rows_run: Run) -> Path:
    """The user's folder with a folder `bad` of everything wrong in it."""
    folder = work / "bad"
    folder.mkdir()
    (work / "rows.onnx").write_bytes((rows_run.folder / "model.onnx").read_bytes())
    _write_data(folder)
    _write_plans(folder, yaml.safe_load((rows_run.folder / "plan.yaml").read_text(encoding="utf-8")))
    for name, text in {
        "key.yaml": "name: a\nbudgetz: {size_mb: 1}\n",
        "inner.yaml": "name: a\ndevice: {fingerprint: {arhc: x86_64}}\n",
        "budget.yaml": "name: a\nbudgets: {size_bm: 1}\n",
        "negative.yaml": "name: a\nbudgets: {size_mb: -1}\n",
        "words.yaml": "name: a\nbudgets: {size_mb: small}\n",
        "list.yaml": "name: a\nbudgets: {size_mb: [1, 2]}\n",
        "broken.yaml": "name: a: b: [\n",
        "sentence.yaml": "this is no profile\n",
        "objective.yaml": "name: a\nobjective: fast\n",
        "syntax.py": "def rows():\n    return (\n",
        "imports.py": "import nowhere_to_be_found\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    noise = np.random.default_rng(0).bytes(3000)
    for name in ("noise.onnx", "noise.npz"):
        (folder / name).write_bytes(noise)
    (folder / "empty.onnx").touch()
    return work


@pytest.fixture(scope="session")
def answer(bad: Path) -> Callable[[str], Done]:
    """What each case's command left, run once."""
    done: dict[str, Done] = {}

    def ask(name: str) -> Done:
        if name not in done:
            words = CASES[name].line.split()
            if "PLAN" in words:
                words = ["apply", words[-1], *words[1:-2]]
            if words[0] in ("run", "apply") and "--out" not in words:
                words += ["--out", f"runs/bad/{name}"]
            # the last of an option given twice counts
            done[name] = command(*words, folder=bad)
        return done[name]

    return ask


@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_2_with_one_line_that_says_what_and_where(name: str, answer: Callable[[str], Done]) -> None:
    done = answer(name)
    assert done.code == 2, done
    assert len(done.error_lines) == 1, done.err
    assert done.err.startswith("error ")
    for words in CASES[name].says:
        assert words in done.err
    assert "Traceback" not in done.out + done.err
    assert "internal" not in done.err


@pytest.mark.parametrize(
    "name",
    list(CASES),
)
def test_an_error_line_says_what_to_do(name: str, answer: Callable[[str], Done]) -> None:
    assert ADVICE.search(" ".join(answer(name).err.split()))


def test_an_error_line_is_the_same_in_a_process_of_its_own(answer: Callable[[str], Done], bad: Path) -> None:
    name = "model_that_raises"
    done = process(*CASES[name].line.split(), "--out", f"runs/bad/{name}", folder=bad)
    assert (done.code, done.out, done.err) == (2, "", answer(name).err)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run --modle models.py:rows", "No such option: --modle"),
        ("run", "Missing option '--model'"),
        ("check", "Missing argument 'ARTIFACT'"),
        ("apply --model models.py:rows", "Missing argument 'PLAN'"),
        ("frobnicate", "No such command 'frobnicate'"),
        ("profile show", "Missing argument 'PROFILE'"),
    ],
)
def test_a_wrong_command_line_ends_2_with_its_usage(line: str, says: str, work: Path) -> None:
    done = command(*line.split(), folder=work)
    assert done.code == 2
    assert says in done.err
    assert done.err.startswith("Usage: ")
    assert done.out == ""


def test_a_budget_of_the_wrong_type_is_explained_as_a_budget(bad: Path) -> None:
    done = command("profile", "validate", "bad/list.yaml", folder=bad)
    assert done.code == 2
    assert "budgets.size_mb: " in done.err
    assert "integer" not in done.err


def test_a_wrong_budget_flag_is_named_as_the_flag(answer: Callable[[str], Done]) -> None:
    assert "--size-mb" in answer("negative_budget").err


def test_debug_may_stand_at_the_end_of_the_line(bad: Path) -> None:
    done = command(*RUN.split(), "--model", "models.py:raises", "--debug", folder=bad)
    assert done.code == 2
    assert "Traceback" in done.err


def test_debug_before_the_command_shows_the_traceback(bad: Path) -> None:
    done = command("--debug", *RUN.split(), "--model", "models.py:raises", folder=bad)
    assert done.code == 2
    assert "Traceback" in done.err
    assert "the weights are gone" in done.error_lines[-1]


@pytest.mark.parametrize("name", ["data_of_the_wrong_shape", "model_that_cannot_be_exported"])
def test_what_torch_said_and_the_advice_are_two_sentences(name: str, answer: Callable[[str], Done]) -> None:
    assert re.search(r"[.?!)\]'\"] (Check|Replace) ", answer(name).err)


def test_an_unknown_technique_is_refused_before_anything_is_measured(answer: Callable[[str], Done]) -> None:
    done = answer("plan_of_an_unknown_technique")
    assert done.code == 2
    assert done.out == ""
