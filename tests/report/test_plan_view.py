from dataclasses import replace

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.facts import Facts
from autocompress.core.plan import Effort
from autocompress.core.probes import Parts, Probes
from autocompress.core.runtime import Example
from autocompress.core.search_space import Reason, Recipe, SearchSpace
from autocompress.core.training_probe import TrainingProbe
from autocompress.report.plan import print_layers, print_preflight, print_probes, print_search_space


def facts_of(module: nn.Module) -> Facts:
    return inspect_module(module, Example((np.zeros((1, 8), np.float32),)))


def preflight(probes: Probes, module: nn.Module | None = None) -> str:
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        print_preflight(console, facts_of(module or nn.Linear(8, 4)), probes)
    return captured.get()


def test_what_cannot_be_cut_is_named_with_the_reason_and_what_then() -> None:
    left = {**dict.fromkeys(("a", "b", "c", "d", "e"), "it is wide."), "stem": "it is padded."}
    blocks = Parts("blocks can be left out", ("x", "y"))
    groups = Parts("groups of channels can be cut", ("g",), left)
    said = preflight(Probes(parts={"block_dropping": blocks, "channel_pruning": groups}))
    assert "2 blocks can be left out, 1 groups of channels can be cut" in said
    assert "left alone: a, b, c and 2 more: it is wide." in said
    assert "left alone: stem: it is padded." in said
    assert "everything else goes on" in said


def test_nothing_is_said_of_structure_that_was_not_looked_at() -> None:
    said = preflight(Probes())
    assert "exports" in said
    assert "left" not in said
    assert "cut" not in said


def test_layers_that_stay_in_float_are_named_where_they_hold_much() -> None:
    assert "no int8 for 1: they stay in float" in preflight(Probes(), nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4)))
    large = nn.Sequential(nn.Linear(8, 400), nn.Linear(400, 4), nn.LayerNorm(4))
    assert "no int8" not in preflight(Probes(), large)


def test_probes_tell_where_the_time_goes() -> None:
    probes = replace(Probes(layers=("conv1",)), operators={"Add": 0.1, "Conv": 0.8, "Relu": 0.06, "Gemm": 0.04})
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        print_probes(console, probes)
    assert "the model's time: 80% Conv, 10% Add, 6% Relu" in captured.get()


def test_how_training_is_planned_and_what_was_not_probed_is_shown() -> None:
    reason = "0.2 instead of the default 0.05: 40 steps bring the loss from 3 to 1 with 0.2, to 2.5 with 0.05"
    training = TrainingProbe(128, 0.2, "sgd", 0.1, recipe="loss 12ab", rate_reason=reason)
    console = Console(width=240, highlight=False)
    with console.capture() as captured:
        print_probes(console, Probes(training=training, skipped=("int8_static on layers",)))
    said = captured.get()
    assert f"training: sgd, batches of 128, learning rate: {reason}, by the recipe's loss 12ab" in said
    assert "The time limit left no time to probe: int8_static on layers." in said


def test_layers_have_their_whole_names_at_80_columns() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder_with_a_long_name = nn.ModuleDict({"another_long_part_of_it": nn.Linear(8, 4000)})

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder_with_a_long_name["another_long_part_of_it"](x)

    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        print_layers(console, facts_of(Deep()))
    printed = captured.get()
    first = "".join(line.split(" ")[0] for line in printed.splitlines()[1:])
    assert first == "encoder_with_a_long_name.another_long_part_of_it"
    assert "…" not in printed
    assert "36.0k" in printed
    assert "32.0k" in printed


def test_the_search_space_says_in_a_few_lines_what_is_tried_and_what_is_refused() -> None:
    recipe = Recipe("int8_static", Effort.CALIBRATION, (), Reason("it pays.", "probes"), 0.45, 0.26)
    refusals = {"float16": Reason("half of the bytes stay.", "target", "0.15x is asked")}
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        print_search_space(console, SearchSpace((recipe,), refusals, warnings=("the budgets are tight.",)))
    assert captured.get().splitlines() == [
        "To try, cheapest effort first",
        "  1. int8_static: 1 plan, size about 0.26x, latency about 0.45x",
        "Refused",
        "  float16: half of the bytes stay. (0.15x is asked)",
        "note the budgets are tight.",
    ]
