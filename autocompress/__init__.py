"""autocompress: the cheapest measured compression plan that meets your budgets, as a file that ships."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.api import autocompress, resolve
    from autocompress.core.aggregate import Aggregate
    from autocompress.core.artifact import Artifact
    from autocompress.core.budget import Budget
    from autocompress.core.plan import Plan, Step
    from autocompress.core.profile import Profile, load_profile
    from autocompress.core.task import Task
    from autocompress.core.trial import Trial
    from autocompress.core.verdict import Finding, Standing, Status, Verdict
    from autocompress.errors import AutocompressError, BudgetsNotMetError, UndecidedError
    from autocompress.run.result import Result
    from autocompress.system.progress import Event

__version__ = "0.1.0"

# resolved on first use (PEP 562): importing the package imports neither torch nor onnxruntime
_HOMES = {
    "Aggregate": "core.aggregate",
    "Artifact": "core.artifact",
    "AutocompressError": "errors",
    "Budget": "core.budget",
    "BudgetsNotMetError": "errors",
    "Event": "system.progress",
    "Finding": "core.verdict",
    "Plan": "core.plan",
    "Profile": "core.profile",
    "Result": "run.result",
    "Standing": "core.verdict",
    "Status": "core.verdict",
    "Step": "core.plan",
    "Task": "core.task",
    "TrainingRecipe": "core.training_recipe",
    "Trial": "core.trial",
    "UndecidedError": "errors",
    "Verdict": "core.verdict",
    "autocompress": "api",
    "load_profile": "core.profile",
    "resolve": "api",
}

__all__ = [
    "Aggregate",
    "Artifact",
    "AutocompressError",
    "Budget",
    "BudgetsNotMetError",
    "Event",
    "Finding",
    "Plan",
    "Profile",
    "Result",
    "Standing",
    "Status",
    "Step",
    "Task",
    "TrainingRecipe",
    "Trial",
    "UndecidedError",
    "Verdict",
    "__version__",
    "autocompress",
    "load_profile",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autocompress' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"autocompress.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
