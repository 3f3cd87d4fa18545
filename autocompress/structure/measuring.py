"""What structures save here, measured on untrained ones: the smallest one, and samples of each kind of cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from autocompress.analysis import probe_cache
from autocompress.analysis.channel_multiple import MULTIPLES, probe_multiple
from autocompress.analysis.prediction import FLOAT_BYTES
from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.plan import Plan, Step
from autocompress.core.probes import Structure
from autocompress.core.record import Journal
from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import ArtifactError, ModelError, RuntimeFailureError, TechniqueError
from autocompress.evaluation.workbench import Workbench
from autocompress.planner.target import Target
from autocompress.structure.space import Cut, PruningSpace
from autocompress.system.progress import Event, Listener
from autocompress.system.scratch import scratch
from autocompress.system.time_limit import TimeLimit

# measurements that the latency model is fitted to, the whole network's among them
MOST_SAMPLES = 7
MEASURE_SECONDS = 3.0


@dataclass(frozen=True)
class Measured:
    """A cut, or what comes close to it, with the steps that make it, and its latency and size as shares of the
    baseline's."""

    cut: Cut
    steps: tuple[Step, ...]
    latency: float
    size: float


@dataclass(frozen=True, eq=False)
class StructureMeasurer:
    """The run as far as structure needs it. `finish` is what every structure is measured with, `expected` the latency
    and size of it alone, as `expected_measured` or only predicted; what one `attempt` has measured another does not go
    by. `layer_share` is what layers cost that have hardly any channels, as a share of the baseline's latency."""

    bench: Workbench
    journal: Journal
    facts: Facts
    finish: tuple[Step, ...]
    split: Split
    progress: Listener
    expected: tuple[float, float]
    expected_measured: bool = False
    attempt: int = 1
    layer_share: float | None = None

    @cached_property
    def value_bytes(self) -> Mapping[str, int]:
        """Bytes of a weight of each layer after the finish, by the layer's name."""
        techniques = [self.bench.tools.technique(step.technique) for step in self.finish]
        narrow = [(one.covers(self.facts), one.value_bytes) for one in techniques if isinstance(one, ArtifactTechnique)]
        return {
            layer.name: FLOAT_BYTES
            if matches_pattern(layer.name, self.bench.profile.in_float)
            else min((bytes_ for kinds, bytes_ in narrow if layer.kind in kinds), default=FLOAT_BYTES)
            for layer in self.facts.layers
        }

    def said(self, sentence: str) -> None:
        """Tell the listener."""
        self.progress(Event("probes", sentence))

    def finished(self, artifact: Artifact, example: Example, folder: Path) -> Artifact:
        """An artifact of random weights with the finish, calibrated on the example."""
        return self.bench.tools.finished(artifact, self.finish, Context(None, example, example.as_split(), folder))

    def measured(self, steps: tuple[Step, ...], time: int = 1) -> tuple[float, float] | None:
        """Latency and size of a structure, not trained, as shares of the baseline; None where it cannot be built.

        What an earlier sitting measured is not measured again, unless it is for another `time`.
        """
        plan = Plan((steps,) if steps else (), self.finish)
        note = "structures" if self.attempt == 1 else f"structures, attempt {self.attempt}"
        note += f", measured for time {time}" if time > 1 else ""
        noted = self.journal.noted(note) or {}
        if plan.hash in noted:
            found = noted[plan.hash]
        else:
            found = self.journal.note_first(note, plan.hash, self._measure(plan))
        return None if found is None else (found[0], found[1])

    def _measure(self, plan: Plan) -> list[float] | None:
        with scratch("structure") as folder:
            try:
                # ranges from the example: time and size do not depend on them
                artifact = self.finished(self.bench.exported(plan.rounds), self.bench.example, folder)
                latency = self.bench.measure_time(artifact, MEASURE_SECONDS)
            except (TechniqueError, ModelError, ArtifactError, RuntimeFailureError):
                # a structure that cannot be built tells nothing about time; the search meets it again and says why
                return None
            ratios = latency.latency_ratios(self.bench.profile.protocol.statistic)
            return [float(np.median(ratios)), artifact.size_bytes / self.bench.baseline.size_bytes]


