"""Reports of `autocompress measure`: a JSON object and a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autocompress.core.measurement import STATISTICS, Measurement, Reading
from autocompress.core.profile import Profile
from autocompress.report.wording import bound_text
from autocompress.statistics.bounds import median_bounds
from autocompress.statistics.judging import too_few

TIMED = (
    "memory_mb", "memory_interval_mb", "energy_mj", "latency_ms", "latency_interval_ms", "blocks", "throughput_per_s",
    "conditions",
)  # fmt: skip


def measured_json(measurement: Measurement, profile: Profile, machine: str, unsized: str = "") -> dict[str, Any]:
    """The measurement as a JSON object: statistics with intervals, and the conditions.

    Each bound is one-sided at the profile's confidence and taken over the loads of the file; `note` says why there is
    none. What is timed is null where `unsized` says why it could not be. Where the profile gives several sets of input
    shapes these are the figures of the largest, and `smaller` has those of the others by their names.
    """
    found = _measured_json(measurement, profile, machine, unsized)
    *smaller, largest = profile.input_sets
    if not smaller:
        return found
    # a file has one size
    size, before = (
        {name: reading for name, reading in readings.items() if name == "size_mb"}
        for readings in (measurement.readings, measurement.baseline)
    )
    others = {
        name: _measured_json(Measurement(size, before).with_(one), profile, machine)
        for name, one in measurement.smaller.items()
    }
    return {**found, "shapes": largest, "smaller": others}


def _measured_json(measurement: Measurement, profile: Profile, machine: str, unsized: str = "") -> dict[str, Any]:
    readings = measurement.readings
    size = {"schema": 2, "machine": machine, "size_mb": readings["size_mb"].value}
    if unsized:
        return {**size, **dict.fromkeys(TIMED), "unmeasured": unsized}
    latency = readings["latency_ms"]
    memory = readings["memory_mb"].samples
    low, high = _bounds(latency, profile)
    found: dict[str, Any] = {
        **size,
        "memory_mb": float(np.median(memory)),
        "memory_interval_mb": {"processes": len(memory), **_finite(median_bounds(memory, profile.alpha))},
        "energy_mj": float(np.median(readings["energy_mj"].samples)) if "energy_mj" in readings else None,
        "latency_ms": {name: latency.statistic(name) for name in STATISTICS},
        "latency_interval_ms": {"statistic": profile.protocol.statistic, "low": low, "high": high},
        "blocks": list(latency.samples.shape),
        "note": too_few(len(latency.load_statistic(profile.protocol.statistic)), measurement, profile.alpha),
        "throughput_per_s": _throughput(measurement, profile),
        "conditions": measurement.conditions.to_json() if measurement.conditions else None,
    }
    if "latency_ms" in measurement.baseline:
        statistic = profile.protocol.statistic
        ratios = measurement.latency_ratios(statistic)
        bounds = median_bounds(ratios, profile.alpha)
        found["latency_ratio"] = {"value": float(np.median(ratios)), **_finite(bounds)}
        found["size_ratio"] = readings["size_mb"].value / measurement.baseline["size_mb"].value
    return found


def _throughput(measurement: Measurement, profile: Profile) -> dict[str, float | int | None] | None:
    """Items per second under load with the interval over loads; None where it was not measured."""
    reading = measurement.readings.get("throughput_per_s")
    if reading is None:
        return None
    rates = reading.load_statistic("mean")
    streams = {"streams": profile.protocol.streams, "batch": profile.protocol.batch}
    return {"value": float(np.median(rates)), **_finite(median_bounds(rates, profile.alpha)), **streams}


def _bounds(latency: Reading, profile: Profile) -> tuple[float | None, float | None]:
    bounds = _finite(median_bounds(latency.load_statistic(profile.protocol.statistic), profile.alpha))
    return bounds["low"], bounds["high"]


def _finite(bounds: tuple[float, float]) -> dict[str, float | None]:
    low, high = (bound if np.isfinite(bound) else None for bound in bounds)
    return {"low": low, "high": high}


def print_measurement(
    console: Console, measurement: Measurement, profile: Profile, machine: str, unsized: str = ""
) -> None:
    """Print the measurement as a table, or the size alone with what has to be given for the rest."""
    found = measured_json(measurement, profile, machine, unsized)
    if unsized:
        console.print(f"size  {found['size_mb']:.3f} MB")
        console.print(f"latency and memory were not measured: {escape(unsized)}", soft_wrap=True)
        return
    for shapes, one in (*found.get("smaller", {}).items(), (found.get("shapes", ""), found)):
        if shapes:
            console.print(f"at {escape(shapes)}", soft_wrap=True)
        console.print(_table(one, profile, machine))


def _table(found: dict[str, Any], profile: Profile, machine: str) -> Table:
    """The figures at one set of input shapes."""
    statistic = profile.protocol.statistic
    interval = found["latency_interval_ms"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("size", f"{found['size_mb']:.3f} MB")
    bounds = f" ({bound_text(interval['low'], 4)} to {bound_text(interval['high'], 4)})"
    table.add_row(f"latency {statistic}", f"{found['latency_ms'][statistic]:.4g} ms{bounds}")
    others = ", ".join(f"{name} {value:.4g}" for name, value in found["latency_ms"].items() if name != statistic)
    table.add_row("", f"{others} ms")
    if "latency_ratio" in found:
        ratio = found["latency_ratio"]
        table.add_row(
            "beside the baseline",
            f"{ratio['value']:.3f}x latency ({bound_text(ratio['low'], 4)} to {bound_text(ratio['high'], 4)}), "
            f"{found['size_ratio']:.3f}x size",
        )
    rate = found["throughput_per_s"]
    if rate is not None:
        span = f"{bound_text(rate['low'], 4)} to {bound_text(rate['high'], 4)}"
        table.add_row(
            "throughput", f"{rate['value']:.4g} items/s ({span}), {rate['streams']} stream(s) of batch {rate['batch']}"
        )
    memory = found["memory_interval_mb"]
    span = f"{bound_text(memory['low'], 4)} to {bound_text(memory['high'], 4)}, {memory['processes']} processes"
    table.add_row("memory", f"{found['memory_mb']:.4g} MB above an empty runtime ({span})")
    if found["energy_mj"] is not None:
        table.add_row("energy", f"{found['energy_mj']:.4g} mJ a call, of the whole processor")
    blocks, calls = found["blocks"]
    loads = found["conditions"]["loads"] if found["conditions"] else 1
    anew = f", loaded anew {loads - 1} times" if loads > 1 else ""
    table.add_row("measured", f"{blocks} blocks of {calls} calls{anew}, {profile.runtime.threads} thread(s), {machine}")
    if found["note"]:
        table.add_row("no interval", found["note"])
    return table
