"""`autocompress run`, `plan`, `apply` and `resolve`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from autocompress.cli.given import load_given, only_json, specs_of
from autocompress.cli.options import (
    AsJson,
    Augment,
    DataDir,
    DataSpec,
    Download,
    Dynamic,
    Ignore,
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
from autocompress.errors import InterruptedRunError, TerminatedRunError, UsageError
from autocompress.system.interruption import Interruption
from autocompress.system.workspace import DEFAULT_FOLDER, Workspace


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
        module, task = load_given(model, weights, data, data_dir, augment, download=download)
        result = autocompress(
            module,
            profile,
            task,
            inputs=specs_of(input_, module),
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
    with only_json(as_json), TerminalProgress(errors if as_json else console) as progress:
        module, task = load_given(model, weights, data, data_dir, augment, download=download)
        planned = explain(
            module,
            profile,
            task,
            inputs=specs_of(input_, module),
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
    module, task = load_given(model, weights, data, data_dir, augment, download=download)
    with TerminalProgress(console) as progress:
        result = apply_plan(
            replayed,
            module,
            profile,
            task,
            inputs=specs_of(input_, module),
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


def _named(**options: Any) -> dict[str, str]:
    """The options that were given, as texts by name; options left out are not included."""
    texts = {name: ", ".join(value) if isinstance(value, list) else value for name, value in options.items()}
    return {name: str(text) for name, text in texts.items() if text is not None}
