"""The search space: recipes to try, the cheapest effort first, and refused techniques with reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from autocompress.core.plan import Effort, Plan, Setting, Stage, Step
from autocompress.errors import PlanError


@dataclass(frozen=True)
class Choice:
    """A setting of a technique with its options, the most promising first.

    `structural` settings change the artifact's size or latency; the others change only the values it computes,
    so a candidate that missed a size or latency budget need not be tried again with another of their options.
    An `optional` setting is not used where it is absent; without options it may be any text.
    """

    name: str
    options: tuple[Setting, ...]
    structural: bool = True
    describes: str = ""
    optional: bool = False

    def allows(self, value: Setting) -> bool:
        """True where the setting may have this value."""
        if self.optional and not self.options:
            return isinstance(value, str)
        # 1 == True in Python, but a plan with the one is not a plan with the other
        return any(value == option and type(value) is type(option) for option in self.options)


def first_options(choices: Sequence[Choice]) -> dict[str, Setting]:
    """The most promising option of each setting that is not optional."""
    return {choice.name: choice.options[0] for choice in choices if not choice.optional}


@dataclass(frozen=True)
class SettingSpace:
    """The settings that are tried for a technique.

    `combinations` restricts some settings to these joint values (most promising first), for example to the
    type pairs that a probe found to pay.
    """

    choices: tuple[Choice, ...] = ()
    combinations: tuple[Mapping[str, Setting], ...] = ()

    def grid(self) -> Iterator[dict[str, Setting]]:
        """All combinations of settings, most promising first: structural settings vary slowest.

        Optional settings have a value only where one of the `combinations` gives it.
        """
        joint = {name for combination in self.combinations for name in combination}
        varied = (choice for choice in self.choices if choice.name not in joint and not choice.optional)
        free = sorted(varied, key=lambda choice: not choice.structural)
        for combination in self.combinations or ({},):
            for values in product(*(choice.options for choice in free)):
                yield {**combination, **dict(zip((choice.name for choice in free), values, strict=True))}

    def structural(self, settings: Mapping[str, Setting]) -> dict[str, Setting]:
        """The settings that decide size and latency."""
        names = {choice.name for choice in self.choices if choice.structural}
        return {name: value for name, value in settings.items() if name in names}


def check_settings(technique: str, choices: Sequence[Choice], settings: Mapping[str, Setting]) -> None:
    """Raise PlanError when a setting is unknown, missing or not one of its options."""
    known = {choice.name: choice for choice in choices}
    for name, value in settings.items():
        if name not in known:
            raise PlanError(f"has no setting {name!r}.", where=technique, hint=f"Known: {', '.join(known)}.")
        if not known[name].allows(value):
            options = ", ".join(map(str, known[name].options)) or "any text"
            raise PlanError(f"{name} cannot be {value!r}.", where=technique, hint=f"Options: {options}.")
    missing = [name for name, choice in known.items() if name not in settings and not choice.optional]
    if missing:
        raise PlanError(f"lacks the setting {missing[0]!r}.", where=technique)


# sentence that refuses a technique which a rule names but which is not registered
NOT_AVAILABLE = "not available in this version."


@dataclass(frozen=True)
class Reason:
    """Why a technique was taken or refused: a sentence, the rule that decided and the fact behind it."""

    sentence: str
    rule: str
    fact: str = ""

    def to_json(self) -> dict[str, Any]:
        """The reason as a JSON object."""
        return {"sentence": self.sentence, "rule": self.rule, "fact": self.fact}


@dataclass(frozen=True)
class Element:
    """A technique in a recipe, with the settings to try."""

    technique: str
    stage: Stage
    space: SettingSpace


@dataclass(frozen=True)
class ExpectedDrop:
    """The points of accuracy that plans of a kind usually lose, from `low` to `high`, with the source."""

    low: float
    high: float
    source: str

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} points"


@dataclass(frozen=True)
class Recipe:
    """One kind of plan: the techniques that are applied, with their settings and predictions.

    Predictions are shares of the baseline, None where nothing is known yet. `structures` are the steps, one tuple of
    them for each structure, that the first round begins with. Where they are `nested`, each leaves less of the network
    than the one before, so that the first that fits can be found by bisection; `likely` is where it is expected.
    `predictions` hold latency and size of each of them, empty where they are those of the recipe; `sizes` are those of
    each plan of a recipe without structures, empty where all have the recipe's. `promotes` is how
    many trials of the recipe before go on in this one; None promotes all. They are a round shorter, or, where
    `refines` is their finish, end with that one instead of this recipe's. `seconds_per_step` is that of the training of
    its finish, None where it was not timed.
    """

    name: str
    effort: Effort
    finish: tuple[Element, ...]
    reason: Reason
    predicted_latency: float | None = None
    predicted_size: float | None = None
    rounds: tuple[tuple[Element, ...], ...] = ()
    predicted_seconds: float | None = None
    structures: tuple[tuple[Step, ...], ...] = ()
    nested: bool = False
    likely: int | None = None
    promotes: int | None = None
    predictions: tuple[tuple[float, float], ...] = ()
    sizes: tuple[float, ...] = ()
    expected_drop: ExpectedDrop | None = None
    seconds_per_step: float | None = None
    refines: tuple[Step, ...] = ()

    @property
    def elements(self) -> tuple[Element, ...]:
        """All elements in the order they are applied."""
        return (*(element for elements in self.rounds for element in elements), *self.finish)

    @property
    def techniques(self) -> list[str]:
        """Names of all techniques that plans of the recipe may use, in order."""
        structural = dict.fromkeys(step.technique for structure in self.structures for step in structure)
        return [*structural, *(element.technique for element in self.elements)]

    def plans(self) -> Iterator[Plan]:
        """All plans of the recipe, most promising first."""
        for structure in self.structures or ((),):
            for settings in product(*(list(element.space.grid()) for element in self.elements)):
                steps = iter(
                    Step(element.technique, element.stage, chosen)
                    for element, chosen in zip(self.elements, settings, strict=True)
                )
                rounds = [tuple(next(steps) for _ in elements) for elements in self.rounds]
                if structure:
                    rounds[:1] = [(*structure, *(rounds[0] if rounds else ()))]
                yield Plan(tuple(rounds), tuple(next(steps) for _ in self.finish))

    def structure_of(self, plan: Plan) -> tuple[Step, ...]:
        """The steps of a plan's structure; empty where the recipe has no structures."""
        return plan.structure if self.structures else ()

    def place(self, plan: Plan) -> int | None:
        """The index of the plan's structure among the recipe's structures, None where it is none of them."""
        structure = self.structure_of(plan)
        return self.structures.index(structure) if structure in self.structures else None

    def holds(self, plan: Plan) -> bool:
        """True when the plan has one of the recipe's structures and its techniques, round by round."""
        if bool(self.structures) and self.place(plan) is None:
            return False
        taken = len(self.structure_of(plan))
        mine = [[element.technique for element in elements] for elements in (self.rounds or ((),) * bool(taken))]
        rounds = [list(steps) for steps in plan.rounds]
        if rounds:
            rounds[0] = rounds[0][taken:]
        found = [[step.technique for step in steps] for steps in (*rounds, plan.finish)]
        if found != [*mine, [element.technique for element in self.finish]]:
            return False
        # another recipe of the same techniques may use an optional setting
        return all(
            set(step.planned.settings) == set(next(element.space.grid()))
            for element, step in zip(self.finish, plan.finish, strict=True)
        )

    def predicted(self, plan: Plan) -> tuple[float | None, float | None]:
        """The predicted latency and size of a plan of this recipe."""
        place = self.place(plan)
        if place is not None and self.predictions:
            return self.predictions[place]
        if self.sizes:
            sizes = (size for one, size in zip(self.plans(), self.sizes, strict=True) if one == plan.planned)
            return self.predicted_latency, next(sizes, self.predicted_size)
        return self.predicted_latency, self.predicted_size

    def seconds_of(self, plan: Plan) -> float | None:
        """The predicted seconds of training a plan of this recipe, None without training or a prediction."""
        if self.seconds_per_step is None:
            return self.predicted_seconds
        return self.seconds_per_step * plan.finish[-1].planned.steps_taken

    def fixed_by(self, plan: Plan) -> tuple[Step, ...]:
        """The plan's steps with their structural settings only, which decide size and latency."""
        structure = self.structure_of(plan)
        rest = list(plan.steps)[len(structure) :]
        return (
            *structure,
            *(
                Step(step.technique, step.stage, element.space.structural(step.settings))
                for element, step in zip(self.elements, rest, strict=True)
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """The recipe as a JSON object."""
        return {
            "name": self.name,
            "effort": self.effort.name.lower(),
            "techniques": self.techniques,
            "plans": sum(1 for _ in self.plans()),
            "reason": self.reason.to_json(),
            "predicted_latency": self.predicted_latency,
            "predicted_size": self.predicted_size,
            "predicted_seconds": self.predicted_seconds,
            "expected_drop_pp": vars(self.expected_drop) if self.expected_drop else None,
        }


@dataclass(frozen=True)
class Decision:
    """One evaluated rule of the decision tree: question, answer, the fact found, and the consequence.

    `others` are the branches that were not taken, by their answer.
    """

    rule: str
    question: str
    answer: str
    found: str
    sentence: str
    others: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """The decision as a JSON object."""
        return {
            "rule": self.rule,
            "question": self.question,
            "answer": self.answer,
            "found": self.found,
            "sentence": self.sentence,
            "not_taken": dict(self.others),
            "source": self.source,
        }


@dataclass(frozen=True)
class SearchSpace:
    """Recipes in order of effort, refused techniques with reasons, and the path through the decision tree.

    `finish` is the recipe of what follows on a changed structure, None where that stays in float.
    """

    recipes: tuple[Recipe, ...]
    refusals: Mapping[str, Reason]
    decisions: tuple[Decision, ...] = ()
    warnings: tuple[str, ...] = ()
    finish: Recipe | None = None

    @property
    def out_of_reach(self) -> bool:
        """True when not even the smallest structure that can be made keeps the budgets on size and time."""
        return self.affirms("reachable")

    def affirms(self, rule: str) -> bool:
        """True when the tree asked this rule's question and the answer was yes."""
        return any(answer.rule == rule and answer.answer == "yes" for answer in self.decisions)

    def recipe_of(self, plan: Plan) -> Recipe | None:
        """The recipe that a plan belongs to, None where there is none."""
        return next((recipe for recipe in self.recipes if recipe.holds(plan)), None)

    def to_json(self) -> dict[str, Any]:
        """The search space as a JSON object."""
        return {
            "recipes": [recipe.to_json() for recipe in self.recipes],
            "refusals": {name: reason.to_json() for name, reason in self.refusals.items()},
            "decisions": [decision.to_json() for decision in self.decisions],
            "warnings": list(self.warnings),
        }
