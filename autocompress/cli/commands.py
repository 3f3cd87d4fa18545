"""The command line: thin commands over the package, with one clear error and one exit code each."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from autocompress.cli import profile_commands as cli_profile
from autocompress.cli.options import (
    AsJson,
    Augment,
    DataDir,
    DataSpec,
    Download,
    Dynamic,
    Ignore,
    InputShape,
    InputSpec,
    KeepFloat,
    MaxTime,
    ModelSpec,
    Objective,
    OutDir,
    OutputKinds,
    Outputs,
    ProfileSpec,
    RecipeSpec,
    Resume,
    Verbose,
    Weights,
    takes_budgets,
)
from autocompress.errors import AutocompressError, InterruptedRunError, TerminatedRunError, UndecidedError, UsageError
from autocompress.system.interruption import Interruption, interruptible
from autocompress.system.workspace import DEFAULT_FOLDER, Workspace

if TYPE_CHECKING:
    import torch

    from autocompress.core.artifact import TensorSpec
    from autocompress.core.task import Task

app = typer.Typer(
    name="autocompress",
    help="The cheapest measured compression plan that meets your budgets, as a file that ships.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_profile.app, name="profile")
INTERNAL = 4


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Exit codes: 0 met, 1 not met, 2 usage or input error, 3 undecided, 4 device or runtime failure."""


@app.command()
@takes_budgets
def run(
    model: ModelSpec,
    data: DataSpec = None,
    profile: ProfileSpec = "local",
    weights: Weights = None,
    data_dir: DataDir = None,
    download: Download = False,
    augment: Augment = "none",
    input_: InputSpec = None,
    output: Outputs = None,
    dynamic: Dynamic = None,
    output_kind: OutputKinds = None,
    ignore: Ignore = None,
    keep_float: KeepFloat = None,
    recipe: RecipeSpec = None,
    out: OutDir = DEFAULT_FOLDER,
    objective: Objective = None,
    max_time: MaxTime = None,
    resume: Resume = False,
    budgets: Mapping[str, str] | None = None,
) -> None:
    """Find the cheapest plan that meets the budgets, and write the file that ships with its evidence."""
    from autocompress.api import autocompress
    from autocompress.report.plan import print_search_space
    from autocompress.report.terminal import Summary, TerminalProgress, print_result

    console = Console(highlight=False)
    _check_early(profile, budgets, objective, max_time)
    with _says_what_is_kept(out), TerminalProgress(console) as progress:
        module, task = _load(model, weights, data, data_dir, augment, download=download)
        result = autocompress(
            module,
            profile,
            task,
            inputs=_specs(input_, module),
            outputs=output or (),
            dynamic=dynamic,
            output_kind=output_kind or (),
            out=out,
            budgets=budgets,
            objective=objective,
            ignore=ignore or (),
            keep_float=keep_float or (),
            recipe=recipe,
            max_time=max_time,
            resume=resume,
            named=_named(
                model=model,
                weights=weights,
                data=data,
                data_dir=data_dir,
                augment=augment,
                input=input_,
                profile=profile,
            ),
            progress=progress,
        )
    print_search_space(console, result.search_space)
    print_result(console, Summary.of(result))
    raise typer.Exit(result.status.exit_code)


