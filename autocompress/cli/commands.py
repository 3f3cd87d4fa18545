"""The command line: thin commands over the package, with one clear error and one exit code each."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from autocompress.cli import download_commands, file_commands, profile_commands, run_commands, sensitivity_command
from autocompress.cli.given import load_given, only_json, specs_of
from autocompress.cli.options import (
    AsJson,
    DataDir,
    DataSpec,
    InputSpec,
    ModelSpec,
    OutputKinds,
    Weights,
)
from autocompress.errors import AutocompressError
from autocompress.system.interruption import Interruption, interruptible

app = typer.Typer(
    name="autocompress",
    help="The cheapest measured compression plan that meets your budgets, as a file that ships.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(profile_commands.app, name="profile")
INTERNAL = 4


for command in (
    run_commands.run,
    run_commands.plan,
    run_commands.apply,
    run_commands.resolve,
    file_commands.measure,
    file_commands.check,
    sensitivity_command.sensitivity,
    download_commands.pack,
    download_commands.unpack,
):
    app.command()(command)


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Exit codes: 0 met, 1 not met, 2 usage or input error, 3 undecided, 4 device or runtime failure."""


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

    with only_json(as_json):
        module, task = load_given(model, weights, data, data_dir, "none", download=False)
        fitted = as_model(module).fitted(task, specs_of(input_, module), (), ())
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
