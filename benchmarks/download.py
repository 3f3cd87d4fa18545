"""The entropy-coded download of int8 files, beside zstd and lzma, and the seconds of its decoders.

    python benchmarks/download.py [--only resnet56 --only minilm]

Files are made without training: static int8 of ResNet-20, ResNet-56 and MiniLM, dynamic int8 of the LSTM (static int8
leaves its matrices in float), and palettes of 16 and 4 entries of ResNet-56. `entropy` is the one of order 0 of each
int8 tensor alone, or of the indices of each palette, without any table; `coded` is what their symbols take, without the
tables and classes, which the byte model codes with the graph (`modelled_code_bytes`).

Writes benchmarks/results/download.json and prints a table. Takes about three minutes, most of it for MiniLM.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from cifar10 import HERE, stamp
from more_networks import activity, har, minilm, sst2
from networks import cifar10, resnet20, resnet56
from precision_files import Bench, step

from autocompress.core.plan import Setting
from autocompress.download import files
from autocompress.download.acz_decoder import frequencies, read_header, unpack
from autocompress.download.decoder import unpacked_content
from autocompress.download.encoder import packed_content
from autocompress.download.segments import parts_of
from autocompress.download.symbol_coder import SymbolTables
from autocompress.download.table_choice import choose_tables, coded_symbols
from autocompress.runtimes.onnx_file import load_model
from autocompress.system.scratch import scratch

RESULTS = HERE / "results" / "download.json"
FOLDER = HERE.parent / "runs" / "download"
CASES: dict[str, tuple[Callable[[], Any], Callable[[], Any], tuple[str, dict[str, Setting]]]] = {
    "resnet20": (resnet20, cifar10, ("int8_static", {})),
    "resnet56": (resnet56, cifar10, ("int8_static", {})),
    "lstm": (activity, har, ("int8_dynamic", {})),
    "resnet56_palettes_16": (resnet56, cifar10, ("palettes", {"entries": 16})),
    "resnet56_palettes_4": (resnet56, cifar10, ("palettes", {"entries": 4})),
    "minilm": (minilm, sst2, ("int8_static", {})),
}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.monotonic()
    return work(), time.monotonic() - begun


def weight_bits(content: bytes, known: Any) -> dict[str, float]:
    """How many weights there are, their entropy by the frequencies of each tensor, and what their symbols take."""
    parts = parts_of(content, known)
    tables = SymbolTables.of([frequencies(one) for one in choose_tables(parts).levels])
    number, entropy, coded = 0, 0.0, 0.0
    for part in parts:
        if part.kind in ("int8", "bytes") or part.kind.startswith("digits"):
            counts = np.bincount(part.symbols)
            shares = counts[counts > 0] / counts.sum()
            entropy -= float(len(part.symbols) * (shares * np.log2(shares)).sum())
            symbols, classes = coded_symbols(part)
            coded += float((14 - np.log2(tables.sizes[classes, symbols])).sum())
            number += len(part.symbols)
    return {"weights": number, "entropy_bits_per_weight": entropy / number, "coded_bits_per_weight": coded / number}


def seconds_in_c(download: bytes, content: bytes) -> float | None:
    """Seconds of the program in C, with its start; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with scratch("download") as folder:
        (folder / "acz_decoder.c").write_text(files.decoder_source("c"))
        program, given, made = folder / "acz", folder / "model.acz", folder / "model"
        subprocess.run([compiler, "-O2", "-DACZ_MAIN", str(folder / "acz_decoder.c"), "-o", str(program)], check=True)
        given.write_bytes(download)
        _, seconds = timed(lambda: subprocess.run([str(program), str(given), str(made)], check=True))
        assert made.read_bytes() == content
    return seconds


def row_of(path: Path, float_bytes: int) -> dict[str, Any]:
    content = path.read_bytes()
    known = files.packed_tensors(load_model(path))
    download, pack_seconds = timed(lambda: packed_content(content, known))
    by_numpy, numpy_seconds = timed(lambda: unpacked_content(download))
    by_python, python_seconds = timed(lambda: unpack(download))
    assert by_numpy == by_python == content
    header = read_header(download)
    return {
        "float_bytes": float_bytes,
        "bytes": len(content),
        "zstd_19": len(zstandard.ZstdCompressor(level=19).compress(content)),
        "lzma_9e": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        "acz": len(download),
        **weight_bits(content, known),
        "other_bytes": header.others,
        "described_bytes": header.described,
        "modelled_code_bytes": header.coded,
        "pack_seconds": pack_seconds,
        "numpy_seconds": numpy_seconds,
        "python_seconds": python_seconds,
        "c_seconds": seconds_in_c(download, content),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=CASES)
    rows: dict[str, Any] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else {}
    for name in parser.parse_args().only or CASES:
        module, task, (technique, settings) = CASES[name]
        bench = Bench(module(), task(), FOLDER / name)
        finish = [step(technique, **settings)]
        if technique == "palettes":
            finish.insert(0, step("int8_static"))
        made, _ = bench.made(tuple(finish))
        rows[name] = row_of(made.path, bench.baseline.size_bytes)
        RESULTS.write_text(json.dumps({**stamp(), "rows": rows}, indent=2) + "\n")
        print_row(name, rows[name])


def print_row(name: str, row: dict[str, Any]) -> None:
    kb = " ".join(f"{key} {row[key] / 1000:,.1f}" for key in ("float_bytes", "bytes", "zstd_19", "lzma_9e", "acz"))
    bits = f"{row['entropy_bits_per_weight']:.3f} -> {row['coded_bits_per_weight']:.3f} bits"
    seconds = ", ".join(f"{key} {row[f'{key}_seconds']:.2f}" for key in ("pack", "numpy", "python", "c"))
    print(f"{name}: kB {kb}; {bits}; {seconds} s", flush=True)


if __name__ == "__main__":
    main()
