"""The rungs above int8: structure, then structure with recovery, in one round and in several."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.ladder import Choice, Element, Reason, Rung, Space
from autocompress.plan import Effort, Stage
from autocompress.planner.rules import Situation
from autocompress.technique import Technique


def structure_rungs(finishes: Sequence[Rung], taken: Sequence[Technique], situation: Situation) -> list[Rung]:
    """Rungs with a structure technique in front of the fastest finish; none without one of them."""
    structures = [technique for technique in taken if technique.stage is Stage.STRUCTURE]
    recoveries = [technique for technique in taken if technique.stage is Stage.RECOVERY]
    if not structures or not finishes:
        return []
    finish = min(finishes, key=lambda rung: (rung.predicted_latency or 1.0, rung.effort))
    elements = tuple(Element(e.technique, e.stage, _first_only(e.space)) for e in finish.finish)
    rungs = []
    for technique in structures:
        space = technique.space(situation.facts, situation.probes, situation.profile)
        structure = Element(technique.name, technique.stage, space)
        rungs.append(
            Rung(
                f"{technique.name} + {finish.name}",
                Effort.CALIBRATION,
                elements,
                Reason(f"{technique.summary}; as many as it takes to fit, nothing is trained.", "structure"),
                rounds=((structure,),),
            )
        )
        for recovery in recoveries:
            rungs += _trained(structure, recovery, elements, finish.name, situation)
    return rungs


def _first_only(space: Space) -> Space:
    """The most promising settings alone: structure is what these rungs vary."""
    first = next(space.grid())
    return Space(tuple(Choice(c.name, (first[c.name],), c.structural, c.describes) for c in space.choices))


def _trained(
    structure: Element, recovery: Technique, finish: tuple[Element, ...], finish_name: str, situation: Situation
) -> list[Rung]:
    training = situation.probes.training
    if training is None:
        return []
    space = recovery.space(situation.facts, situation.probes, situation.profile)
    rungs = []
    rounds: tuple[tuple[Element, ...], ...] = ()
    for number, steps in enumerate(training.rounds):
        longer = Space(tuple(Choice(c.name, (steps,), False) if c.name == "steps" else c for c in space.choices))
        element = Element(recovery.name, recovery.stage, longer)
        rounds = (*rounds, (element,)) if rounds else ((structure, element),)
        seconds = steps * training.seconds_per_step
        items = sum(training.rounds[: number + 1]) * training.batch
        rungs.append(
            Rung(
                f"{structure.technique} + {recovery.name} x{number + 1} + {finish_name}",
                Effort.TRAINING,
                finish,
                Reason(
                    f"{recovery.summary}; round {number + 1}, {steps} steps, {items:,} items seen in all.",
                    "recovery",
                    f"about {seconds / 60:.0f} min at {training.seconds_per_step:.2f} s a step here",
                ),
                rounds=rounds,
                predicted_seconds=seconds,
            )
        )
    return rungs
