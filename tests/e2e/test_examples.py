"""The examples, run as a reader would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# by name, with the budget that is special about it
METRICS = {
    "regression": "max_score_drop",
    "segmentation": "max_accuracy_drop_pp",
    "two_inputs": "max_accuracy_drop_pp",
    "token_classifier": "max_accuracy_drop_pp",
    "language_model": "max_score_drop",
    "onnx_file": "max_accuracy_drop_pp",
    "two_heads": "max_accuracy_drop_pp",
    "unet_masks": "max_accuracy_drop_pp",
    "sentence_encoder": "max_accuracy_drop_pp",
    "keyword_gru": "max_accuracy_drop_pp",
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "score"), METRICS.items())
def test_an_example_meets_its_budgets(name: str, score: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), str(out)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("met: "), done.stdout
    result = json.loads((out / "result.json").read_text())
    findings = {finding["metric"]: finding for finding in result["verdict"]["findings"]}
    assert findings[score]["standing"] == "met"
    assert findings[score]["samples"] > 0
    assert (out / "model.onnx").stat().st_size < (out / "baseline.onnx").stat().st_size


def test_every_example_is_run_by_a_test() -> None:
    # the digits are the demo's, which CI runs
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*METRICS, "digits"}
