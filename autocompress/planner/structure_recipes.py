"""Recipes with structure, untrained or recovered by training in one or several rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from autocompress.core.plan import Effort, Plan, Stage
from autocompress.core.probes import SMALLEST, Probes, PruningPath
from autocompress.core.profitable_settings import SAME_SPEED
from autocompress.core.search_space import Choice, Element, Reason, Recipe, SettingSpace
from autocompress.core.technique import Technique
from autocompress.core.training_probe import TrainingProbe
from autocompress.planner.finish_settings import only
from autocompress.planner.refined_recipes import refined_recipes
from autocompress.planner.rules import Situation
from autocompress.planner.target import Target, target_of

# most layers left alone that a recipe's reason names
MOST_NAMED = 4


def structure_recipes(
    finish: Recipe | None, taken: Sequence[Technique], situation: Situation, keeping: Sequence[Technique]
) -> list[Recipe]:
    """Recipes with structures before a finish, or in float where there is none.

    `keeping` are the techniques among which those are that keep the accuracy of what was trained and quantized.
    Empty where nothing can be removed from the network.
    """
    shelf = {technique.name: technique for technique in taken}
    target = target_of(situation.baseline)
    elements = finish.finish if finish else ()
    recipes = [
        _untrained(path, elements, target, situation.probes)
        for path in situation.probes.paths
        if all(step.technique in shelf for structure in path.structures for step in structure.steps)
    ]
    training = situation.probes.training
    if training is not None:
        recipes += [
            recipe
            for recovery in taken
            if recovery.stage is Stage.RECOVERY
            for place in range(len(training.brackets))
            for recipe in _trained(training, place, recovery, elements, situation, keeping)
        ]
    return recipes


def finish_for_structures(finishes: Sequence[Recipe], target: Target) -> Recipe:
    """The finish behind a structure as a recipe of one plan.

    It is the fastest. Of those that are as fast it is the first that makes the file small enough once a structure has
    made it fast enough, else the smallest; none that trains, since the structure is trained first.
    """
    known = [one for one in finishes if one.effort is not Effort.TRAINING] or list(finishes)
    quickest = min((one.predicted_latency or 1.0 for one in known), default=1.0)
    fast = [one for one in known if (one.predicted_latency or 1.0) <= quickest * (1 + SAME_SPEED)]
    fast.sort(key=lambda one: (len(one.finish), one.predicted_latency or 1.0, one.effort))
    offers = [(one, plan, one.predicted(plan)[1] or 1.0) for one in fast for plan in _by_size(one)]
    shrunk = 1.0 if target.latency is None else min(1.0, target.latency / quickest)
    small = (offer for offer in offers if target.size is None or offer[2] * shrunk <= target.size)
    recipe, plan, size = next(small, min(offers, key=lambda offer: offer[2]))
    pairs = zip(recipe.finish, plan.finish, strict=True)
    chosen = tuple(replace(element, space=only(element.space, step.settings)) for element, step in pairs)
    return replace(recipe, finish=chosen, predicted_size=size, sizes=())


def _by_size(recipe: Recipe) -> Iterator[Plan]:
    """The first plan of each size."""
    known: set[float | None] = set()
    for plan in recipe.plans():
        size = recipe.predicted(plan)[1]
        if size not in known:
            known.add(size)
            yield plan


def _name(*parts: str, finish: Sequence[Element]) -> str:
    return " + ".join([*parts, *(element.technique for element in finish)])


def _untrained(path: PruningPath, finish: tuple[Element, ...], target: Target, probes: Probes) -> Recipe:
    likely, fits = target.expected([(one.latency, one.size) for one in path.structures])
    expected = path.structures[likely]
    if path.name == SMALLEST:
        sentence = "the least that can be left of the network, as the nearest miss; nothing is trained."
    else:
        sentence = (
            f"of {len(path.structures)} nested structures, the one that leaves most and fits; nothing is trained."
        )
    return Recipe(
        _name(path.name, finish=finish),
        Effort.CALIBRATION,
        finish,
        Reason(
            sentence,
            "structure",
            (f"number {likely + 1} is expected to" if fits else "none is expected to")
            + _left_alone(probes, [step.technique for step in expected.steps]),
        ),
        expected.latency,
        expected.size,
        structures=tuple(one.steps for one in path.structures),
        nested=True,
        likely=likely,
        predictions=tuple((one.latency, one.size) for one in path.structures),
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _left_alone(probes: Probes, techniques: Sequence[str]) -> str:
    """A text on the parts that these techniques cannot remove, with reasons; only the first few are named."""
    reasons = {name: why for one in techniques for name, why in probes.parts_of(one).left_alone.items()}
    named = [f"{name}: {reason}" for name, reason in reasons.items()]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"; left alone: {' '.join(named[:MOST_NAMED])}{more}" if named else ""


def _trained(
    training: TrainingProbe,
    place: int,
    recovery: Technique,
    finish: tuple[Element, ...],
    situation: Situation,
    keeping: Sequence[Technique],
) -> list[Recipe]:
    """The recipes of one bracket: one for each rung, and those that quantize its best trial better."""
    space = recovery.space(situation.facts, situation.probes, situation.profile)
    bracket = training.brackets[place]
    known = {one.steps: one for path in situation.probes.paths for one in path.structures}
    paths = [known[steps] for steps in bracket.structures if steps in known]
    predictions = tuple((one.latency, one.size) for one in paths) if len(paths) == len(bracket.structures) else ()
    first = known.get(bracket.structures[0])
    recipes = []
    rounds: tuple[tuple[Element, ...], ...] = ()
    for number, (steps, most) in enumerate(zip(bracket.rungs, bracket.candidates, strict=True)):
        longer = SettingSpace(tuple(Choice(c.name, (steps,), False) if c.name == "steps" else c for c in space.choices))
        rounds = (*rounds, (Element(recovery.name, recovery.stage, longer),))
        seconds = training.seconds(place, number)
        seen = sum(bracket.rungs[: number + 1]) * training.batch
        recipes.append(
            Recipe(
                _name(f"{'smaller ' * (place > 0)}structure", f"{recovery.name} x{number + 1}", finish=finish),
                Effort.TRAINING,
                finish,
                Reason(
                    f"{recovery.summary}; round {number + 1}, {steps} steps, {seen:,} items seen in all.",
                    "recovery",
                    f"about {_time(seconds)} for each of {most} at {training.seconds_per_step:.2g} s a step here"
                    + (f"; learning rate: {training.rate_reason}" if training.rate_reason else ""),
                ),
                first.latency if first else None,
                first.size if first else None,
                rounds=rounds,
                predicted_seconds=seconds,
                structures=bracket.structures,
                promotes=most if number else None,
                predictions=predictions,
            )
        )
        loss = training.loss_after(place, number)
        if loss is not None and loss.pays:
            recipes += refined_recipes(recipes[-1], loss, keeping, situation)
    return recipes
