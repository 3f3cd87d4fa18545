from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruned_at_random import FAMILIES
from random_networks import random_network

from autocompress.errors import TechniqueError
from autocompress.pruning.dependency_graph import CannotCutError
from autocompress.pruning.pruning_graph import PruningGraph


def places(group: Any) -> list[tuple[Any, Sequence[int], Sequence[int]]]:
    return [(item.dep, item.idxs, item.root_idxs) for item in group]


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_channels_lead_where_torch_pruning_says_also_after_cuts(data: st.DataObject) -> None:
    module, make = random_network(lambda options: data.draw(st.sampled_from(list(options))), FAMILIES)
    try:
        graph = PruningGraph(module, make(2, 0))
    except TechniqueError:
        return
    dependencies = graph.graph
    for coupling in graph.couplings()[0]:
        root = module.get_submodule(coupling.name)
        half = list(range(coupling.channels // 2))
        try:
            found = dependencies.group_of(root, half)
        except CannotCutError:
            continue
        dependencies.steps_left = 10**9
        theirs = dependencies.get_pruning_group(root, dependencies.get_pruner_of_module(root).prune_out_channels, half)
        assert places(found) == places(theirs)
        if coupling.blocks == 1 and dependencies.check_pruning_group(theirs):
            dependencies.cut(found)
