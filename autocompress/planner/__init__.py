"""The planner: facts, probes and the decision tree that turns them into a ladder."""

from __future__ import annotations

from autocompress.planner.inspection import inspect_module
from autocompress.planner.probing import run_probes
from autocompress.planner.rules import Situation
from autocompress.planner.sensitivity import order_blocks
from autocompress.planner.training import measure_training
from autocompress.planner.tree import build_ladder

__all__ = ["Situation", "build_ladder", "inspect_module", "measure_training", "order_blocks", "run_probes"]
