"""The action, the hook and the GitLab example, run as far as that goes without their hosts."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import pytest
import yaml

from autocompress.testing.networks import token_model
from autocompress.testing.python_processes import child_environment

ROOT = Path(__file__).parents[2]
# `autocompress` as the tests' own Python runs it
SHIM = f'#!/bin/sh\nexec "{sys.executable}" -m autocompress.cli.commands "$@"\n'


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def run(script: str, shop: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    shim = shop / "bin" / "autocompress"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(SHIM, encoding="utf-8")
    shim.chmod(0o755)
    environment = child_environment(PATH=f"{shim.parent}{os.pathsep}{os.environ['PATH']}", **variables)
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=shop,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def action() -> Mapping[str, Any]:
    found: Mapping[str, Any] = read("action.yml")
    return found


def inputs_of(action: Mapping[str, Any], **given: str) -> dict[str, str]:
    """The variables that the action's last step sees."""
    wired = action["runs"]["steps"][-1]["env"]
    names = {variable: text.removeprefix("${{ inputs.").removesuffix(" }}") for variable, text in wired.items()}
    assert set(names.values()) <= set(action["inputs"])
    defaults = {name: entry.get("default", "") for name, entry in action["inputs"].items()}
    return {variable: {**defaults, **given}[name] for variable, name in names.items()}


def test_the_action_judges_and_leaves_its_reports(shop: Path, action: Mapping[str, Any]) -> None:
    summary = shop / "summary.md"
    (shop / "strict.yaml").write_text("name: strict\nbudgets: {size_mb: 0.5}\n", encoding="utf-8")
    given = inputs_of(
        action, artifact="model.onnx", profile="profile.yaml\nstrict.yaml\n", data="data.npz",
        baseline="baseline.onnx", junit="budgets.xml",
    )  # fmt: skip
    done = run(action["runs"]["steps"][-1]["run"], shop, **given, GITHUB_STEP_SUMMARY=str(summary))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [suite.get("failures") for suite in ElementTree.parse(shop / "budgets.xml").getroot()] == ["0", "0"]
    assert summary.read_text(encoding="utf-8").count("### ✅") == 2


def test_the_action_fails_where_a_budget_is_broken(shop: Path, action: Mapping[str, Any]) -> None:
    (shop / "strict.yaml").write_text("name: strict\nbudgets: {size_mb: 0.001}\n", encoding="utf-8")
    given = inputs_of(action, artifact="model.onnx", profile="strict.yaml")
    assert run(action["runs"]["steps"][-1]["run"], shop, **given).returncode == 1


def test_what_an_input_holds_is_never_run(shop: Path, action: Mapping[str, Any]) -> None:
    given = inputs_of(action, artifact="$(touch owned); `touch owned`", profile="'; touch owned; '")
    assert run(action["runs"]["steps"][-1]["run"], shop, **given).returncode == 2
    assert not (shop / "owned").exists()


def test_the_hook_judges_every_file_it_is_given(shop: Path) -> None:
    (hook,) = read(".pre-commit-hooks.yaml")
    command = f"{hook['entry']} --profile profile.yaml --min-accuracy 0 --data data.npz model.onnx baseline.onnx"
    done = run(command, shop)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met: ") == 2


def test_the_gitlab_job_runs_as_written(shop: Path) -> None:
    job = read("examples/ci/gitlab-ci.yml")["model budgets"]
    install, check = job["script"]
    assert shlex.split(install) == ["pip", "install", "autocompress"]
    done = run(check, shop)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ElementTree.parse(shop / job["artifacts"]["reports"]["junit"]).getroot().tag == "testsuites"
    assert all((shop / path).exists() for path in job["artifacts"]["paths"])


def test_the_github_workflow_gives_the_action_inputs_that_it_has(action: Mapping[str, Any]) -> None:
    steps = read("examples/ci/github-workflow.yml")["jobs"]["budgets"]["steps"]
    assert set(steps[-1]["with"]) <= set(action["inputs"])


def test_the_action_passes_shapes_on(shop: Path, action: Mapping[str, Any]) -> None:
    onnx.save(token_model(), shop / "tokens.onnx")
    limits = "budgets: {size_mb: 1, latency_ms: {limit: 5000, on_undecided: warn}}"
    (shop / "tokens.yaml").write_text(f"name: t\nprotocol: {{max_seconds: 0.3}}\n{limits}\n", encoding="utf-8")
    script = action["runs"]["steps"][-1]["run"]
    given = inputs_of(action, artifact="tokens.onnx", profile="tokens.yaml")
    assert run(script, shop, **given).returncode == 3
    shapes = "input_ids=1x16\nattention_mask=1x16\n"
    done = run(script, shop, **inputs_of(action, artifact="tokens.onnx", profile="tokens.yaml", input=shapes))
    assert done.returncode == 0, done.stdout + done.stderr