@app.command()
@takes_budgets
def plan(
    model: ModelSpec,
    data: DataSpec = None,
    profile: ProfileSpec = "local",
    weights: Weights = None,
    data_dir: DataDir = None,
    download: Download = False,
    augment: Augment = "none",
    input_: InputSpec = None,
    output: Outputs = None,
    dynamic: Dynamic = None,
    output_kind: OutputKinds = None,
    ignore: Ignore = None,
    keep_float: KeepFloat = None,
    recipe: RecipeSpec = None,
    objective: Objective = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
    budgets: Mapping[str, str] | None = None,
) -> None:
    """Explain what would be tried and what it is expected to give, what was refused, and why."""
    from autocompress.api import explain
    from autocompress.report.plan import (
        print_comparison,
        print_decisions,
        print_facts,
        print_preflight,
        print_probes,
        print_search_space,
    )
    from autocompress.report.terminal import TerminalProgress

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    _check_early(profile, budgets, objective, None)
    with _only_json(as_json), TerminalProgress(errors if as_json else console) as progress:
        module, task = _load(model, weights, data, data_dir, augment, download=download)
        planned = explain(
            module,
            profile,
            task,
            inputs=_specs(input_, module),
            outputs=output or (),
            dynamic=dynamic,
            output_kind=output_kind or (),
            budgets=budgets,
            objective=objective,
            ignore=ignore or (),
            keep_float=keep_float or (),
            recipe=recipe,
            progress=progress,
        )
    if as_json:
        answer = {
            "schema": 2,
            "facts": planned.facts.to_json(),
            "probes": planned.probes.to_json(),
            "search_space": planned.search_space.to_json(),
        }
        typer.echo(json.dumps(answer, indent=2))
        return
    print_search_space(console, planned.search_space)
    print_preflight(console, planned.facts, planned.probes)
    print_comparison(console, planned.facts)
    if not verbose:
        console.print("--verbose shows the facts, the probes and the decision tree behind this.", style="dim")
        return
    print_facts(console, planned.facts)
    print_probes(console, planned.probes)
    print_decisions(console, planned.search_space)


@app.command()
@takes_budgets
def apply(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="plan.yaml of a run.")],
    model: ModelSpec,
    data: DataSpec = None,
    profile: ProfileSpec = "local",
    weights: Weights = None,
    data_dir: DataDir = None,
    download: Download = False,
    augment: Augment = "none",
    input_: InputSpec = None,
    output: Outputs = None,
    dynamic: Dynamic = None,
    output_kind: OutputKinds = None,
    ignore: Ignore = None,
    keep_float: KeepFloat = None,
    recipe: RecipeSpec = None,
    out: OutDir = DEFAULT_FOLDER,
    budgets: Mapping[str, str] | None = None,
) -> None:
    """Replay a plan exactly: the same model, data and machine give the same bytes; then judge the file."""
    from autocompress.api import apply_plan
    from autocompress.core.plan import Plan
    from autocompress.report.terminal import Summary, TerminalProgress, print_result

    console = Console(highlight=False)
    replayed = Plan.read(plan_file)
    module, task = _load(model, weights, data, data_dir, augment, download=download)
    with TerminalProgress(console) as progress:
        result = apply_plan(
            replayed,
            module,
            profile,
            task,
            inputs=_specs(input_, module),
            outputs=output or (),
            dynamic=dynamic,
            output_kind=output_kind or (),
            out=out,
            budgets=budgets,
            ignore=ignore or (),
            keep_float=keep_float or (),
            recipe=recipe,
            progress=progress,
        )
    print_result(console, Summary.of(result))
    raise typer.Exit(result.status.exit_code)


@app.command()
@takes_budgets
def resolve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    objective: Objective = None,
    data: DataSpec = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the answer, by default in DIR/resolved.", metavar="DIR")
    ] = None,
    budgets: Mapping[str, str] | None = None,
) -> None:
    """Answer other budgets from the files of a run, within a minute: nothing is trained or built."""
    from autocompress.api import resolve as answer
    from autocompress.report.terminal import Summary, TerminalProgress, print_result

    console = Console(highlight=False)
    with _says_what_is_kept(folder, "Ask again."), TerminalProgress(console) as progress:
        result = answer(
            folder, budgets=budgets, objective=objective, data=data, data_dir=data_dir, out=out, progress=progress
        )
    print_result(console, Summary.of(result))
    raise typer.Exit(result.status.exit_code)


@app.command()
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

    target = load_profile(profile).with_inputs(_shapes(input_))
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


@app.command()
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
    shapes = _shapes(input_)
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


