"""A recipe for training: what the user lays down of the training that recovers accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from autocompress.core.code_hash import code_hash
from autocompress.core.user_code import definition_of, kind_of, raised_by_user, with_line
from autocompress.errors import DataError, UsageError

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True, eq=False)
class TrainingRecipe:
    """How recovery trains, where the user knows better; what is None is chosen as without a recipe.

    Args:
        optimizer: `sgd` (with Nesterov momentum), `adamw`, or a function of the list of parameters that returns a
            `torch.optim.Optimizer`.
        learning_rate: the highest rate of the schedule.
        batch: items in a step.
        weight_decay: of the named optimizers.
        schedule: a function of the share of the training that is done, from 0 to 1, that returns the factor of the
            rate. Where a time limit cuts the training, the share still goes to 1. By default a linear warm-up in the
            first tenth, then half a cosine to 0.
        loss: `loss(outputs, teaching, targets)` on tensors, one number for a batch, in the place of the distance to the
            teacher and the task's loss. Outputs of the student and of the original have the form that scores get.
        train: `train(module, teacher, batches)`, a training of the user's own; see `docs/data-and-models.md`. Of the
            rest only `batch` then counts.

    Raises:
        UsageError: when a value cannot be used.
    """

    optimizer: str | Callable[[list[Any]], Any] | None = None
    learning_rate: float | None = None
    batch: int | None = None
    weight_decay: float | None = None
    schedule: Callable[[float], float] | None = None
    loss: Callable[[Any, Any, Any], Any] | None = None
    train: Callable[[Any, Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, str) and self.optimizer not in OPTIMIZERS:
            raise _unusable("optimizer", self.optimizer, f"Known: {', '.join(OPTIMIZERS)}, or a function.")
        if self.optimizer is not None and not isinstance(self.optimizer, str) and not callable(self.optimizer):
            raise _unusable("optimizer", self.optimizer, f"Known: {', '.join(OPTIMIZERS)}, or a function.")
        for name, least in (("learning_rate", 0.0), ("weight_decay", -1.0), ("batch", 0.0)):
            value = getattr(self, name)
            whole = name != "batch" or isinstance(value, int)
            if value is not None and not (isinstance(value, int | float) and whole and least < value < float("inf")):
                raise _unusable(name, value, "Give a whole number above 0." if name == "batch" else "Give a number.")
        for name in ("schedule", "loss", "train"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise _unusable(name, getattr(self, name), "Give a function.")
        laid_down = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        if self.train is not None and set(laid_down) - {"train", "batch"}:
            others = ", ".join(name for name in laid_down if name not in ("train", "batch"))
            raise UsageError(f"gives train and also {others}, which only our training uses.", where="recipe")

    def factor(self, done: float) -> float:
        """The factor of the rate by the recipe's `schedule`, for the share of training that is done.

        Raises:
            DataError: when it raises or gives no finite number from 0 on.
        """
        assert self.schedule is not None
        with raised_by_user("recipe", "schedule raised", self.schedule):
            found = float(self.schedule(done))
        if not 0 <= found < float("inf"):
            message = with_line(f"schedule returned {found}", definition_of(self.schedule))
            raise DataError(message, where="recipe", hint="Return the factor of the rate, a number from 0 on.")
        return found

    @property
    def code(self) -> Mapping[str, Any]:
        """The user's functions in it, by name; numbers and names stand in the plan, functions cannot."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in named.items() if callable(value)}

    @property
    def name(self) -> str:
        """How a plan names the code that it needs: its functions and a hash of them; empty without any."""
        if not self.code:
            return ""
        functions = " ".join(getattr(value, "__name__", type(value).__name__) for value in self.code.values())
        return f"{functions} {code_hash(dict(self.code))}"

    @property
    def identity(self) -> str:
        """A hash of all that it lays down."""
        return code_hash([getattr(self, one.name) for one in fields(self)])


def as_recipe(given: Any) -> TrainingRecipe | None:
    """The recipe that a user gave: a TrainingRecipe, a dict of its fields, or a training function.

    Raises:
        UsageError: when it is none of these.
    """
    if given is None or isinstance(given, TrainingRecipe):
        return given
    if isinstance(given, Mapping):
        known = [one.name for one in fields(TrainingRecipe)]
        unknown = [str(key) for key in given if key not in known]
        if unknown:
            raise UsageError(f"has no field {unknown[0]!r}.", where="recipe", hint=f"Known: {', '.join(known)}.")
        return TrainingRecipe(**given)
    if callable(given) and not isinstance(given, type):
        return TrainingRecipe(train=given)
    raise UsageError(
        f"is {kind_of(given)}.",
        where="recipe",
        hint="Give a TrainingRecipe, a dict of its fields, or a function train(module, teacher, batches).",
    )


def _unusable(name: str, value: Any, hint: str) -> UsageError:
    return UsageError(f"{name} cannot be {value!r}.", where="recipe", hint=hint)
