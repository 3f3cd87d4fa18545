"""The plan as it was trained: kept beside what was made, and held to where a plan is replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from autocompress.core.plan import Plan, Setting, Step
from autocompress.errors import TechniqueError
from autocompress.system.workspace import write_text

# file beside a plan's weights or artifact: the plan as it was trained, where that is another one
TRAINED_AS = "trained_as.json"


def trained_as(folder: Path) -> Plan | None:
    """The plan as it was trained in a folder; None where that is the plan itself, or not trained yet."""
    known = folder / TRAINED_AS
    return Plan.from_json(json.loads(known.read_text(encoding="utf-8")), str(known)) if known.exists() else None


def keep_trained_as(folder: Path, plan: Plan, found: Plan) -> None:
    """Keep the plan as it was trained in a folder, where it is another one than planned."""
    if found != plan:
        write_text(folder / TRAINED_AS, json.dumps(found.to_json()))


def only_as_planned(step: Step) -> Callable[[Mapping[str, Setting]], None]:
    """A check that a step is taken as it stands in the plan: the plan's file would be another one."""

    def check(settings: Mapping[str, Setting]) -> None:
        if settings != step.settings:
            raise TechniqueError(
                "does not fit into memory here as the plan has it.",
                where=step.technique,
                hint="Give it more memory; with smaller parts of a batch the file would be another one.",
            )

    return check
