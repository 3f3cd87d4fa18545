"""Recipes for training as users give them: objects, functions, or a spec such as `file.py:callable`."""

from __future__ import annotations

import inspect
from typing import Any

from autocompress.core.training_recipe import TrainingRecipe, as_recipe
from autocompress.data.spec_import import Maker, split_spec
from autocompress.errors import UsageError


def load_recipe(given: Any) -> TrainingRecipe | None:
    """The recipe that was given, None where none was.

    A text names a TrainingRecipe, a function without arguments that returns one, or a training function of three
    arguments.

    Raises:
        UsageError: when it cannot be found or is none of these.
    """
    if not isinstance(given, str):
        return as_recipe(given)
    parts = split_spec(given)
    if parts is None:
        raise UsageError(f"{given!r} names no recipe.", where="recipe", hint="Write file.py:callable.")
    maker = Maker(TrainingRecipe, "a TrainingRecipe", UsageError)
    found = maker.find(*parts)
    return TrainingRecipe(train=found) if _takes_three(found) else maker.make(*parts)


def _takes_three(found: Any) -> bool:
    if isinstance(found, TrainingRecipe):
        return False
    try:
        inspect.signature(found).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return not isinstance(found, type)
