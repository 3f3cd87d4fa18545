"""Contracts ModelTechnique and ArtifactTechnique: one way each of making a model smaller or faster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.source import Split
from autocompress.core.task import Task

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Context:
    """What a technique may use: the task, example inputs, and a folder for its files.

    `calibration` holds items that ranges may be taken from, None when there are no data. `teacher` is the original
    module; `tell` hears of training: step, steps, seconds left. `shared` is a folder for what all plans of a run use.
    Layers that `ignore` names are left alone.
    """

    task: Task | None
    example: Example
    calibration: Split | None
    folder: Path
    teacher: torch.nn.Module | None = None
    tell: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None
    shared: Path | None = None
    ignore: tuple[str, ...] = ()


class Technique(ABC):
    """What both contracts share: a name, a place in the plan, an effort, and the settings it knows.

    `choices` lists every setting with every option, for validation; `space` narrows them to what is worth
    trying for one model on one device.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    stage: ClassVar[Stage]
    effort: ClassVar[Effort]
    choices: ClassVar[tuple[Choice, ...]]

    @abstractmethod
    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """The settings worth trying, most promising first."""

    @abstractmethod
    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Why it should not be tried here, None when it should."""


class ModelTechnique(Technique):
    """Acts on the module, before export."""

    @abstractmethod
    def apply(self, module: torch.nn.Module, settings: Mapping[str, Setting], context: Context) -> torch.nn.Module:
        """The module, changed; the one passed in may be used up.

        Raises:
            TechniqueError: when it cannot be done on this module.
        """


class ArtifactTechnique(Technique):
    """Acts on the artifact, after export.

    `formats` are the artifact formats it can change; `probed` lists settings to probe on the device, one
    micro-measurement each. `value_bytes` is what it makes of a weight's four bytes.
    """

    formats: ClassVar[frozenset[str]]
    probed: ClassVar[tuple[Mapping[str, Setting], ...]]
    value_bytes: ClassVar[int] = 1

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """Kinds of layers whose weights it makes narrower in this model."""
        return frozenset({Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.EMBEDDING})

    @abstractmethod
    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """A new artifact in the context's folder; the one passed in is left as it is.

        The same artifact, settings and data give the same bytes.

        Raises:
            TechniqueError: when it cannot be done, or left the artifact without any saving.
        """
