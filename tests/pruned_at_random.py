"""One random network, pruned at random: refused with a reason, or exported and computing the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_blocks import Pick
from random_networks import CLASSES, random_network
from torch import nn

from autocompress.core.plan import Setting
from autocompress.core.runtime import Example
from autocompress.core.source import ArraySource, whole
from autocompress.core.technique import Context
from autocompress.data.copies import with_shared_weights
from autocompress.data.module import call
from autocompress.errors import TechniqueError
from autocompress.pruning.blocks import drop_blocks, droppable_blocks
from autocompress.pruning.channel_groups import prunable_groups
from autocompress.pruning.importance import IMPORTANCES
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques.channel_pruning import ChannelPruning

FAMILIES = ("image", "image", "image", "image", "text", "vector", "sequence")
# batch norm is in few networks from end to end
LIKELY = (*IMPORTANCES, *(name for name in 2 * IMPORTANCES if name != "batch_norm_scale"))
RATIOS = (0.125, 0.25, 0.3, 0.5, 0.625, 0.75, 0.9)


def prune_at_random(pick: Pick, folder: Path, families: Sequence[str] = FAMILIES) -> str:
    """ "agrees", or the reason of the refusal. Anything else is an error or a failed assertion."""
    module, inputs = random_network(pick, families)
    module.train(pick([True, False]))
    example = inputs(2, 0)
    module = without_some_blocks(pick, module, example)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    try:
        settings = random_settings(pick, module, example)
        smaller = ChannelPruning().apply(module, settings, random_context(pick, inputs(16, 1), example, folder))
    except TechniqueError as error:
        return require_sentence(error.message)
    finally:
        after = module.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in module.parameters())
    require_agreement(smaller, example, inputs(3, 2), folder)
    return "agrees"


def require_sentence(message: str) -> str:
    assert message.strip().endswith(".")
    return message


def without_some_blocks(pick: Pick, module: nn.Module, example: Example) -> nn.Module:
    kinds = droppable_blocks(module, example)
    if kinds and pick([True, False]):
        module = with_shared_weights(module)
        names = list(kinds)
        drop_blocks(module, sorted({pick(names), pick(names)}), kinds)
    return module


def random_settings(pick: Pick, module: nn.Module, example: Example) -> dict[str, Setting]:
    names = ""
    if pick([True, False, False]):
        known = [group.name for group in prunable_groups(module, example).groups]
        names = " ".join(sorted({pick(known), pick(known)})) if known else "nowhere"
    return {
        "groups": names,
        "ratio": pick(RATIOS),
        "scope": pick(["uniform", "global"]),
        "importance": pick(LIKELY),
        "multiple": pick([1, 1, 1, 1, 4, 4, 8, 16]),
    }


def random_context(pick: Pick, data: Example, example: Example, folder: Path) -> Context:
    targets = np.random.default_rng(0).integers(0, CLASSES, data.batch)
    part: Any = whole("train", ArraySource(data.inputs, targets)) if pick(range(10)) else None
    return Context(None, example, part, folder)


def require_agreement(module: nn.Module, example: Example, fresh: Example, folder: Path) -> None:
    runtime = OnnxRuntime()
    artifact = runtime.export(module, example, folder / "smaller.onnx")
    found = runtime.load(runtime.read(artifact.path), 1, {}).run(fresh.arrays)
    wanted = call(module, fresh)
    for array, tensor in zip(found, wanted.values(), strict=True):
        scale = float(tensor.abs().max()) + 1e-6
        assert array.shape == tuple(tensor.shape)
        assert float(np.abs(array - tensor.numpy()).max()) <= 1e-3 * scale
