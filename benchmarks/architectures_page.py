"""docs/architectures.md from benchmarks/results/architectures.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
# close enough to choose by
LATENCY_WITHIN, SIZE_WITHIN = 0.2, 0.05
TIMES_THE_MODEL, BESIDE_MB, MOST_SECONDS = 4, 600, 60
ASKED = ("place", "family", "hardware", "tolerance", "asked", "what", "training", "reachable")


def write_page(results: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write the page; of `names`, those without a result are named as missing."""
    rows = [row for row in results["rows"] if "failure" not in row]
    failed = [row for row in results["rows"] if "failure" in row]
    parts = [
        "# What the planner makes of different architectures",
        "Made by `python benchmarks/architectures.py`, not by hand. "
        f"{results['machine']}, onnxruntime {results['onnxruntime']}. Budgets: 0.15x "
        "size, 0.25x latency, 2 points. Networks without a data set in brackets have random "
        "weights and random data, on which size and latency do not depend.",
        summary(rows),
        *older(rows),
        "## Planning",
        "Seconds of `explain()`, which trains nothing, and the peak memory that it adds to a process in which the "
        "libraries and the model are loaded (about 550 MB with a small one). "
        f"The limit is {MOST_SECONDS} s, and {TIMES_THE_MODEL} times the model's bytes plus {BESIDE_MB} MB.",
        table(
            ("network", "family", "parameters", "MACs", "layers", "seconds", "peak MB", "limit MB", "measured on"),
            map(planning, rows),
        ),
        "## Predicted and measured",
        "Shares of the float baseline's latency and size, as predicted before anything was built, and as measured of "
        "the recipe's first plan.",
        table(
            ("network", "recipe", "latency predicted", "measured", "size predicted", "measured"),
            (line for row in rows for line in predictions(row)),
        ),
        "## Path and refusals",
        *(section(row) for row in rows),
    ]
    missing = sorted(set(names) - {row["name"] for row in results["rows"]})
    parts += [f"Not measured yet: {', '.join(missing)}."] if missing else []
    parts += [f"`{row['name']}` failed: {row['failure']}" for row in failed]
    PAGE.write_text("\n\n".join(parts) + "\n")


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many predictions are close."""
    done = [recipe for row in rows for recipe in row["recipes"] if "failure" not in recipe]
    timed = [recipe for recipe in done if recipe["predicted_latency"] is not None]
    sized = [recipe for recipe in done if recipe["predicted_size"] is not None]
    latency = sum(abs(r["predicted_latency"] / r["latency"] - 1) <= LATENCY_WITHIN for r in timed)
    size = sum(abs(r["predicted_size"] / r["size"] - 1) <= SIZE_WITHIN for r in sized)
    slow = [row["name"] for row in rows if row["seconds"] > MOST_SECONDS]
    large = [row["name"] for row in rows if taken(row) > limit(row)]
    return (
        f"Predicted latency was within {LATENCY_WITHIN:.0%} of measured for {latency} of {len(timed)} recipes, "
        "predicted "
        f"size within {SIZE_WITHIN:.0%} for {size} of {len(sized)}. "
        f"Planning took longer than {MOST_SECONDS} s for {', '.join(slow) or 'none'}, and more memory than the limit "
        f"for {', '.join(large) or 'none'}."
    )


def older(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence about plans and times that an earlier version gave; none where all are of one day."""
    latest = max((row["date"] for row in rows), default="")
    names = [row["name"] for row in rows if row["date"] < latest]
    told = f"Plans, paths and refusals are those of {latest}" + (f", but for {', '.join(names)}" if names else "")
    timed = sorted({row["timed"] for row in rows})
    if not names and timed == [latest]:
        return []
    return [f"{told}. Seconds, memory, predictions and what was measured are of the day in the first table."]


def limit(row: Mapping[str, Any]) -> float:
    """The memory that planning may take, in MB."""
    return TIMES_THE_MODEL * float(row["model_mb"]) + BESIDE_MB


def taken(row: Mapping[str, Any]) -> float:
    """The memory that planning took beside what the process had with the model loaded, in MB."""
    return float(row["memory_mb"]) - float(row["memory_before_mb"])


def planning(row: Mapping[str, Any]) -> Sequence[str]:
    """A row of the first table."""
    facts = row["facts"]
    return (
        row["name"],
        facts["family"],
        f"{facts['parameters'] / 1e6:.2f} M",
        f"{facts['macs'] / 1e6:,.0f} M",
        str(row["layers"]),
        f"{row['seconds']:.0f}",
        f"{taken(row):.0f}",
        f"{limit(row):.0f}",
        row["timed"],
    )


def predictions(row: Mapping[str, Any]) -> list[Sequence[str]]:
    """A row of the second table for each recipe."""
    lines: list[Sequence[str]] = []
    for recipe in row["recipes"]:
        cells = [recipe["predicted_latency"], recipe.get("latency"), recipe["predicted_size"], recipe.get("size")]
        said = ["-" if cell is None else f"{cell:.2f}x" for cell in cells]
        if "failure" in recipe:
            said[1] = recipe["failure"].split(": ", 1)[-1][:80]
        lines.append((row["name"], recipe["recipe"], *said))
    return lines


def section(row: Mapping[str, Any]) -> str:
    """The path through the tree, and what was refused."""
    decisions = {one["rule"]: one for one in row["path"]}
    path = [f"{decisions[rule]['question']} **{decisions[rule]['answer']}**" for rule in ASKED if rule in decisions]
    refused = [f"{name}: {reason['sentence']}" for name, reason in row["refusals"].items()]
    trained = f" Recipes that train: {', '.join(row['trained_recipes'])}." if row["trained_recipes"] else ""
    lines = [f"### {row['name']}", f"{row['facts']['evidence']}.", f"{' '.join(path)}{trained}"]
    lines += ["Refused:\n\n" + "\n".join(f"- {line}" for line in refused)] if refused else []
    return "\n\n".join(lines)


def table(headings: Sequence[str], rows: Any) -> str:
    """A table in markdown."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
