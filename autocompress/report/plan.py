"""What `autocompress plan` prints: facts, probes, the decision tree and the search space."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from autocompress.core.facts import Facts, Kind
from autocompress.core.probes import Probe, Probes
from autocompress.core.search_space import Recipe, SearchSpace
from autocompress.core.training_probe import TrainingProbe
from autocompress.report.wording import compact, duration

MOST_REPEATS = 4
MOST_NAMED = 3
# share of the parameters below which a layer without int8 kernels is not mentioned
WORTH_NAMING = 0.01


def print_preflight(console: Console, facts: Facts, probes: Probes) -> None:
    """Print what can be done to the model: which layers cannot be changed, why, and what happens to them.

    A model that cannot be exported, or whose file computes something else, gets no further than an error.
    """
    tree = Tree("[bold]Preflight[/bold]")
    tree.add("loads and runs as it is" if facts.is_file else "exports, and the file computes what the module does")
    rest = [layer for layer in facts.layers if layer.parameters >= WORTH_NAMING * facts.parameters]
    without = [layer.name for layer in rest if layer.kind in (Kind.NORM, Kind.OTHER)]
    if without:
        tree.add(Text(f"no int8 for {_some(without)}: they stay in float", style="dim"))
    if any(parts.names or parts.left_alone for parts in probes.parts.values()):
        tree.add(", ".join(map(str, probes.parts.values())))
    reasons: dict[str, list[str]] = {}
    for parts in probes.parts.values():
        for name, reason in parts.left_alone.items():
            reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        tree.add(Text(f"left alone: {_some(names)}: {reason}", style="dim"))
    if reasons:
        tree.add(
            Text("everything else goes on; --ignore leaves more alone, --keep-float keeps it from int8", style="dim")
        )
    console.print(tree)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def print_probes(console: Console, probes: Probes) -> None:
    """Print the probes of the model and of its dominant layers."""
    tree = Tree(f"[bold]Probes[/bold]  [dim]on {escape(', '.join(probes.layers) or 'no layer')}[/dim]")
    for technique in dict.fromkeys(probe.technique for probe in probes.probes):
        best = next(iter(probes.of(technique)), None)
        failure = probes.failure_of(technique)
        branch = tree.add(escape(f"{technique}: {failure or (_probed(best) if best else 'not measured')}"))
        for probe in probes.probes:
            if probe.technique == technique and probe.failure and not failure:
                branch.add(f"[dim]{escape(_settings(probe))}: {escape(probe.failure)}[/dim]")
    if probes.microbenchmarks is not None:
        tree.add(f"a layer costs at least {1000 * probes.microbenchmarks.layer_ms:.3g} us a call, however thin it is")
    if probes.channel_multiple is not None:
        tree.add(f"widths pay in steps of {probes.channel_multiple}")
    elif any(parts.names for parts in probes.parts.values()):
        tree.add("which widths pay was not measured: no time was left")
    if probes.skipped:
        tree.add(escape(probes.skipped_sentence))
    if probes.training is not None:
        tree.add(escape(_training(probes.training)))
    if probes.operators:
        slowest = sorted(probes.operators.items(), key=lambda one: -one[1])[:MOST_NAMED]
        tree.add(f"the model's time: {', '.join(f'{share:.0%} {escape(type_)}' for type_, share in slowest)}")
    console.print(tree)


def _training(training: TrainingProbe) -> str:
    rate = training.rate_reason or f"{training.learning_rate:.2g}"
    recipe = f", by the recipe's {training.recipe}" if training.recipe else ""
    return f"training: {training.optimizer}, batches of {training.batch}, learning rate: {rate}{recipe}"


def _settings(probe: Probe) -> str:
    return ", ".join(f"{name}={value}" for name, value in probe.settings.items())


def _probed(probe: Probe) -> str:
    assert probe.ratio is not None
    whose = "of the model" if probe.whole else "of these layers"
    size = "" if probe.size_ratio is None else f", {probe.size_ratio:.2f}x the bytes"
    low, high = (probe.ratio if bound is None else bound for bound in (probe.low, probe.high))
    return f"{probe.ratio:.2f}x the float latency ({low:.2f} to {high:.2f}){size}, {whose}"


def print_search_space(console: Console, search_space: SearchSpace) -> None:
    """Print what would be tried and what it is expected to give, and what was refused and why."""
    console.print(
        "[bold]To try, cheapest effort first[/bold]" if search_space.recipes else "[bold]Nothing to try[/bold]"
    )
    for number, recipe in enumerate(search_space.recipes, start=1):
        _print_item(console, f"{number}. ", Text.assemble((recipe.name, "bold"), f": {_expected(recipe)}"))
    if search_space.refusals:
        console.print("[bold]Refused[/bold]")
    for name, reason in search_space.refusals.items():
        fact = (f" ({reason.fact})", "dim") if reason.fact else ""
        _print_item(console, "", Text.assemble((name, "red"), f": {reason.sentence}", fact))
    for warning in search_space.warnings:
        console.print(f"[yellow]note[/yellow] {escape(warning)}", soft_wrap=True)


def _print_item(console: Console, lead: str, text: Text) -> None:
    """Print an item of a list, its further lines indented."""
    grid = Table.grid()
    grid.add_row(f"  {lead}", text)
    console.print(grid)


def _expected(recipe: Recipe) -> str:
    """The number of a recipe's plans, and what they are expected to take and to give."""
    count = sum(1 for _ in recipe.plans())
    parts = [
        f"{count} plan{'s' if count > 1 else ''}",
        f"size about {_share(recipe.predicted_size)}",
        f"latency about {_share(recipe.predicted_latency)}",
    ]
    if recipe.predicted_seconds:
        each = " and more" if recipe.seconds_per_step and count > 1 else " each" if count > 1 else ""
        parts.append(f"about {duration(recipe.predicted_seconds)} of training{each}")
    if recipe.expected_drop:
        parts.append(f"usually loses {recipe.expected_drop}")
    return ", ".join(parts)


