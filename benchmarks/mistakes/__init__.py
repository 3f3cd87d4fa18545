"""Mistakes that users make, and the words of the error line that each of them ends with."""

from __future__ import annotations

from mistakes.files import FILES, OPTIONS, SPECS
from mistakes.functions import FUNCTIONS
from mistakes.inputs import INPUTS
from mistakes.kinds import Mistake
from mistakes.labels import LABELS
from mistakes.loaders import LOADERS
from mistakes.models import MODELS
from mistakes.profiles import BUDGETS, PROFILES

MISTAKES = {
    "Model": MODELS,
    "Labels": LABELS,
    "Inputs": INPUTS,
    "Loaders": LOADERS,
    "Score, loss, augmentation": FUNCTIONS,
    "Profile": PROFILES,
    "Budgets": BUDGETS,
    "What is named": SPECS,
    "Files": FILES,
    "Options": OPTIONS,
}
__all__ = ["MISTAKES", "Mistake"]
