"""The planner: facts, probes and the decision tree that turns them into a ladder."""

from __future__ import annotations

from autocompress.planner.anatomy import Anatomy, Cut
from autocompress.planner.body import Body
from autocompress.planner.channel_multiple import MULTIPLES, probe_multiple
from autocompress.planner.climbing import fastest
from autocompress.planner.inspection import inspect_module
from autocompress.planner.latency_model import LatencyModel, work_of
from autocompress.planner.prediction import FLOAT_BYTES, Whole
from autocompress.planner.probe_bench import ProbeBench
from autocompress.planner.probing import run_probes
from autocompress.planner.rules import Situation
from autocompress.planner.sensitivity import Divergence
from autocompress.planner.size_model import SizeModel
from autocompress.planner.training import measure_training, with_course, with_next_round
from autocompress.planner.tree import build_ladder
from autocompress.planner.ways import Descent, Moves, Target, target_of, way_of
from autocompress.planner.weights import with_weights
from autocompress.planner.whole_probing import probe_whole

__all__ = [
    "FLOAT_BYTES",
    "MULTIPLES",
    "Anatomy",
    "Body",
    "Cut",
    "Descent",
    "Divergence",
    "LatencyModel",
    "Moves",
    "ProbeBench",
    "Situation",
    "SizeModel",
    "Target",
    "Whole",
    "build_ladder",
    "fastest",
    "inspect_module",
    "measure_training",
    "probe_multiple",
    "probe_whole",
    "run_probes",
    "target_of",
    "way_of",
    "with_course",
    "with_next_round",
    "with_weights",
    "work_of",
]
