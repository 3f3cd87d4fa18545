"""The sensitivity of layers in the terminal: the layers in their order, and sets of layers in float."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autocompress.core.sensitivity import LayerSensitivity, Mixed, Sensitivity
from autocompress.report.wording import milliseconds, times

LAYER_HEADINGS = ("layer", "operator", "won back", "ms int8", "ms float", "ms more", "kB more")
SET_HEADINGS = ("layers in float", "won back", "latency", "size", "the last one added")
MOST_ROWS = 20


def won_back(sensitivity: Sensitivity, divergence: float) -> str:
    """The share of the divergence that is gone; below 0 where the outputs are farther away."""
    full = sensitivity.divergence
    return f"{(full - divergence) / full:.1%}" if 0 < full < float("inf") else "-"


def layer_cells(sensitivity: Sensitivity, layer: LayerSensitivity) -> Sequence[str]:
    """The cells of a layer's row; a dash stands for what the runtime does not tell."""
    told = layer.milliseconds is not None and layer.float_milliseconds is not None
    return (
        layer.name,
        layer.operator,
        won_back(sensitivity, layer.divergence),
        milliseconds(layer.milliseconds),
        milliseconds(layer.float_milliseconds),
        milliseconds(layer.added_milliseconds) if told else "-",
        f"{layer.added_bytes / 1000:.1f}",
    )


def set_cells(sensitivity: Sensitivity, mixed: Mixed) -> Sequence[str]:
    """The cells of a row about layers in float together; latency and size are shares of the float file's."""
    return (
        str(len(mixed.layers)),
        won_back(sensitivity, mixed.divergence),
        times(mixed.latency),
        times(mixed.size),
        mixed.layers[-1],
    )


def in_one_sentence(sensitivity: Sensitivity) -> str:
    """The layer that wins back most, and what the smallest worthwhile set of layers wins."""
    if not sensitivity.layers:
        return f"{sensitivity.technique}: no layer could be measured alone"
    worst = min(sensitivity.layers, key=lambda layer: layer.divergence)
    sentence = (
        f"{sensitivity.technique} loses most in {worst.name}: "
        f"{won_back(sensitivity, worst.divergence)} of the divergence is won back with it in float"
    )
    if not sensitivity.mixed:
        return f"{sentence}; no set of layers is worth leaving in float"
    best = sensitivity.mixed[-1]
    return f"{sentence}, {won_back(sensitivity, best.divergence)} with {len(best.layers)} of {len(sensitivity.layers)}"


def print_sensitivity(console: Console, sensitivity: Sensitivity) -> None:
    """Print the layers in the order in which they are given back to float, and the sets of them."""
    settings = ", ".join(f"{name}={value}" for name, value in sensitivity.settings.items())
    console.print(
        f"[bold]{sensitivity.technique}[/bold] ({escape(settings)}): the outputs diverge by "
        f"{sensitivity.divergence:.3g} on {sensitivity.items} items",
        soft_wrap=True,
    )
    table = Table(*LAYER_HEADINGS, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for layer in sensitivity.layers[:MOST_ROWS]:
        table.add_row(*map(escape, layer_cells(sensitivity, layer)))
    _align(table, 2)
    console.print(table)
    if len(sensitivity.layers) > MOST_ROWS:
        console.print(f"and {len(sensitivity.layers) - MOST_ROWS} more, in --json and --html", style="dim")
    if sensitivity.left_out:
        count = len(sensitivity.left_out)
        console.print(f"left out, since the time did not suffice: {count} {'layer' if count == 1 else 'layers'}")
    console.print()
    if not sensitivity.mixed:
        console.print("No set of layers is worth leaving in float.")
        return
    table = Table(*SET_HEADINGS, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for mixed in sensitivity.mixed:
        table.add_row(*map(escape, set_cells(sensitivity, mixed)))
    _align(table, 0, 4)
    console.print(table)
    console.print("Sets are nested: each holds the first layers of the table above.", style="dim")


def _align(table: Table, first: int, end: int | None = None) -> None:
    """Align columns of numbers to the right; names are folded, never cut."""
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[first:end]:
        column.justify, column.no_wrap = "right", True