def multiple_of(structure_measurer: StructureMeasurer, limit: TimeLimit) -> int | None:
    """See `probe_multiple`; what an earlier run found on this device for such layers holds. None where there is no time
    to measure any."""
    tools, profile = structure_measurer.bench.tools, structure_measurer.bench.profile
    layers = [[one.type, list(one.input_shape), dict(one.detail)] for one in structure_measurer.facts.dominant()]
    asked = ["multiple", layers, str(Plan((), structure_measurer.finish))]
    key = probe_cache.key_of(structure_measurer.bench.machine, tools.runtime.versions, profile, asked)
    known = (probe_cache.read(key) or {}).get("multiple")
    if known in MULTIPLES:
        return int(known)
    if limit.is_too_short():
        return None
    multiple = probe_multiple(
        structure_measurer.facts, structure_measurer.finished, tools.runtime, tools.device, profile
    )
    probe_cache.write(key, {"multiple": multiple}, structure_measurer.said)
    return multiple


def measure_samples(
    structure_measurer: StructureMeasurer, pruning_space: PruningSpace, limit: TimeLimit
) -> list[Measured]:
    """Cuts with their latency and size; begins with no cut. Empty where not even that can be measured.

    Where there is no time for any, no cut has what is predicted of it.
    """
    known = limit.is_too_short() or (structure_measurer.expected_measured and structure_measurer.attempt == 1)
    found = [Measured(Cut(), (), *structure_measurer.expected)] if known else []
    for cut in (*([] if known else [Cut()]), *pruning_space.samples()):
        if len(found) == MOST_SAMPLES or (found and limit.is_too_short()):
            break
        structure_measurer.said(f"measuring what {_describe(cut)} saves")
        steps = pruning_space.steps(cut)
        with limit.piece():
            both = structure_measurer.measured(steps)
        if both is not None:
            found.append(Measured(cut, steps, *both))
        elif not found:
            return []
    return found


def measure_ends(
    structure_measurer: StructureMeasurer, pruning_space: PruningSpace, asked: Target, limit: TimeLimit
) -> list[Measured]:
    """The smallest structure as it is measured; nothing where it cannot be built.

    Where it misses the latency that is asked it is measured once more: this answer ends the run, and a neighbour's
    burst of work must not give it. So is the one with all channels: thin layers can be slower than wide ones.
    """
    structure_measurer.said("measuring the smallest structure")
    cut, steps = pruning_space.smallest()
    with limit.piece():
        found = structure_measurer.measured(steps)
    ends = [] if found is None else [Measured(cut, steps, *found)]
    if found is None or not asked.missed(*found) or asked.missed(0.0, found[1]):
        return ends
    structure_measurer.said("measuring the smallest structure once more, since it misses the latency that is asked")
    others = [(cut, steps, structure_measurer.measured(steps, time=2))]
    wide = Cut(cut.blocks)
    if wide != cut and wide.blocks:
        blocks_alone = pruning_space.steps(wide)
        others.append((wide, blocks_alone, structure_measurer.measured(blocks_alone)))
    return [*ends, *(Measured(other, made, *both) for other, made, both in others if both is not None)]


def smallest_of(ends: Sequence[Measured]) -> Structure | None:
    """The fastest of the smallest structures, with the least size that any of them has."""
    if not ends:
        return None
    fastest = min(ends, key=lambda one: one.latency)
    return Structure(fastest.steps, None, fastest.latency, min(one.size for one in ends))


def _describe(cut: Cut) -> str:
    if cut.blocks:
        return f"leaving out {len(cut.blocks)} blocks like {cut.blocks[0]}"
    return f"narrowing {cut.widths[0][0]}" if cut.widths else "quantization alone"
