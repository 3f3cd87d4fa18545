"""What is known before anything is tried: baseline, facts, probes and the ladder that follows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autocompress.facts import Facts
from autocompress.journal import Journal
from autocompress.judge import judge_by
from autocompress.ladder import Ladder
from autocompress.measurement import Measurement
from autocompress.planner import (
    Situation,
    build_ladder,
    inspect_module,
    measure_training,
    order_blocks,
    run_probes,
)
from autocompress.probes import Probes
from autocompress.progress import Event, Listener
from autocompress.technique import ArtifactTechnique, Technique
from autocompress.turns import alone
from autocompress.workbench import Workbench


@dataclass(frozen=True, eq=False)
class Planned:
    """What is known before anything is tried."""

    baseline: Measurement
    facts: Facts
    probes: Probes
    ladder: Ladder
    structure: bool

    @property
    def fits(self) -> bool:
        """True when the model keeps its size and time budgets as it is."""
        return any(answer.rule == "fits" and answer.taken for answer in self.ladder.path)


def plan_run(
    bench: Workbench, journal: Journal, progress: Listener, *, structure: bool, seconds_left: float | None = None
) -> Planned:
    """Baseline, facts, probes and ladder; what an earlier sitting measured is not measured again.

    `structure` adds what only techniques on the module need: the order in which blocks can go, and the speed of
    training, of which there will be no more than fits into `seconds_left`.
    """
    # workers of one run go by the same measurements, or their ladders would differ: the first one takes them
    with alone(bench.workspace.checkpoints, lambda: progress(Event("probes", "waiting for another worker"))):
        noted = journal.noted("baseline")
        if noted is None:
            progress(Event("baseline", "measuring the model as it is"))
        baseline = Measurement.from_json(noted) if noted else measure_baseline(bench)
        journal.note("baseline", baseline.to_json())
        facts = inspect_module(bench.module, bench.example)
        probes = _probe(bench, journal, facts, progress)
        if structure:
            probes = _probe_structure(bench, journal, probes, progress, seconds_left)
    techniques: Sequence[Technique] = [
        t for t in bench.tools.techniques if structure or isinstance(t, ArtifactTechnique)
    ]
    verdict = judge_by(bench.profile, baseline)
    situation = Situation(facts, probes, bench.profile, bench.task, verdict)
    ladder = build_ladder(situation, techniques, frozenset({bench.tools.runtime.format}))
    progress(Event("ladder", f"{len(ladder.rungs)} rungs, {len(ladder.refusals)} techniques refused"))
    return Planned(baseline, facts, probes, ladder, structure)


def _probe(bench: Workbench, journal: Journal, facts: Facts, progress: Listener) -> Probes:
    noted = journal.noted("probes")
    if noted:
        return Probes.from_json(noted)
    techniques = [t for t in bench.tools.techniques if isinstance(t, ArtifactTechnique)]
    tools = bench.tools

    def said(sentence: str) -> None:
        progress(Event("probes", sentence))

    probes = run_probes(facts, techniques, tools.runtime, tools.device, bench.profile, bench.machine, said)
    journal.note("probes", probes.to_json())
    return probes


def _probe_structure(
    bench: Workbench, journal: Journal, probes: Probes, progress: Listener, seconds_left: float | None
) -> Probes:
    began = time.monotonic()
    part = bench.task.calibrating if bench.task else None
    if probes.blocks or bench.task is None or part is None:
        return probes

    def said(sentence: str) -> None:
        progress(Event("probes", sentence))

    said("skipping blocks to see which matter least")
    blocks = order_blocks(bench.module, bench.example, part, said)
    if blocks and bench.task.train is not None:
        said("timing a few steps of training")
        left = None if seconds_left is None else max(0.0, seconds_left - (time.monotonic() - began))
        probes = replace(probes, training=measure_training(bench.module, bench.task, bench.example, left))
    probes = replace(probes, blocks=blocks)
    journal.note("probes", probes.to_json())
    return probes


def measure_baseline(bench: Workbench) -> Measurement:
    """Size, latency, memory and the selecting data's scores of the model as it is."""
    measurement = bench.measure_size(bench.baseline).with_(bench.measure_time(bench.baseline))
    part = bench.task.selecting if bench.task else None
    return measurement if part is None else measurement.with_(bench.measure_score(bench.baseline, part))
