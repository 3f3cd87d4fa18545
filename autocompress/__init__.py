"""autocompress: the cheapest measured compression plan that meets your budgets, as a file that ships."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.aggregate import Aggregate
    from autocompress.api import autocompress
    from autocompress.artifact import Artifact
    from autocompress.budget import Budget
    from autocompress.errors import AutocompressError, BudgetsNotMetError, UndecidedError
    from autocompress.plan import Plan, Step
    from autocompress.profile import Profile, load_profile
    from autocompress.progress import Event
    from autocompress.resolution import resolve
    from autocompress.result import Result
    from autocompress.task import Task
    from autocompress.trial import Trial
    from autocompress.verdict import Finding, Standing, Status, Verdict

__version__ = "0.1.0"

# resolved on first use (PEP 562): importing the package imports neither torch nor onnxruntime
_HOMES = {
    "Aggregate": "aggregate",
    "Artifact": "artifact",
    "AutocompressError": "errors",
    "Budget": "budget",
    "BudgetsNotMetError": "errors",
    "Event": "progress",
    "Finding": "verdict",
    "Plan": "plan",
    "Profile": "profile",
    "Result": "result",
    "Standing": "verdict",
    "Status": "verdict",
    "Step": "plan",
    "Task": "task",
    "Trial": "trial",
    "UndecidedError": "errors",
    "Verdict": "verdict",
    "autocompress": "api",
    "load_profile": "profile",
    "resolve": "resolution",
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
