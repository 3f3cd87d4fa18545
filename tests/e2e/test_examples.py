"""The examples, run as a reader would run them."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
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
    "detector": "max_accuracy_drop_pp",
}


@pytest.mark.slow
@pytest.mark.example
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
    # a network that is trained first says so
    assert any(line.startswith("met: ") for line in done.stdout.splitlines()), done.stdout
    result = json.loads((out / "result.json").read_text())
    findings = {finding["metric"]: finding for finding in result["verdict"]["findings"]}
    assert findings[score]["standing"] == "met"
    assert findings[score]["samples"] > 0
    assert (out / "model.onnx").stat().st_size < (out / "baseline.onnx").stat().st_size


def test_every_example_is_run_by_a_test() -> None:
    # the digits are the demo's, which CI runs
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*METRICS, "digits"}


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("detector")


def test_the_detectors_score_counts_shapes_found_once_and_in_the_order_of_their_scores(detector: Any) -> None:
    square, moved, far = [8.0, 8, 24, 24], [9.0, 8, 25, 24], [40.0, 40, 60, 60]
    targets = {"boxes": np.array([[square, [0] * 4]] * 2), "labels": np.array([[2, -1]] * 2)}

    def found(*squares: tuple[list[float], float]) -> float:
        """The score where one image has these boxes, with the logit of their class, and the other a right one."""
        boxes = np.array([[box for box, _ in squares], [square] * len(squares)])
        logits = np.full((2, len(squares), 4), -20.0)
        logits[..., 0] = 0
        logits[0, :, 2] = [logit for _, logit in squares]
        logits[1, 0, 2] = 1
        score: float = detector.mean_average_precision(detector.detections({"boxes": boxes, "logits": logits}, targets))
        return score

    assert found((square, 3)) == pytest.approx(1)
    # the second box is suppressed by the first
    assert found((square, 3), (moved, 2)) == pytest.approx(1)
    # a wrong box after all right ones takes nothing, one between the two right ones a third of the second's precision
    assert found((square, 3), (far, 0)) == pytest.approx(1)
    assert found((square, 3), (far, 2)) == pytest.approx((1 + 2 / 3) / 2)
    assert found((square, 0), (far, 2)) == pytest.approx(2 / 3)
    assert found((far, 2)) == pytest.approx(1 / 4)


def test_the_detectors_suppression_is_that_of_one_image_and_class(detector: Any) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 40, (2, 60, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 24, (2, 60, 2))], -1)
    scores = random.uniform(0.1, 1, (2, 3, 60))
    kept, of_them = detector.suppressed(boxes, scores)
    for image, kind in np.ndindex(2, 3):
        left = list(np.argsort(-scores[image, kind]))
        for place in range(detector.FOUND):
            best = left.pop(0)
            assert of_them[image, kind, place] == scores[image, kind, best]
            np.testing.assert_array_equal(kept[image, kind, place], boxes[image, best])
            shared = detector.overlaps(boxes[image, best][None], boxes[image, left])
            left = [other for other, share in zip(left, shared, strict=True) if share <= detector.OVERLAP]
