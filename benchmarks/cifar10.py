"""ResNet-20 and ResNet-56 on CIFAR-10: ours beside onnxruntime's int8 as it comes and as an expert would set it.

Writes benchmarks/results/cifar10.json and prints the README's table. About 4 minutes on two cores.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime
from networks import cifar10, cifar_resnet
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from autocompress import Result, Task, autocompress, load_profile
from autocompress.core.artifact import Artifact
from autocompress.devices import LocalDevice
from autocompress.evaluation.scorer import Scorer
from autocompress.run.gate import check, tools_without_techniques
from autocompress.runtimes import OnnxRuntime
from autocompress.statistics.judging import judge_by

HERE = Path(__file__).parent
BUDGETS: dict[str, float | str] = {"latency_ms": "0.5x", "size_mb": "0.35x", "max_accuracy_drop_pp": 1.0}
IMPOSSIBLE: dict[str, float | str] = {"latency_ms": "0.02x", "size_mb": "0.01x", "max_accuracy_drop_pp": 1.0}
SETTINGS: dict[str, dict[str, Any]] = {
    # quantize_static(model, out, reader): int8 activations, int8 weights, per tensor
    "onnxruntime static int8, defaults": {},
    # what its documentation advises for x86 with VNNI
    "onnxruntime static int8, by an expert": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": True,
    },
}


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """256 training images, 32 at a time."""

    def __init__(self, task: Task) -> None:
        part = task.calibration.first(256)
        self._batches = iter([{"input": inputs[0]} for inputs, _ in part.batches(32)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def plain(baseline: Artifact, settings: dict[str, Any], task: Task, folder: Path) -> Artifact:
    """onnxruntime's own quantization of the same exported float file."""
    prepared, quantized = folder / "prepared.onnx", folder / "quantized.onnx"
    quant_pre_process(str(baseline.path), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(quantized), Reader(task), **settings)
    return OnnxRuntime().read(quantized)


def compare(name: str, artifact: Artifact, baseline: Artifact, task: Task) -> dict[str, Any]:
    """Fresh alternating blocks and the 6,648 holdout images, for any file."""
    profile = load_profile("local").with_budgets([])
    tools = tools_without_techniques(profile)
    checked = check(artifact, baseline, profile, tools, None)
    scorer = Scorer(tools.device, profile, task)
    measurement = checked.measurement.with_(scorer.measurement(artifact, baseline, task.holdout))
    verdict = judge_by(profile, measurement)
    latency, drop = verdict.of("latency_ms"), verdict.of("max_accuracy_drop_pp")
    return {
        "what": name,
        "latency_ratio": latency.value,
        "latency_low": latency.low,
        "latency_high": latency.high,
        "size_ratio": artifact.size_bytes / baseline.size_bytes,
        "size_mb": artifact.size_bytes / 1e6,
        "p50_ms": measurement.readings["latency_ms"].statistic("p50"),
        "accuracy": 100 * measurement.readings["score"].value,
        "drop_pp": drop.value,
        "drop_high_pp": drop.high,
    }


def run(depth: int, task: Task, budgets: dict[str, float | str], folder: Path) -> tuple[Result, float]:
    start = time.monotonic()
    result = autocompress(cifar_resnet(depth), "local", task, budgets=budgets, out=folder)
    return result, time.monotonic() - start


def stamp() -> dict[str, str]:
    """When, where and with what figures were taken."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": str(LocalDevice(OnnxRuntime()).machine()),
        "onnxruntime": onnxruntime.__version__,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=HERE
        ).stdout.strip(),
    }


def main() -> None:
    task = cifar10()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for depth in (20, 56):
            result, seconds = run(depth, task, BUDGETS, folder / f"met-{depth}")
            rows.append(compare(f"ResNet-{depth}, float baseline", result.baseline, result.baseline, task))
            for what, settings in SETTINGS.items():
                (folder / what).mkdir(exist_ok=True)
                rows.append(
                    compare(
                        f"ResNet-{depth}, {what}",
                        plain(result.baseline, settings, task, folder / what),
                        result.baseline,
                        task,
                    )
                )
            ours = compare(f"ResNet-{depth}, autocompress", result.unwrap(), result.baseline, task)
            rows.append({**ours, "status": str(result.status), "seconds": seconds, "plan": str(result.plan)})
            missed, seconds = run(depth, task, IMPOSSIBLE, folder / f"missed-{depth}")
            rows.append(
                {
                    "what": f"ResNet-{depth}, autocompress, 0.02x latency and 0.01x size",
                    "status": str(missed.status),
                    "binding": missed.binding.budget.metric if missed.binding else None,
                    "plan": str(missed.plan),
                    "seconds": seconds,
                }
            )
    report = {
        **stamp(),
        "rows": rows,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "cifar10.json").write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)


def print_table(report: dict[str, Any]) -> None:
    print(f"{report['machine']}, onnxruntime {report['onnxruntime']}, {report['date']}\n")
    print("| network and method | latency | size | accuracy | drop, 95 % bound | answer |")
    print("|---|---|---|---|---|---|")
    for row in report["rows"]:
        answer = f"{row['status']} in {row['seconds']:.0f} s" if "status" in row else ""
        if "latency_ratio" not in row:
            print(f"| {row['what']} | | | | | {answer}, binding: {row['binding']} |")
            continue
        print(
            f"| {row['what']} | {row['latency_ratio']:.2f}x ({1 / row['latency_ratio']:.2f} times as fast) "
            f"| {row['size_ratio']:.2f}x ({1 / row['size_ratio']:.1f} times smaller) | {row['accuracy']:.2f} "
            f"| {row['drop_pp']:.2f}, at most {row['drop_high_pp']:.2f} pp | {answer} |"
        )


if __name__ == "__main__":
    main()
