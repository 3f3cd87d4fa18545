"""The rungs above int8: structure, then structure with recovery, in one round and in several."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.core.plan import Effort, Stage
from autocompress.core.probes import SMALLEST, Probes, TrainingProbe, Way
from autocompress.core.search_space import Choice, Element, Reason, Rung, Space
from autocompress.core.technique import Technique
from autocompress.planner.rules import Situation
from autocompress.planner.target import Target, target_of

# layers left alone that a rung names
MOST_NAMED = 4


def structure_rungs(finishes: Sequence[Rung], taken: Sequence[Technique], situation: Situation) -> list[Rung]:
    """Rungs with structures in front of the fastest finish, or in float without one; none where nothing can go."""
    shelf = {technique.name: technique for technique in taken}
    finish = fastest(finishes).finish if finishes else ()
    elements = tuple(Element(e.technique, e.stage, _first_only(e.space)) for e in finish)
    target = target_of(situation.baseline)
    rungs = [
        _untrained(way, elements, target, situation.probes)
        for way in situation.probes.ways
        if all(step.technique in shelf for structure in way.structures for step in structure.steps)
    ]
    training = situation.probes.training
    if training is not None:
        rungs += [
            rung
            for recovery in taken
            if recovery.stage is Stage.RECOVERY
            for place in range(len(training.courses))
            for rung in _trained(training, place, recovery, elements, situation)
        ]
    return rungs


def fastest(finishes: Sequence[Rung]) -> Rung:
    """The finish with the least latency on the dominant layers."""
    return min(finishes, key=lambda rung: (rung.predicted_latency or 1.0, rung.effort))


def _first_only(space: Space) -> Space:
    """The most promising settings alone: structure is what these rungs vary."""
    first = next(space.grid())
    return Space(tuple(Choice(c.name, (first[c.name],), c.structural, c.describes) for c in space.choices))


def _name(*parts: str, finish: Sequence[Element]) -> str:
    return " + ".join([*parts, *(element.technique for element in finish)])


def _untrained(way: Way, finish: tuple[Element, ...], target: Target, probes: Probes) -> Rung:
    likely, fits = target.expected([(one.latency, one.size) for one in way.structures])
    expected = way.structures[likely]
    if way.name == SMALLEST:
        sentence = "the least that can be left of the network, as the nearest miss; nothing is trained."
    else:
        sentence = f"of {len(way.structures)} nested structures, the one that leaves most and fits; nothing is trained."
    return Rung(
        _name(way.name, finish=finish),
        Effort.CALIBRATION,
        finish,
        Reason(
            sentence,
            "structure",
            (f"number {likely + 1} is expected to" if fits else "none is expected to")
            + (_left_alone(probes) if any(step.technique == "channel_pruning" for step in expected.steps) else ""),
        ),
        expected.latency,
        expected.size,
        structures=tuple(one.steps for one in way.structures),
        nested=True,
        likely=likely,
        predictions=tuple((one.latency, one.size) for one in way.structures),
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _left_alone(probes: Probes) -> str:
    """Layers whose channels cannot be cut, with the reason; the first few of them."""
    named = [f"{name}: {reason}" for name, reason in probes.left_alone.items()]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"; left alone: {' '.join(named[:MOST_NAMED])}{more}" if named else ""


def _trained(
    training: TrainingProbe, place: int, recovery: Technique, finish: tuple[Element, ...], situation: Situation
) -> list[Rung]:
    """The rounds of one course of training."""
    space = recovery.space(situation.facts, situation.probes, situation.profile)
    course = training.courses[place]
    known = {one.steps: one for way in situation.probes.ways for one in way.structures}
    ways = [known[steps] for steps in course.structures if steps in known]
    predictions = tuple((one.latency, one.size) for one in ways) if len(ways) == len(course.structures) else ()
    first = known.get(course.structures[0])
    rungs = []
    rounds: tuple[tuple[Element, ...], ...] = ()
    for number, (steps, most) in enumerate(zip(course.rounds, course.candidates, strict=True)):
        longer = Space(tuple(Choice(c.name, (steps,), False) if c.name == "steps" else c for c in space.choices))
        rounds = (*rounds, (Element(recovery.name, recovery.stage, longer),))
        seconds = training.seconds(place, number)
        seen = sum(course.rounds[: number + 1]) * training.batch
        rungs.append(
            Rung(
                _name(f"{'smaller ' * (place > 0)}structure", f"{recovery.name} x{number + 1}", finish=finish),
                Effort.TRAINING,
                finish,
                Reason(
                    f"{recovery.summary}; round {number + 1}, {steps} steps, {seen:,} items seen in all.",
                    "recovery",
                    f"about {_time(seconds)} for each of {most} at {training.seconds_per_step:.2g} s a step here",
                ),
                first.latency if first else None,
                first.size if first else None,
                rounds=rounds,
                predicted_seconds=seconds,
                structures=course.structures,
                promotes=most if number else None,
                predictions=predictions,
            )
        )
    return rungs
