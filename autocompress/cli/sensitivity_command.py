"""`autocompress sensitivity`: which layers lose accuracy, and what each costs in float."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autocompress.cli.given import load_given, specs_of
from autocompress.cli.options import (
    DataDir,
    DataSpec,
    Download,
    InputSpec,
    KeepFloat,
    MaxTime,
    ModelSpec,
    OutputKinds,
    Outputs,
    ProfileSpec,
    Weights,
)
from autocompress.errors import UsageError


def sensitivity(
    model: ModelSpec,
    data: DataSpec = None,
    profile: ProfileSpec = "local",
    technique: Annotated[
        str, typer.Option("--technique", help="Technique that can leave single layers in float.", metavar="NAME")
    ] = "int8_static",
    setting: Annotated[
        list[str] | None,
        typer.Option("--setting", help="A setting of it, per_channel=false; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    weights: Weights = None,
    data_dir: DataDir = None,
    download: Download = False,
    input_: InputSpec = None,
    output: Outputs = None,
    output_kind: OutputKinds = None,
    keep_float: KeepFloat = None,
    max_time: MaxTime = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there.", metavar="FILE")] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write tables and picture there.", metavar="FILE")
    ] = None,
) -> None:
    """Measure layer by layer what quantization costs in accuracy, and what leaving layers in float costs."""
    from autocompress.api import sensitivity as measure
    from autocompress.report.sensitivity import print_sensitivity
    from autocompress.report.sensitivity_html import sensitivity_page
    from autocompress.report.terminal import TerminalProgress
    from autocompress.system.workspace import write_json, write_text

    chosen = _settings(setting or [])
    console = Console(highlight=False)
    with TerminalProgress(console) as progress:
        module, task = load_given(model, weights, data, data_dir, "none", download=download)
        found = measure(
            module,
            profile,
            task,
            technique=technique,
            settings=chosen,
            inputs=specs_of(input_, module),
            outputs=output or (),
            output_kind=output_kind or (),
            keep_float=keep_float or (),
            max_time=max_time,
            progress=progress,
        )
    console.print()
    print_sensitivity(console, found)
    if json_file is not None:
        write_json(json_file, {"schema": 1, **found.to_json()})
    if html_file is not None:
        write_text(html_file, sensitivity_page(found))


def _settings(texts: list[str]) -> dict[str, str | int | float | bool]:
    """The settings in texts such as `per_channel=false`, with the types of a plan's file."""
    import yaml

    found: dict[str, str | int | float | bool] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            read = None
        if not name or not equals or not isinstance(read, str | int | float | bool):
            raise UsageError(
                f"{text!r} is no setting.", where="--setting", hint="Write NAME=VALUE: --setting per_channel=false."
            )
        found[name] = read
    return found
