"""Checks of the gate with findings of any standing, without anything measured."""

from __future__ import annotations

from pathlib import Path

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget, GateRule
from autocompress.core.measurement import Measurement
from autocompress.core.verdict import Finding, Standing
from autocompress.run.gate import Check, Graded, grade_of

STANDINGS = list(Standing)
USUAL = GateRule()


def finding(standing: Standing = Standing.MET, metric: str = "size_mb", **more: object) -> Finding:
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6} if standing is not Standing.UNMEASURED else {}
    return Finding(Budget(metric, 1.0), standing, **{**numbers, "sentence": "so it is", **more})  # type: ignore[arg-type]


def graded(standing: Standing = Standing.MET, rule: GateRule = USUAL, why: str = "", **more: object) -> Graded:
    found = finding(standing, **more)
    return Graded(found, rule, grade_of(found, rule), why)


def check_of(artifact: Artifact, *ones: Graded, profile: str = "local") -> Check:
    return Check(profile, 0.95, artifact, None, Measurement(), ones, "a machine")


def model_in(folder: Path) -> Artifact:
    """An artifact that nothing is read of."""
    return Artifact(folder, "model.onnx", ("model.onnx",), "onnx", (), ())
