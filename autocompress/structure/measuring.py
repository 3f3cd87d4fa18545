"""Measures untrained structures: the smallest one, and samples of each kind of move."""

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
from autocompress.core.measurement import Measurement
from autocompress.core.moves import Moves
from autocompress.core.plan import Plan, Step
from autocompress.core.probes import Structure
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import ENDS_THE_RUN
from autocompress.evaluation.run import Run
from autocompress.planner.target import Target
from autocompress.structure.space import PruningSpace
from autocompress.system.scratch import scratch
from autocompress.system.time_limit import TimeLimit

# most measurements for the first fit of the latency model, the whole network's included
MOST_SAMPLES = 7
MEASURE_SECONDS = 3.0


@dataclass(frozen=True)
class MeasuredStructure:
    """Measured latency and size of a structure, as shares of the baseline's.

    `moves` are those of the structure, at least closely; `steps` make it.
    """

    moves: Moves
    steps: tuple[Step, ...]
    latency: float
    size: float


@dataclass(frozen=True, eq=False)
class StructureMeasurer:
    """Measures untrained structures with the finish that they will have.

    Args:
        run: the run.
        facts: of its model.
        finish: the steps on the artifact that every structure is measured with.
        split: items on which the divergence of outputs is measured.
        expected: latency and size of the finish alone, as shares of the baseline's.
        expected_measured: True where these were measured of the whole model, not predicted.
        attempt: which search of the space this is, from 1; attempts do not share their measurements.
        layer_share: cost of layers that have hardly any channels, as a share of the baseline's latency.
    """

    run: Run
    facts: Facts
    finish: tuple[Step, ...]
    split: Split
    expected: tuple[float, float]
    expected_measured: bool = False
    attempt: int = 1
    layer_share: float | None = None

    @cached_property
    def value_bytes(self) -> Mapping[str, float]:
        """Bytes of a weight of each layer after the finish, by the layer's name."""
        techniques = [(self.run.tools.technique(step.technique), step.settings) for step in self.finish]
        narrow = [
            (one.covers(self.facts), one.weight_bytes(settings))
            for one, settings in techniques
            if isinstance(one, ArtifactTechnique)
        ]
        return {
            layer.name: FLOAT_BYTES
            if matches_pattern(layer.name, self.run.profile.in_float)
            else min((bytes_ for kinds, bytes_ in narrow if layer.kind in kinds), default=FLOAT_BYTES)
            for layer in self.facts.layers
        }

    def tell(self, sentence: str) -> None:
        """Pass a sentence about the present work to the progress callback."""
        self.run.tell("probes", sentence)

    def finished(self, artifact: Artifact, example: Example, folder: Path) -> Artifact:
        """Apply the finish to an artifact.

        Quantization ranges come from the example: size and time do not depend on them.
        """
        context = Context(None, example, example.as_split(), folder)
        return self.run.tools.finished(artifact, self.finish, context)

    def measured(self, steps: tuple[Step, ...], time: int = 1) -> tuple[float, float] | None:
        """Measured latency and size of an untrained structure, as shares of the baseline's.

        None where it cannot be built. What an earlier process of the run measured is not measured again, unless it is
        for another `time`.
        """
        plan = Plan((steps,) if steps else (), self.finish)
        series = f"{self.attempt}.{time}"
        known, found = self.run.record.structure(series, plan)
        if not known:
            found = self.run.record.keep_structure(series, plan, self._measure(plan))
        return None if found is None else (found[0], found[1])

    def _measure(self, plan: Plan) -> list[float] | None:
        run = self.run
        with scratch("structure") as folder:
            try:
                artifact = self.finished(run.builder.exported(plan.rounds), run.example, folder)
                latency = run.measurer.estimate_time(artifact, min(MEASURE_SECONDS, run.profile.protocol.max_seconds))
            except ENDS_THE_RUN:
                raise
            except Exception as error:  # noqa: BLE001 - the search meets it again and says why
                # a structure that cannot be built tells nothing about time
                run.failed(f"measuring the structure {plan}", error)
                return None
            return [_share_of_latency(latency, run.profile), artifact.size_bytes / run.baseline.size_bytes]


def _share_of_latency(measurement: Measurement, profile: Profile) -> float:
    """Latency as a share of the baseline's.

    It is the largest share at any input shapes where the budget is a share. Otherwise it is the share at the largest
    shapes, since these bind.
    """
    relative = any(budget.metric == "latency_ms" and budget.relative for budget in profile.budgets)
    every = (measurement, *(measurement.smaller.values() if relative else ()))
    return max(float(np.median(one.latency_ratios(profile.protocol.statistic))) for one in every)


def multiple_of(measurer: StructureMeasurer, limit: TimeLimit) -> int | None:
    """The channel multiple, from an earlier run's probe or a new one; see `probe_multiple`.

    An earlier run's result for such layers on this device holds. None where there is no time for a probe.
    """
    run = measurer.run
    tools, profile = run.tools, run.profile
    layers = [[one.type, list(one.input_shape), dict(one.detail)] for one in measurer.facts.dominant()]
    asked = ["multiple", layers, str(Plan((), measurer.finish))]
    key = probe_cache.key_of(run.machine, tools.runtime.versions, profile, asked)
    known = (probe_cache.read(key) or {}).get("multiple")
    if known in MULTIPLES:
        return int(known)
    if limit.is_too_short():
        return None
    multiple = probe_multiple(measurer.facts, measurer.finished, tools.runtime, tools.device, profile)
    probe_cache.write(key, {"multiple": multiple}, measurer.tell)
    return multiple


def measure_samples(measurer: StructureMeasurer, space: PruningSpace, limit: TimeLimit) -> list[MeasuredStructure]:
    """Measure sets of moves for the latency and size models; the first has no move.

    Empty where not even that can be measured. Where there is no time to measure the network without moves, its
    predicted latency and size are used.
    """
    known = limit.is_too_short() or (measurer.expected_measured and measurer.attempt == 1)
    found = [MeasuredStructure(Moves(), (), *measurer.expected)] if known else []
    for moves in (*([] if known else [Moves()]), *space.samples()):
        if len(found) == MOST_SAMPLES or (found and limit.is_too_short()):
            break
        measurer.tell(f"measuring what {_describe(moves)} saves")
        steps = space.steps(moves)
        with limit.piece():
            both = measurer.measured(steps)
        if both is not None:
            found.append(MeasuredStructure(moves, steps, *both))
        elif not found:
            return []
    return found


def measure_smallest(
    measurer: StructureMeasurer, space: PruningSpace, asked: Target, limit: TimeLimit
) -> list[MeasuredStructure]:
    """Measure the smallest structure; empty where it cannot be built.

    Where it misses the latency limit it is measured once more: this answer ends the run, and a burst of other work on
    the machine must not decide it. The smallest structures by single techniques are measured as well then: thin layers
    can be slower than wide ones.
    """
    measurer.tell("measuring the smallest structure")
    moves = space.smallest()
    steps = space.steps(moves)
    with limit.piece():
        found = measurer.measured(steps)
    smallest = [] if found is None else [MeasuredStructure(moves, steps, *found)]
    if found is None or not asked.missed(*found) or asked.missed(0.0, found[1]):
        return smallest
    measurer.tell("measuring the smallest structure once more, since it misses the latency that is asked")
    others = [(moves, steps, measurer.measured(steps, time=2))]
    for name, one in space.spaces.items():
        # techniques that rebuild layers may make them slower
        alone = moves.by(name)
        if not one.rebuilds and len(alone) and alone != moves and not limit.is_too_short():
            made = space.steps(alone)
            others.append((alone, made, measurer.measured(made)))
    return [*smallest, *(MeasuredStructure(other, made, *both) for other, made, both in others if both is not None)]


def best_of_smallest(smallest: Sequence[MeasuredStructure]) -> Structure | None:
    """The fastest of the smallest structures, with the least size that any of them has."""
    if not smallest:
        return None
    fastest = min(smallest, key=lambda one: one.latency)
    return Structure(fastest.steps, None, fastest.latency, min(one.size for one in smallest))


def _describe(moves: Moves) -> str:
    if not len(moves):
        return "the finish alone"
    first = moves.taken[0]
    more = f" and {len(moves) - 1} more" if len(moves) > 1 else ""
    return f"{first.technique} of {first.target}{more}"
