from dataclasses import replace

import numpy as np
from rich.console import Console
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.facts import Facts
from autocompress.core.probes import Parts, Probes
from autocompress.core.runtime import Example
from autocompress.report.plan import print_preflight, print_probes


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
