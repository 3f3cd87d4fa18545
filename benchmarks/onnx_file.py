"""ResNet-56 on CIFAR-10 as a module and as the ONNX file that torch.onnx.export makes of it: the same answer?

    python benchmarks/onnx_file.py

Both runs have the budgets of cifar10.py but 0.6x latency. The plan of the module's run is then replayed on the file,
and the bytes of both are compared. Writes benchmarks/results/onnx_file.json. About 3 minutes.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from cifar10 import HERE, stamp
from networks import cifar10, cifar_resnet
from torch import nn

from autocompress import Result, autocompress
from autocompress.api import apply_plan

BUDGETS: dict[str, float | str] = {"latency_ms": "0.6x", "size_mb": "0.35x", "max_accuracy_drop_pp": 1.0}


def written(module: nn.Module, path: Path) -> Path:
    """The module as its user would export it, with names of their own."""
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, 32, 32),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    return path


def row(what: str, result: Result, seconds: float) -> dict[str, Any]:
    assert result.artifact is not None
    latency, drop = result.verdict.of("latency_ms"), result.verdict.of("max_accuracy_drop_pp")
    assert latency is not None
    assert drop is not None
    return {
        "what": what,
        "status": str(result.status),
        "plan": str(result.plan),
        "baseline_mb": result.baseline.size_bytes / 1e6,
        "size_mb": result.artifact.size_bytes / 1e6,
        "latency_ratio": latency.value,
        "drop_pp": drop.value,
        "drop_high_pp": drop.high,
        "seconds": seconds,
    }


def main() -> None:
    task, module = cifar10(), cifar_resnet(56)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = written(module, folder / "resnet56.onnx")
        results = {}
        for what, model in (("module", module), ("file", file)):
            start = time.monotonic()
            results[what] = autocompress(model, "local", task, budgets=BUDGETS, out=folder / what)
            rows.append(row(what, results[what], time.monotonic() - start))
            print(rows[-1], flush=True)
        plan = results["module"].plan
        assert plan is not None
        replayed = apply_plan(plan, file, "local", task, budgets=BUDGETS, out=folder / "replayed")
        rows.append(row("file, the plan of the module", replayed, 0.0))
        ours, theirs = results["module"].unwrap(), replayed.unwrap()
        same = ours.path.read_bytes() == theirs.path.read_bytes()
        print(rows[-1], "the same bytes" if same else f"{ours.size_bytes} and {theirs.size_bytes} bytes")
    report = {**stamp(), "same_bytes": same, "rows": rows}
    (HERE / "results" / "onnx_file.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
