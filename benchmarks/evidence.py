"""What the gate says about int8 ResNet-20 and ResNet-56: verdict, answers that turned, images read until it was clear.

    python benchmarks/evidence.py

`run` finds the int8 file with budgets of 0.6x latency, 0.35x size and 1 point; `check` then judges it with all 10,000
test images at hand, as a gate does that saw nothing of the run. Writes benchmarks/results/evidence.json. Two minutes.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from cifar10 import HERE, stamp
from networks import cifar10, cifar_resnet

from autocompress import Task, autocompress
from autocompress.core.profile import load_profile
from autocompress.run.gate import check, tools_without_techniques

BUDGETS: dict[str, float | str] = {"latency_ms": "0.6x", "size_mb": "0.35x", "max_accuracy_drop_pp": 1.0}


def judged(depth: int, folder: Path) -> dict[str, Any]:
    task = Task(test=cifar10().test, name="cifar10")
    result = autocompress(cifar_resnet(depth), "local", task, budgets=BUDGETS, out=folder)
    assert result.artifact is not None
    assert result.certificate is not None
    profile = load_profile("local")
    found = check(result.artifact, result.baseline, profile, tools_without_techniques(profile), task)
    drop = found.verdict.of("max_accuracy_drop_pp")
    assert drop is not None
    return {
        "what": f"ResNet-{depth}",
        "status": str(result.status),
        "read_to_confirm": result.certificate["data"]["read"],
        "holdout": result.certificate["data"]["items"],
        "gate": str(drop.standing),
        "read_at_the_gate": drop.samples,
        "drop": drop.sentence,
        "changes": str(found.prediction_flips),
        "exit_code": found.exit_code,
    }


def main() -> None:
    rows = []
    print(
        "| network | run | images read to confirm | gate | images read of 10,000 | answers |\n|---|---|---|---|---|---|"
    )
    for depth in (20, 56):
        with tempfile.TemporaryDirectory() as name:
            row = judged(depth, Path(name) / "run")
        rows.append(row)
        print(
            f"| {row['what']} | {row['status']} | {row['read_to_confirm']:,} of {row['holdout']:,} | {row['gate']} "
            f"| {row['read_at_the_gate']:,} | {row['changes']} |"
        )
    (HERE / "results" / "evidence.json").write_text(json.dumps({**stamp(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
