"""Options that several commands share, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from autocompress.core.budget import METRICS, Budget
from autocompress.errors import ProfileError, UsageError

ModelSpec = Annotated[
    str,
    typer.Option(
        "--model",
        help="file.py:callable, package.module:callable, torchvision:NAME, timm:NAME, hf:DIR or FILE.onnx.",
        metavar="SPEC",
    ),
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="State dict for the model (loaded with weights_only).", metavar="FILE")
]
DataSpec = Annotated[
    str | None,
    typer.Option("--data", help="digits, cifar10, mnist, fashion-mnist, FILE.npz or file.py:callable.", metavar="SPEC"),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder of torchvision's data sets.", metavar="DIR")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision download a missing data set.")]
Augment = Annotated[
    str, typer.Option("--augment", help="none, flip or crop-flip, for training on images.", metavar="NAME")
]
ProfileSpec = Annotated[
    str, typer.Option("--profile", help="Profile file, or the name of a shipped one.", metavar="FILE")
]
InputSpec = Annotated[
    list[str] | None,
    typer.Option("--input", help="Input spec where no data give one: 1x3x32x32:float32.", metavar="SPEC"),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option("--input", help="Shape that the file is timed at: input_ids=1x128; may be repeated.", metavar="SPEC"),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option("--output", help="Output of the model that ships; repeatable. Without it all ship.", metavar="NAME"),
]
Dynamic = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic",
        help="Axis that must be free in the file, input_ids:1=sequence; repeatable; none frees the batch alone.",
        metavar="AXIS",
    ),
]
OutputKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--output-kind",
        help="What an output is, where its values do not tell: boxes=values, or one word; repeatable.",
        metavar="NAME=KIND",
    ),
]
OutDir = Annotated[Path, typer.Option("--out", help="Folder of the run.", metavar="DIR")]
Objective = Annotated[
    str | None, typer.Option("--objective", help="effort, latency, size, accuracy or serving_cost.", metavar="NAME")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", help="Layer to leave alone, with all inside it; * stands for anything.", metavar="NAME"),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option("--keep-float", help="Layer that is not quantized, named in the same way.", metavar="NAME"),
]
MaxTime = Annotated[str | None, typer.Option("--max-time", help="90s, 20m, 2h; over all resumptions.", metavar="TIME")]
RecipeSpec = Annotated[
    str | None,
    typer.Option("--recipe", help="file.py:callable, a TrainingRecipe or a training function.", metavar="SPEC"),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Also print the facts, the probes and the decision tree.")]


def takes_budgets(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag per metric; they reach it as its keyword argument `budgets`."""
    signature = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    kept = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values() if p.name != "budgets"]
    flags = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    f"--{name.replace('_', '-')}",
                    help=f"{metric.direction.capitalize()}: {metric.describes}.",
                    metavar=f"{metric.unit}{' or 0.5x' if metric.may_be_relative else ''}",
                    rich_help_panel="Budgets (each replaces the profile's)",
                ),
            ],
        )
        for name, metric in METRICS.items()
    ]

    @functools.wraps(command)
    def wrapped(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in METRICS}
        budgets = {name: value for name, value in given.items() if value is not None}
        for name, value in budgets.items():
            try:
                Budget.parse(name, value)
            except ProfileError as error:
                raise UsageError(error.message, where=f"--{name.replace('_', '-')}", hint=error.hint) from None
        return command(**arguments, budgets=budgets)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in kept] + flags
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by typer
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped
