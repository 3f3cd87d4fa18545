"""Before anything is trained: what can go, what it saves here, and in which order; then what training costs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autocompress import probe_cache
from autocompress.artifact import Artifact
from autocompress.errors import ArtifactError, ModelError, RuntimeFailureError, TechniqueError
from autocompress.facts import Facts
from autocompress.journal import Journal
from autocompress.ladder import Ladder
from autocompress.plan import Plan, Step
from autocompress.planner import (
    MULTIPLES,
    Anatomy,
    Body,
    Cut,
    Descent,
    Divergence,
    LatencyModel,
    Moves,
    SizeModel,
    Target,
    measure_training,
    probe_multiple,
    target_of,
    way_of,
    with_course,
    work_of,
)
from autocompress.probes import SMALLEST, Probes, Structure, TrainingProbe, Way
from autocompress.progress import Event, Listener
from autocompress.runtime import Example
from autocompress.scratch import scratch
from autocompress.source import ArraySource, Part, whole
from autocompress.strategies import fits_with_room
from autocompress.technique import Context
from autocompress.techniques.paying import time_matters
from autocompress.time_limit import TimeLimit
from autocompress.trial import Trial
from autocompress.verdict import Verdict
from autocompress.workbench import Workbench

# measurements that the latency model is fitted to, the whole network's among them, and those that correct it
MOST_SAMPLES = 7
MOST_MEASURED = 10
# predictions that are this close need no correction
CLOSE = 0.03
MEASURE_SECONDS = 3.0
# where nothing fitted but something came this close, the ways are looked for anew, and further down
WORTH_ANOTHER = 1.3
FURTHER = 0.85
# objectives under which smaller structures than the budgets ask for are worth their training, and the least part of
# latency or size that the next one leaves out
SHRINKING = ("latency", "size", "serving_cost")
LESS = 0.9


@dataclass(frozen=True)
class Measured:
    """A cut, or what comes close to it, with the steps that make it, and its latency and size as shares of the
    baseline's."""

    cut: Cut
    steps: tuple[Step, ...]
    latency: float
    size: float


@dataclass(frozen=True, eq=False)
class Shaping:
    """The run as far as structure needs it. `finish` is what every structure is measured with, `expected` the latency
    and size of it alone, as `expected_measured` or only predicted; what one `attempt` has measured another does not go
    by. `layer_share` is what layers cost that have hardly any channels, as a share of the baseline's latency."""

    bench: Workbench
    journal: Journal
    facts: Facts
    finish: tuple[Step, ...]
    part: Part
    progress: Listener
    expected: tuple[float, float]
    expected_measured: bool = False
    attempt: int = 1
    layer_share: float | None = None

    def said(self, sentence: str) -> None:
        """Tell the listener."""
        self.progress(Event("probes", sentence))

    def finished(self, artifact: Artifact, example: Example, folder: Path) -> Artifact:
        """An artifact of random weights with the finish, calibrated on the example."""
        part = whole("example", ArraySource(example.inputs, np.zeros(example.batch, dtype=np.int64)))
        return self.bench.tools.finished(artifact, self.finish, Context(None, example, part, folder))

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


def find_ways(shaping: Shaping, probes: Probes, verdict: Verdict, seconds: float | None) -> Probes:
    """The probes with what can go and the structures worth measuring. `verdict` judges the model as it is.

    Where not even the smallest structure keeps the budgets, it is the only one, and nothing is ordered. A second
    attempt goes further down: nothing that the first one proposed fitted when it was measured. After so many `seconds`
    nothing more is measured, and what is left to order is ordered by what it is predicted to save.
    """
    bench = shaping.bench
    asked = target_of(verdict, bench.profile.objective)
    target = asked.tighter(FURTHER ** (shaping.attempt - 1))
    limit = TimeLimit(seconds, bench.export_seconds + MEASURE_SECONDS)
    shaping.said("looking for blocks and channels that can go")
    if not time_matters(bench.profile):
        # where only bytes count, every step of widths pays
        multiple = MULTIPLES[0]
    else:
        multiple = MULTIPLES[-1] if limit.is_over() else _multiple(shaping)
    body = Body(bench.module, bench.example, shaping.facts, multiple, bench.profile.ignore, limit.is_over)
    anatomy = body.anatomy
    names = tuple(name for kind in anatomy.groups.values() for name in kind)
    probes = replace(
        probes,
        blocks=tuple(anatomy.blocks),
        groups=names,
        left_alone=body.left_alone,
        channel_multiple=multiple,
    )
    ends: list[Measured] = []
    if not limit.is_too_short():
        with limit.piece():
            ends = _ends(shaping, anatomy, asked)
        probes = replace(probes, smallest=_smallest(ends))
    if probes.smallest is not None and asked.missed(probes.smallest.latency, probes.smallest.size):
        only = Way(SMALLEST, (probes.smallest,))
        return replace(probes, ways=(only,) if probes.smallest.steps else ())
    measured = _measure_samples(shaping, anatomy, limit)
    if not measured:
        return probes
    # what the original gives is asked for only where there is time to order by it
    divergence = functools.cache(lambda: Divergence(bench.module, bench.example, shaping.part))
    # paths share their beginnings, and a corrected one most of itself
    diverges = functools.cache(lambda cut: body.with_cut(cut, divergence().of))

    def way(name: str, *moves: Moves) -> Way:
        while True:
            descent = Descent(
                _predictor(shaping, anatomy, measured, ends),
                diverges,
                target,
                bench.profile.objective in SHRINKING,
                lambda sentence: shaping.said(f"{name}: {sentence}"),
                limit.is_over,
            )
            path = descent.path(*moves)
            expected = descent.expected(path)
            if expected is None or len(measured) >= MOST_MEASURED or limit.is_too_short():
                return way_of(name, path, anatomy)
            both = shaping.measured(anatomy.steps(expected.cut))
            if both is None or both[0] <= expected.latency * (1 + CLOSE) or _knows(measured, expected.cut):
                return way_of(name, path, anatomy)
            # the model was too hopeful here: what was just measured corrects it
            measured.append(Measured(expected.cut, anatomy.steps(expected.cut), *both))

    ways = [way("depth", anatomy.block_moves), way("width", anatomy.width_moves)]
    if all(found.structures for found in ways):
        ways.append(way("depth and width", anatomy.block_moves, anatomy.width_moves))
    return replace(probes, ways=tuple(found for found in ways if found.structures))


def _multiple(shaping: Shaping) -> int:
    """See `probe_multiple`; what an earlier run found on this device for such layers holds."""
    tools, profile = shaping.bench.tools, shaping.bench.profile
    layers = [[one.type, list(one.input_shape), dict(one.detail)] for one in shaping.facts.dominant()]
    asked = ["multiple", layers, str(Plan((), shaping.finish))]
    key = probe_cache.key_of(shaping.bench.machine, tools.runtime.versions, profile, asked)
    known = (probe_cache.read(key) or {}).get("multiple")
    if known in MULTIPLES:
        return int(known)
    multiple = probe_multiple(shaping.facts, shaping.finished, tools.runtime, tools.device, profile)
    probe_cache.write(key, {"multiple": multiple}, shaping.said)
    return multiple


def _knows(measured: Sequence[Measured], cut: Cut) -> bool:
    return any(one.cut == cut for one in measured)


def _measure_samples(shaping: Shaping, anatomy: Anatomy, limit: TimeLimit) -> list[Measured]:
    """Cuts with their latency and size; begins with no cut. Empty where not even that can be measured.

    Where there is no time for any, no cut has what is predicted of it.
    """
    known = limit.is_too_short() or (shaping.expected_measured and shaping.attempt == 1)
    found = [Measured(Cut(), (), *shaping.expected)] if known else []
    for cut in (*([] if known else [Cut()]), *anatomy.samples()):
        if len(found) == MOST_SAMPLES or (found and limit.is_too_short()):
            break
        shaping.said(f"measuring what {_describe(cut)} saves")
        with limit.piece():
            both = shaping.measured(anatomy.steps(cut))
        if both is not None:
            found.append(Measured(cut, anatomy.steps(cut), *both))
        elif not found:
            return []
    return found


def _ends(shaping: Shaping, anatomy: Anatomy, asked: Target) -> list[Measured]:
    """The smallest structure as it is measured; nothing where it cannot be built.

    Where it misses the latency that is asked it is measured once more: this answer ends the run, and a neighbour's
    burst of work must not give it. So is the one with all channels: thin layers can be slower than wide ones.
    """
    shaping.said("measuring the smallest structure")
    cut, steps = anatomy.smallest()
    found = shaping.measured(steps)
    ends = [] if found is None else [Measured(cut, steps, *found)]
    if found is None or not asked.missed(*found) or asked.missed(0.0, found[1]):
        return ends
    shaping.said("measuring the smallest structure once more, since it misses the latency that is asked")
    wide = Cut(cut.blocks)
    others = [(cut, steps, shaping.measured(steps, time=2))]
    if wide != cut and wide.blocks:
        others.append((wide, anatomy.steps(wide), shaping.measured(anatomy.steps(wide))))
    return [*ends, *(Measured(other, made, *both) for other, made, both in others if both is not None)]


def _smallest(ends: Sequence[Measured]) -> Structure | None:
    """The fastest of the smallest structures, with the least size that any of them has."""
    if not ends:
        return None
    fastest = min(ends, key=lambda one: one.latency)
    return Structure(fastest.steps, None, fastest.latency, min(one.size for one in ends))


def _describe(cut: Cut) -> str:
    if cut.blocks:
        return f"leaving out {len(cut.blocks)} blocks like {cut.blocks[0]}"
    return f"narrowing {cut.widths[0][0]}" if cut.widths else "quantization alone"


def _predictor(
    shaping: Shaping, anatomy: Anatomy, measured: Sequence[Measured], ends: Sequence[Measured]
) -> Callable[[Cut], tuple[float, float]]:
    works = [(work_of(anatomy.layers(one.cut)), one.latency) for one in (*measured, *ends)]
    latencies = LatencyModel.fit(anatomy.facts, works, shaping.layer_share)
    # what the smallest structures narrow beyond their cuts does little work but may hold many weights
    sizes = SizeModel.fit([(anatomy.layers(one.cut), one.size) for one in measured], shaping.bench.baseline.size_bytes)

    def predict(cut: Cut) -> tuple[float, float]:
        layers = anatomy.layers(cut)
        return latencies.predict(work_of(layers)), sizes.predict(layers)

    return predict


def fitting_structures(ladder: Ladder, history: Iterable[Trial]) -> list[tuple[Step, ...]]:
    """Of every way down, the structure that leaves most of the network and fits; the best untrained score first."""
    trials = list(history)
    found: dict[tuple[Step, ...], float] = {}
    for rung in (rung for rung in ladder.rungs if rung.nested):
        places = {rung.place(trial.plan): trial for trial in trials if rung.holds(trial.plan) and fits_with_room(trial)}
        if places:
            trial = places[min(place for place in places if place is not None)]
            score = trial.measurement.readings.get("score")
            found[rung.structure_of(trial.plan)] = score.value if score else 0.0
    return sorted(found, key=lambda structure: -found[structure])


def nearly_fitted(ladder: Ladder, history: Iterable[Trial]) -> bool:
    """True when no structure fitted its size and time budgets but one came close: a better prediction may find one."""
    trials = list(history)
    if fitting_structures(ladder, trials):
        return False
    close = [t for t in trials if t.plan.structure and t.verdict.findings]
    return any(trial.verdict.structural.overshoot <= WORTH_ANOTHER for trial in close)


def smaller_structure(shaping: Shaping, probes: Probes, reached: tuple[Step, ...]) -> tuple[Step, ...] | None:
    """The next structure on the way of one that was recovered, by at least a tenth smaller or faster than that.

    Which of the two is the objective's. It is measured, not trained, before it is believed. None where the way ends.
    """
    axis = 1 if shaping.bench.profile.objective == "size" else 0
    for way in probes.ways:
        place = next((place for place, one in enumerate(way.structures) if one.steps == reached), None)
        here = shaping.measured(reached) if place is not None else None
        if place is None or here is None:
            continue
        predicted = (way.structures[place].latency, way.structures[place].size)
        for one in way.structures[place + 1 :]:
            if (one.latency, one.size)[axis] > LESS * predicted[axis]:
                continue
            shaping.said(f"measuring a structure beyond the budgets, {way.name}")
            there = shaping.measured(one.steps)
            if there is not None and there[axis] <= LESS * here[axis]:
                return one.steps
    return None


def time_training(
    shaping: Shaping, structures: Sequence[tuple[Step, ...]], most_items: int | None = None
) -> TrainingProbe | None:
    """What training costs, taken from the most promising structure that fits, with a first course of all of them.

    Steps are timed with at most so many items where that is given.
    """
    task = shaping.bench.task
    if not structures or task is None:
        return None
    shaping.said("timing a few steps of training")
    student = shaping.bench.shaped(structures[0])
    training = measure_training(student, shaping.bench.module, task, shaping.bench.example, most_items)
    return training and with_course(training, structures)
