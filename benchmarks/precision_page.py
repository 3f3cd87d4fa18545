"""The tables of docs/precision.md from results/precision.json and results/layer_types.json, on the standard output.

python benchmarks/precision_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from precision_rows import RESULTS, Row, known_rows


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def interval(numbers: Sequence[float] | None, unit: str = "x") -> str:
    if numbers is None:
        return ""
    middle, low, high = numbers
    return f"{middle:.2f}{unit} ({low:.2f} to {high:.2f})"


def line(row: Row) -> Sequence[str]:
    """A file's figures; for one that was not made, why."""
    if "failure" in row:
        return row["what"], "", "", "", "", f"fails: {row['failure'].partition('. ')[0]}", ""
    latency, chosen = row.get("latency", {}), " (chosen)" if row.get("chosen") else ""
    return (
        row["what"] + chosen,
        f"{row['size_ratio']:.3f}x",
        "" if row["what"] == "float" else interval(latency.get("to_float")),
        interval(latency.get("to_int8")),
        f"{row['accuracy']:.2f}",
        f"{row['drop_pp']:.2f} ({row['drop_low_pp']:.2f} to {row['drop_high_pp']:.2f})" if row["drop_pp"] else "0.00",
        taken(row),
    )


def taken(row: Row) -> str:
    """Seconds by the clock, and in brackets of the CPU."""
    clock = f"{row['seconds']:.0f}" if "seconds" in row else ""
    return clock + (f" ({row['cpu_seconds']:.0f})" if "cpu_seconds" in row else "")


def agreement(row: Row) -> Sequence[str]:
    found = row["agreement"]
    holds = "yes" if found["holds"] else "no"
    return row["case"], row["what"], f"{found['same']:.2%}", f"{found['apart_pp']:.2f}", holds


def refusals(rows: Iterable[Row]) -> Iterable[Sequence[str]]:
    """The facts and refusals of each case and granularity."""
    for row in rows:
        if "refused" in row:
            facts = [f"{row[name]:.1f}x" if name in row else "" for name in ("range_spread", "outliers")]
            said = [", ".join(row["refused"].get(when, {})) for when in ("before", "after")]
            yield f"{row['case']}, {row['what'].partition(':')[0]}", *facts, *said


def layer_type(row: Row) -> Sequence[str]:
    """What a case's layers are in, with the figures of that file."""
    operators = ", ".join(f"{count} {name}" for name, count in row["operators"].items())
    ratios = (interval(row[name]) for name in ("to_float", "to_float32"))
    lost = f"{row['drop_pp']:.2f} ({row['drop_low_pp']:.2f} to {row['drop_high_pp']:.2f})"
    what = f"{row['case']}, {len(row['layers'])} layers in {row['what']}"
    return what, f"{row['size_ratio']:.3f}x", *ratios, lost, f"{row['same_answers']:.2%}", operators


def main() -> None:
    rows = known_rows()
    headings: Sequence[str] = (
        "file",
        "size",
        "latency, of float",
        "of int8",
        "right, %",
        "lost, points",
        "seconds (CPU)",
    )
    for case in dict.fromkeys(row["case"] for row in rows):
        files = [row for row in rows if row["case"] == case and ("accuracy" in row or "failure" in row)]
        begins = list(dict.fromkeys(row["what"].partition(":")[0] for row in files))
        files.sort(key=lambda row: begins.index(row["what"].partition(":")[0]))
        dates = sorted({row["date"] for row in files})
        loads = [row["load"] for row in files] + [row["latency"]["load"] for row in files if "latency" in row]
        print(f"\n### {case}\n\n{', '.join(dates)}, load {min(loads):.1f} to {max(loads):.1f}.\n")
        print(table(headings, map(line, files)))
    print("\n### What layers are in\n")
    headings = [
        "file",
        "size",
        "latency, of float",
        "of float32 layers",
        "lost, points",
        "float's answers",
        "operators",
    ]
    print(table(headings, map(layer_type, json.loads(RESULTS.with_name("layer_types.json").read_text()))))
    print("\n### Agreement\n")
    headings = ["case", "file", "same answers", "points apart", "holds"]
    print(table(headings, (agreement(row) for row in rows if "agreement" in row)))
    print("\n### Refusals\n")
    headings = ["case", "spread of weights", "outliers", "refused before a loss was seen", "after it"]
    print(table(headings, refusals(rows)))


if __name__ == "__main__":
    main()
