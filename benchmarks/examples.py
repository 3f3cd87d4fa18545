"""The examples that draw their own data, each run as the script it is, in full where it has a full size.

    python benchmarks/examples.py [--only unet_masks --only keyword_gru]

Writes benchmarks/results/examples.json and prints a table. About 20 minutes on two cores, most of them the U-Net's.
The detector and the network with two heads are rows of benchmarks/tasks.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cifar10 import HERE, stamp

RESULTS = HERE / "results" / "examples.json"
FULL = ("unet_masks",)
EXAMPLES = {
    "unet_masks": "U-Net, drawn shapes, masks moved along, intersection over union",
    "sentence_encoder": "sentence encoder, 8 and 24 tokens, dynamic padding",
    "keyword_gru": "keyword GRU with its state, 10 and 50 frames",
    "onnx_file": "ONNX file of a CNN, digits",
}


def row_of(name: str) -> dict[str, Any]:
    """Run an example in a folder of its own; its findings, plan and minutes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [sys.executable, str(HERE.parent / "examples" / f"{name}.py"), str(out)]
        started, load = time.monotonic(), os.getloadavg()[0]
        subprocess.run([*words, "full"] if name in FULL else words, cwd=folder, check=True)
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
        return {
            **stamp(),
            "load": [load, os.getloadavg()[0]],
            "what": EXAMPLES[name],
            "status": result["status"],
            "seconds": time.monotonic() - started,
            "plan": (out / "plan.yaml").read_text(encoding="utf-8"),
            "findings": result["verdict"]["findings"],
        }


def line_of(row: dict[str, Any]) -> str:
    """A row of the table: each budget with what was found."""
    cells = []
    for one in row["findings"]:
        value = "-" if one["value"] is None else f"{one['value']:.2f}"
        high = "" if one["metric"] == "size_mb" or one["high"] is None else f", at most {one['high']:.2f}"
        where = f" at {one['shapes']}" if one["shapes"] else ""
        cells.append(f"{one['metric']}{where}: {value}{'x' if one['relative'] else ''}{high}")
    return f"| {row['what']} | {'; '.join(cells)} | {row['status']} after {row['seconds'] / 60:.1f} min |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(EXAMPLES), default=[])
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in parser.parse_args().only or EXAMPLES:
        rows[name] = row_of(name)
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print("| example | found | answer |\n" + "|---" * 3 + "|")
    print("\n".join(line_of(row) for row in rows.values()))


if __name__ == "__main__":
    main()
