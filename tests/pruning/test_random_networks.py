"""Any network, pruned at random, is refused with a reason or computes in its file what it computes in PyTorch."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pruned_at_random import prune_at_random


@settings(max_examples=30, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_it_is_refused_with_a_reason_or_agrees(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("pruned")
    prune_at_random(lambda options: data.draw(st.sampled_from(list(options))), folder)
