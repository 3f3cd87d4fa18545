"""An ONNX file as the model: no PyTorch module is at hand when it is compressed.

    python examples/onnx_file.py [FOLDER]

Exports the network of `digits.py` to a folder beside FOLDER, as anyone might have it from a colleague, and compresses
the file. The command line does the same: `autocompress run --model runs/onnx_file_model/digits.onnx --data digits`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from digits import model

from autocompress import Result, autocompress


def write(path: Path) -> Path:
    """The trained network as a file: `image` of shape `(batch, 1, 8, 8)` in, `classes` of shape `(batch, 10)` out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model(),
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["image"],
        output_names=["classes"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    return path


def main(folder: str = "runs/onnx_file") -> Result:
    """Half the size at the price of at most three points."""
    file = write(Path(folder).with_name("onnx_file_model") / "digits.onnx")
    budgets = {"size_mb": "0.5x", "latency_ms": "2x", "max_accuracy_drop_pp": 3}
    result = autocompress(file, "local", "digits", budgets=budgets, out=folder)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:2])
