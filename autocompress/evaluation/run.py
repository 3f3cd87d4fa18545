"""The objects that all stages of a run share."""

from __future__ import annotations

import datetime
import traceback
from contextlib import suppress
from dataclasses import dataclass, field

from autocompress.core.artifact import Artifact
from autocompress.core.data_check import DataCheck
from autocompress.core.machine import Machine
from autocompress.core.objective import Objective, PlanCost
from autocompress.core.plan import Plan
from autocompress.core.profile import Profile
from autocompress.core.record import Record
from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.core.tools import Tools
from autocompress.core.trial import Trial
from autocompress.errors import AutocompressError, PlanError, UsageError, sentence_of
from autocompress.evaluation.artifacts import Artifacts
from autocompress.evaluation.builder import Builder
from autocompress.evaluation.measurer import Measurer
from autocompress.system.progress import Deadline, Event, Progress, silent
from autocompress.system.workspace import FAILURES, Workspace, append_text


@dataclass(eq=False)
class Run:
    """One model with its data on one device, its folder and its record.

    `artifacts` builds the files of plans, or finds them in a finished run; `measurer` measures them. `data_check` is
    what was found in the data when the run began, `preparation` a sentence for each thing in which the
    module that is compressed is not the given one.
    """

    profile: Profile
    task: Task | None
    example: Example
    tools: Tools
    workspace: Workspace
    artifacts: Artifacts
    measurer: Measurer
    record: Record
    deadline: Deadline
    progress: Progress = silent
    data_check: DataCheck = field(default_factory=DataCheck)
    preparation: tuple[str, ...] = ()

    @property
    def baseline(self) -> Artifact:
        """The artifact of the unchanged model."""
        return self.artifacts.baseline

    @property
    def builder(self) -> Builder:
        """The builder of plans' artifacts from the module.

        Raises:
            PlanError: when the module is not at hand.
        """
        if not isinstance(self.artifacts, Builder):
            raise PlanError("the model is not at hand, so nothing new can be built.", where="resolve")
        return self.artifacts

    @property
    def machine(self) -> Machine:
        """The machine that measurements are taken on."""
        return self.tools.device.machine()

    @property
    def objective(self) -> Objective:
        """The objective that orders plans."""
        return self.profile.objective

    def tell(self, stage: str, sentence: str) -> None:
        """Pass a sentence about the present work to the progress callback."""
        self.progress(Event(stage, sentence))

    def failed(self, doing: str, error: Exception) -> str:
        """Write a failure that the run survives to `failures.log`; returns it as a sentence.

        The sentence names the file where the error is not one that this package raised by itself.
        """
        told = "".join(traceback.format_exception(error))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # what cannot be written here is no reason to end the run
        with suppress(UsageError):
            append_text(self.workspace.path(FAILURES), f"{now} {doing}\n{told}\n")
        own = isinstance(error, AutocompressError) and error.__cause__ is None
        sentence = sentence_of(error)
        return sentence if own else f"{sentence.rstrip('.')} (traceback in {FAILURES})"

    def name_of(self, plan: Plan) -> str:
        """See `Tools.name_of`."""
        return self.tools.name_of(plan)

    def ranges_from(self, plan: Plan) -> str:
        """What the ranges in a plan's file were taken from; empty where its finish takes none."""
        if not self.tools.takes_ranges(plan):
            return ""
        split = self.task.calibration if self.task else None
        return "inputs made from batch-norm statistics" if split is None else f"{len(split)} items ({split.name})"

    def cost(self, trial: Trial) -> tuple[float, ...]:
        """The trial's cost under the profile's objective, as numbers to compare in turn; lower is better.

        Raises:
            PlanError: when the plan names a technique that is not registered.
        """
        readings = trial.measurement.readings
        statistic = self.profile.protocol.statistic
        return self.objective.order(
            PlanCost(
                self.tools.effort(trial.plan),
                readings["latency_ms"].statistic(statistic) if "latency_ms" in readings else float("inf"),
                readings["size_mb"].value if "size_mb" in readings else float("inf"),
                readings["score"].value if "score" in readings else float("-inf"),
            )
        )

    def close(self) -> None:
        """Store the time taken, remove this process from the run's workers, and close the record."""
        self.record.spend_time(self.deadline.spent)
        self.record.release()
        self.record.close()
