"""Rows of precision.py: what was found about each file, written as soon as it is known."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from cifar10 import HERE, stamp
from precision_files import ALPHA, PROFILE, Bench, Finish

from autocompress.analysis.inspection import inspect_module
from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan, Stage
from autocompress.core.probes import Probes
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.technique import ArtifactTechnique
from autocompress.errors import TechniqueError
from autocompress.statistics.bounds import median_bounds
from autocompress.system.locks import folder_lock

RESULTS = HERE / "results" / "precision.json"
Row = dict[str, Any]


def known_rows() -> list[Row]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def keep(row: Row) -> None:
    """Write a row into the results, in place of an older one of the same case and name."""
    with folder_lock(RESULTS.parent):
        rows = known_rows()
        places = [place for place, old in enumerate(rows) if key(old) == key(row)]
        if places:
            rows[places[0]] = row
        else:
            rows.append(row)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(row), flush=True)


def key(row: Row) -> tuple[str, str]:
    return row["case"], row["what"]


def stamped(case: str, what: str) -> Row:
    return {"case": case, "what": what, **stamp(), "load": os.getloadavg()[0]}


def keep_row(bench: Bench, case: str, what: str, finish: Finish, more: Row | None = None) -> None:
    """The row of a finish, or its failure, unless it is known already."""
    row: Row = {**stamped(case, what), "finish": Plan((), finish).to_json()["finish"]}
    if any(key(old) == key(row) and old["finish"] == row["finish"] for old in known_rows() if "finish" in old):
        return
    try:
        artifact, seconds = bench.made(finish)
    except TechniqueError as error:
        keep({**row, "failure": str(error)})
        return
    found = figures(bench, artifact, tuned=any(step.stage is Stage.TUNING for step in finish))
    keep({**row, **(more or {}), "file": artifact.path.name, **seconds, **found})


def figures(bench: Bench, artifact: Artifact, *, tuned: bool) -> Row:
    """Accuracy on the reporting images, size, and for a tuned file its agreement with the fake-quantized module."""
    reporting = bench.task.holdout
    assert reporting is not None
    sizes = {"size_bytes": artifact.size_bytes, "size_ratio": artifact.size_bytes / bench.baseline.size_bytes}
    agreement = {"agreement": bench.agreement(artifact, reporting)} if tuned else {}
    return {**bench.judged(artifact, reporting), **sizes, **agreement}


def keep_refusals(bench: Bench, case: str, found: Sensitivity | None, name: str) -> None:
    """What techniques refuse before int8 was seen to lose accuracy, and with the sensitivity of the layers if any."""
    facts = inspect_module(bench.module, bench.example)
    row = stamped(case, f"{name}: refused")
    row["refused"] = {"before": _refused(bench, facts, Probes())}
    if found is not None:
        row["refused"]["after"] = _refused(bench, facts, Probes(sensitivities=(found,)))
        row |= {"range_spread": found.ranges, "outliers": found.outliers, "left_out": len(found.left_out)}
    keep(row)


def _refused(bench: Bench, facts: Facts, probes: Probes) -> dict[str, str]:
    reasons = {
        technique.name: technique.refuses(facts, probes, PROFILE)
        for technique in bench.tools.techniques
        if isinstance(technique, ArtifactTechnique)
    }
    return {name: f"{reason.sentence} ({reason.fact})" for name, reason in reasons.items() if reason is not None}


def keep_latencies(bench: Bench, case: str, compared_with: Sequence[str]) -> None:
    """Latency of the files of a case that are there, as ratios to float and to the row of these that begins alike."""
    rows = [row for row in known_rows() if row["case"] == case and "file" in row]
    rows = [row for row in rows if (bench.folder / row["file"]).exists()]
    files = {row["what"]: bench.tools.runtime.read(bench.folder / row["file"]) for row in rows}
    load = os.getloadavg()[0]
    measured = bench.latencies(files)
    for row in rows:
        after = measured[row["what"]]
        conditions = after.conditions
        found: Row = {
            "p50_ms": after.readings["latency_ms"].statistic("p50"),
            "to_float": ratio(after, measured["float"]),
        }
        for name in compared_with:
            if row["what"].partition(":")[0] == name.partition(":")[0] and name in measured:
                found["to_int8"] = ratio(after, measured[name])
        if conditions is not None:
            found |= {"loads": conditions.loads, "dropped_blocks": conditions.dropped_blocks, "load": load}
        keep({**row, "latency": found})


def ratio(after: Measurement, before: Measurement) -> list[float]:
    """The median ratio of latencies over loads, with bounds of 95 % each."""
    loads = replace(after, baseline=before.readings).latency_ratios("p50")
    low, high = median_bounds(loads, ALPHA)
    return [float(np.median(loads)), low, high]
