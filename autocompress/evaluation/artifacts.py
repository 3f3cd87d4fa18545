"""The contract of whatever gives a run the artifacts of its plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from autocompress.core.artifact import Artifact
from autocompress.core.plan import Plan


class Artifacts(ABC):
    """Provides the artifacts of plans: built from the module, or found in a finished run."""

    @property
    @abstractmethod
    def baseline(self) -> Artifact:
        """The artifact of the unchanged model."""

    @abstractmethod
    def find(self, plan: Plan) -> Artifact | None:
        """The plan's artifact if it exists already."""

    @abstractmethod
    def trained(self, plan: Plan, seconds_left: Callable[[], float | None]) -> Plan:
        """Train what a plan trains, rounds and finish, within the time left; the plan as it was trained.

        `build` then builds that one. It is another plan where the training was changed on the way to fit time or
        memory.

        Raises:
            PlanError, TechniqueError: as `build`.
        """

    @abstractmethod
    def build(self, plan: Plan) -> Artifact:
        """Build the plan's artifact; the same plan, model, data and thread count give the same bytes.

        Raises:
            PlanError: when a step names an unknown technique or setting, or nothing can be built.
            TechniqueError: when a step cannot be done on this model.
        """
