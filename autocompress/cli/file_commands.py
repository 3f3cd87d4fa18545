"""`autocompress measure` and `check`: files that exist, measured and judged."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autocompress.cli.given import shapes_of
from autocompress.cli.options import (
    AsJson,
    DataDir,
    DataSpec,
    InputShape,
    ProfileSpec,
    takes_budgets,
)
from autocompress.errors import UndecidedError


def measure(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An ONNX file.")],
    profile: ProfileSpec = "local",
    baseline: Annotated[Path | None, typer.Option("--baseline", help="Measure beside it.", metavar="ARTIFACT")] = None,
    input_: InputShape = None,
    streams: Annotated[
        int | None, typer.Option("--streams", min=1, max=1024, help="Measure throughput with so many callers.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a file's size, latency and memory, with intervals, in the profile's runtime on this device."""
    from autocompress.core.profile import load_profile
    from autocompress.report.measurement import measured_json, print_measurement
    from autocompress.run import gate

    target = load_profile(profile).with_inputs(shapes_of(input_))
    also = ["memory_mb"]
    if streams is not None:
        also.append("throughput_per_s")
        target = replace(target, protocol=replace(target.protocol, streams=streams))
    tools = gate.tools_without_techniques(target)
    found = tools.runtime.read(artifact)
    before = tools.runtime.read(baseline) if baseline else None
    gauge = gate.Gauge.of(target, tools, None, found, before)
    measurement = gauge.measure(found, also=also)
    machine = str(tools.device.machine())
    if as_json:
        typer.echo(json.dumps(measured_json(measurement, target, machine, gauge.unsized), indent=2))
    else:
        print_measurement(Console(highlight=False), measurement, target, machine, gauge.unsized)
    if gauge.unsized:
        raise typer.Exit(UndecidedError.exit_code)


@takes_budgets
def check(
    artifact: Annotated[list[Path], typer.Argument(metavar="ARTIFACT", help="The files that are about to ship.")],
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", help="Profile file, or the name of a shipped one; may be repeated.", metavar="FILE"),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="What relative budgets compare with.", metavar="ARTIFACT")
    ] = None,
    data: DataSpec = None,
    data_dir: DataDir = None,
    input_: InputShape = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", help="certificate.json of the run; must be of this file.", metavar="FILE"),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the verdict there.", metavar="FILE")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML there.", metavar="FILE")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Write a table there; GITHUB_STEP_SUMMARY always gets it.", metavar="FILE"),
    ] = None,
    budgets: Mapping[str, str] | None = None,
) -> None:
    """Judge files against the budgets; anything that could not be measured is not met."""
    from autocompress.core.budget import parse_budgets
    from autocompress.core.profile import load_profile
    from autocompress.data.data_spec import load_data
    from autocompress.report.gate import print_checks
    from autocompress.report.gate_files import write_reports
    from autocompress.run import gate
    from autocompress.system.workspace import read_json

    asked = parse_budgets(budgets)
    shapes = shapes_of(input_)
    targets = [load_profile(name).with_budgets(asked).with_inputs(shapes) for name in profile or ["local"]]
    # before anything is measured for the others
    tools = [gate.tools_without_techniques(target) for target in targets]
    task = load_data(data, data_dir=data_dir) if data else None
    claimed = read_json(certificate) if certificate else None
    every = [(path, *both) for path in artifact for both in zip(targets, tools, strict=True)]
    files = [(one.runtime.read(path), one.runtime.read(baseline) if baseline else None) for path, _, one in every]
    checks = []
    for (_, target, one), (file, before) in zip(every, files, strict=True):
        certified = gate.Certified.verify(claimed, str(certificate), file, before) if certificate else None
        checks.append(gate.check(file, before, target, one, task, certified))
    print_checks(Console(highlight=False), checks)
    write_reports(checks, json_file, junit, markdown, os.environ.get("GITHUB_STEP_SUMMARY"))
    raise typer.Exit(gate.worst(checks))