def print_decisions(console: Console, search_space: SearchSpace) -> None:
    """Print the questions of the decision tree with their answers, and the reason of each recipe."""
    tree = Tree("[bold]Decision tree[/bold]")
    for answer in search_space.decisions:
        chosen = f"[green]{escape(answer.answer)}[/green]"
        branch = tree.add(f"{escape(answer.question)} {chosen}  [dim]{escape(answer.found)}[/dim]")
        branch.add(escape(answer.sentence))
        # the opposite of yes or no says nothing new
        if set(answer.others) - {"yes", "no"}:
            branch.add(Text(f"not taken: {', '.join(answer.others)}", style="dim"))
    console.print(tree)
    tree = Tree("[bold]Why these are tried[/bold]")
    for recipe in search_space.recipes:
        branch = tree.add(f"[bold]{recipe.name}[/bold]  effort {recipe.effort.name.lower()}")
        branch.add(Text(f"{recipe.reason.sentence} {recipe.reason.fact}".strip(), style="dim"))
        if recipe.expected_drop:
            branch.add(Text(f"{recipe.expected_drop}: {recipe.expected_drop.source}", style="dim"))
    if search_space.recipes:
        console.print(tree)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}x"


def print_facts(console: Console, facts: Facts) -> None:
    """Print the facts of the model in one paragraph."""
    sentences = [
        f"[bold]{facts.family}[/bold]: {escape(facts.evidence)}",
        f"{facts.parameters:,} parameters ({facts.nonzero / max(facts.parameters, 1):.1%} non-zero, "
        f"{facts.quantizable:.0%} in layers with int8 kernels)",
        f"{facts.macs:,} multiply-accumulates and at most {facts.largest_activation:,} values at a time per item",
    ]
    kinds = ", ".join(f"{share:.0%} {kind}" for kind, share in facts.convolution.items())
    if len(facts.convolution) > 1:
        sentences.append(f"convolutions: {kinds}")
    if facts.repeats:
        sentences.append(", ".join(f"{len(one.names)} x {escape(one.type)}" for one in facts.repeats[:MOST_REPEATS]))
    console.print("; ".join(sentences), soft_wrap=True)
    for sentence in facts.preparation:
        console.print(escape(sentence), soft_wrap=True)


def print_comparison(console: Console, facts: Facts) -> None:
    """Print what the outputs are, how they are compared, and what recovery by training learns from."""
    for sentence in facts.comparison:
        console.print(escape(sentence), soft_wrap=True)
    if facts.outputs:
        console.print("--output-kind NAME=KIND says what an output is where this is wrong.", style="dim")


def print_layers(console: Console, facts: Facts) -> None:
    """Print a line per layer; long names are folded, never cut."""
    headings = ("layer", "type", "output", "parameters", "MACs", "near 0", "spread", "rank")
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for layer in facts.layers:
        weights = facts.weights.get(layer.name)
        spread = ("", "", "")
        if weights is not None:
            rank = "" if weights.rank is None else f"{weights.rank:.0%}"
            spread = (f"{weights.near_zero:.0%}", f"{weights.channel_spread:.1f}x", rank)
        shape = "x".join(map(str, layer.output_shape))
        table.add_row(layer.name, layer.type, shape, compact(layer.parameters), compact(layer.macs), *spread)
    for column in table.columns:
        column.overflow = "fold"
    for column in table.columns[3:]:
        column.justify, column.no_wrap = "right", True
    console.print(table)
