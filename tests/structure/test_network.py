import numpy as np
import torch
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.core.runtime import Example
from autocompress.structure.network import PrunableNetwork

EXAMPLE = Example((np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32),))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.narrow(torch.relu(self.wide(x)))


def body(*ignore: str) -> PrunableNetwork:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Sequential(*(Block() for _ in range(4))), nn.Linear(8, 2)).eval()
    return PrunableNetwork(module, EXAMPLE, inspect_module(module, EXAMPLE), 4, ignore)


def test_all_blocks_and_their_inner_widths_can_go() -> None:
    pruning_space = body().pruning_space
    assert list(pruning_space.blocks) == ["0.0", "0.1", "0.2", "0.3"]
    assert {name for names in pruning_space.groups.values() for name in names} >= {f"0.{i}.wide" for i in range(4)}


def test_what_is_ignored_neither_goes_nor_gets_narrower_and_is_named() -> None:
    left = body("0.1", "0.2.wide")
    assert list(left.pruning_space.blocks) == ["0.0", "0.3"]
    cut = {name for names in left.pruning_space.groups.values() for name in names}
    assert not cut & {"0.1.wide", "0.2.wide"}
    assert {"0.0.wide", "0.3.wide"} <= cut
    assert left.left_alone["0.2.wide"] == "it is declared to be ignored."