@app.command()
def inspect(
    model: ModelSpec,
    weights: Weights = None,
    data: DataSpec = None,
    data_dir: DataDir = None,
    input_: InputSpec = None,
    output_kind: OutputKinds = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is: layers, parameters, sparsity, multiply-accumulates, kind of architecture."""
    from autocompress.data.output_recognition import with_kinds
    from autocompress.data.task_loss import teachers_of
    from autocompress.models import as_model
    from autocompress.report.plan import print_comparison, print_facts, print_layers

    with _only_json(as_json):
        module, task = _load(model, weights, data, data_dir, "none", download=False)
        fitted = as_model(module).fitted(task, _specs(input_, module), (), ())
        facts = fitted.model.facts(fitted.example)
        if fitted.model.module is not None:
            kinds = with_kinds(fitted.example, fitted.model.module, fitted.task, output_kind or ()).kinds
            facts = replace(facts, outputs=kinds, recovery=teachers_of(fitted.task))
    if as_json:
        typer.echo(json.dumps({"schema": 2, **facts.to_json()}, indent=2))
        return
    console = Console(highlight=False)
    print_facts(console, facts)
    print_comparison(console, facts)
    print_layers(console, facts)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.")]) -> None:
    """Show a finished run again."""
    from autocompress.report.terminal import Summary, print_result

    print_result(Console(highlight=False), Summary.read(folder))


def _check_early(profile: str, budgets: Mapping[str, str] | None, objective: str | None, max_time: str | None) -> None:
    """Check the options that need neither model nor data, before these are loaded."""
    from autocompress.core.profile import load_profile
    from autocompress.system.progress import parse_duration

    parse_duration(max_time)
    target = load_profile(profile).with_objective(objective)
    if not target.budgets and not budgets:
        raise UsageError(
            "sets no budget, so nothing could ever be met.",
            where=f"profile {target.name}",
            hint="Add budgets to it, or give one as an option, for example --latency-ms 0.5x.",
        )


@contextlib.contextmanager
def _says_what_is_kept(out: Path, hint: str = "Go on with the same command and --resume.") -> Iterator[None]:
    try:
        yield
    except (Interruption, KeyboardInterrupt) as stop:
        terminated = isinstance(stop, Interruption) and stop.exit_code == TerminatedRunError.exit_code
        kind = TerminatedRunError if terminated else InterruptedRunError
        if Workspace(out).journal.exists():
            kept = f"interrupted; finished trials and training so far are kept in {out}."
        else:
            kept = "interrupted before anything was measured."
        raise kind(kept, hint=hint) from None


@contextlib.contextmanager
def _only_json(as_json: bool) -> Iterator[None]:
    """Keep what a user's code prints off standard output, which another program reads as JSON."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def _specs(texts: list[str] | None, model: torch.nn.Module | Path) -> Any:
    """Specs of example inputs; a dtype that is not given is the file's, and float32 for a module."""
    if isinstance(model, Path):
        return _shapes(texts) or None
    from autocompress.core.artifact import TensorSpec, input_name

    return tuple(TensorSpec.parse(text, input_name(place)) for place, text in enumerate(texts or ())) or None


def _shapes(texts: list[str] | None) -> tuple[TensorSpec, ...]:
    """The shapes that a file is timed at; a dtype that is not given is the file's."""
    from autocompress.core.artifact import TensorSpec, input_name

    return tuple(TensorSpec.parse(text, input_name(place), default_dtype="") for place, text in enumerate(texts or ()))


def _named(**options: Any) -> dict[str, str]:
    """The options that were given, as texts by name; options left out are not included."""
    texts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in options.items()}
    return {name: str(text) for name, text in texts.items() if text is not None}


def _load(
    model: str, weights: Path | None, data: str | None, data_dir: Path | None, augment: str, *, download: bool
) -> tuple[torch.nn.Module | Path, Task | None]:
    from autocompress.data.data_spec import load_data
    from autocompress.data.model_spec import load_model

    task = load_data(data, data_dir=data_dir, augment=augment, download=download) if data else None
    return load_model(model, weights), task


def main() -> None:
    """Run the command line; never ends with a traceback unless `--debug` is given."""
    # --debug counts at any place: people follow the advice "run again with --debug" by adding it at the end
    debug = "--debug" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--debug"]
    errors = Console(stderr=True, highlight=False)
    try:
        with interruptible():
            app()
    except Interruption as stop:
        errors.print("[red]error[/red] interrupted.")
        sys.exit(stop.exit_code)
    except AutocompressError as error:
        if debug:
            traceback.print_exc()
        errors.print(f"[red]error[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line and a code that is never 0
        if debug:
            traceback.print_exc()
        errors.print(
            f"[red]error[/red] internal: {type(error).__name__}: {escape(str(error)[:300])}. "
            "This is a defect of autocompress; run again with --debug and report it.",
            soft_wrap=True,
        )
        sys.exit(INTERNAL)


if __name__ == "__main__":
    main()
