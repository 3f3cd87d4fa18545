"""The tools of a run: one runtime, one device, and the registered techniques."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from autocompress.core.artifact import Artifact
from autocompress.core.device import Device
from autocompress.core.plan import Effort, Plan, Setting, Stage, Step
from autocompress.core.runtime import Runtime
from autocompress.core.search_space import check_settings
from autocompress.core.technique import ArtifactTechnique, Context, Technique, applied
from autocompress.errors import PlanError
from autocompress.system.workspace import make_folder


@dataclass(frozen=True, eq=False)
class Tools:
    """One runtime, one device, and the techniques in the order in which the planner considers them."""

    runtime: Runtime
    device: Device
    techniques: Sequence[Technique]

    def technique(self, name: str) -> Technique:
        """The technique of that name.

        Raises:
            PlanError: when no technique of that name is registered.
        """
        for technique in self.techniques:
            if technique.name == name:
                return technique
        known = ", ".join(technique.name for technique in self.techniques)
        raise PlanError(f"there is no technique named {name!r}.", where="plan", hint=f"On the shelf: {known}.")

    def name_of(self, plan: Plan) -> str:
        """A short description of the plan, such as `9 blocks dropped, distilled 12k steps, int8`."""
        settings: dict[str, list[Mapping[str, Setting]]] = {}
        for step in plan.steps:
            settings.setdefault(step.technique, []).append(step.settings)
        shelf = {technique.name: technique for technique in self.techniques}
        # a technique that is not registered cannot describe itself
        words = [shelf[name].describe(given) if name in shelf else name for name, given in settings.items()]
        return ", ".join(words) or str(plan)

    def effort(self, plan: Plan) -> Effort:
        """The largest effort of a plan's steps.

        Raises:
            PlanError: when a step names a technique that is not registered.
        """
        return max((self.technique(step.technique).effort for step in plan.steps), default=Effort.NONE)

    def trains(self, steps: Iterable[Step]) -> bool:
        """True when one of these steps trains.

        Raises:
            PlanError: when a step names a technique that is not registered.
        """
        return any(self.technique(step.technique).effort is Effort.TRAINING for step in steps)

    def takes_ranges(self, plan: Plan) -> bool:
        """True when a step of the plan's finish makes a pass over calibration items."""
        return any(self.technique(step.technique).effort is Effort.CALIBRATION for step in plan.finish)

    def finished(
        self,
        artifact: Artifact,
        finish: Sequence[Step],
        context: Context,
        adapted: Callable[[int, Mapping[str, Setting]], None] = lambda place, settings: None,
    ) -> Artifact:
        """Apply the steps of a finish to an artifact, each in a folder of its own inside the context's.

        `adapted` is called with a step's place and the settings that it has once its training was changed on the way.

        Raises:
            PlanError: when a step cannot read the format that the one before it writes.
            TechniqueError: when a step cannot be done on this artifact.
        """
        folder = context.folder
        context = replace(context, unquantized=artifact)
        for place, step in enumerate(finish):
            technique = self.technique(step.technique)
            assert isinstance(technique, ArtifactTechnique)
            if artifact.format not in technique.formats:
                raise PlanError(f"cannot change {artifact.format} files.", where=step.technique)
            inside = folder / str(place)
            make_folder(inside)
            context = replace(context, folder=inside, adapted=partial(adapted, place))
            artifact = applied(technique, artifact, step.settings, context)
            if step.stage is Stage.PREPARATION:
                # tuning compares the quantized weights with those that were quantized
                context = replace(context, unquantized=artifact)
        return artifact

    def require_possible(self, plan: Plan) -> None:
        """Raise PlanError when a step of the plan is not possible.

        That is when its technique or a setting is unknown, or it stands in the wrong part of the plan.
        """
        for step in plan.steps:
            technique = self.technique(step.technique)
            if technique.stage is not step.stage:
                raise PlanError(f"acts at stage {technique.stage}, not {step.stage}.", where=step.technique)
            if all(choice.options or choice.optional for choice in technique.choices):
                check_settings(step.technique, technique.choices, step.settings)
