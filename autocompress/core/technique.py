"""Contracts ModelTechnique and ArtifactTechnique: methods that make a model smaller or faster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.moves import MoveSpace, Network
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import Example
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.source import Split
from autocompress.core.task import Task
from autocompress.core.training_recipe import TrainingRecipe
from autocompress.errors import TechniqueError, raised_as
from autocompress.system.locks import working

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Context:
    """What a technique may use: the task, example inputs, and a folder for its files.

    `calibration` holds items that ranges may be taken from, None when there are no data. `teacher` is the original
    module; `on_step` is called during training with the step, the number of steps and the seconds left. `shared` is a
    folder for files that all plans of a run use. Layers that `ignore` names are left alone. `unquantized` is the float
    artifact that the finish began with, after its preparation; None outside a finish. `original` is the unchanged
    model's float artifact, None where there is none.

    `recipe` is the user's for training. `seconds_left` gives the seconds left for it, None without a limit. Where it
    is adapted to time or memory, `adapted` is called with the settings that it then has, which give the same module
    when they are applied again, and `tell` with a sentence.
    """

    task: Task | None
    example: Example
    calibration: Split | None
    folder: Path
    teacher: torch.nn.Module | None = None
    on_step: Callable[[int, int, float], None] = lambda step, steps, seconds_left: None
    shared: Path | None = None
    ignore: tuple[str, ...] = ()
    recipe: TrainingRecipe | None = None
    seconds_left: Callable[[], float | None] = lambda: None
    adapted: Callable[[Mapping[str, Setting]], None] = lambda settings: None
    tell: Callable[[str], None] = lambda sentence: None
    unquantized: Artifact | None = None
    original: Artifact | None = None


def applied(
    technique: ArtifactTechnique, artifact: Artifact, settings: Mapping[str, Setting], context: Context
) -> Artifact:
    """What a technique makes of an artifact; no measurement runs beside it.

    Raises:
        TechniqueError: whatever else the technique and the libraries that it uses raise.
    """
    with working(), raised_as(TechniqueError, technique.name):
        return technique.apply(artifact, settings, context)


class Technique(ABC):
    """Base of both contracts: a technique's name, stage, effort and settings.

    `choices` lists every setting with every option, for validation; `space` narrows them to what is worth trying for
    one model on one device. `refuses` gives a technique's own reason why it should not be tried; beyond that only a
    rule of the decision tree excludes it, by what it needs: calibration or training data by its effort, `hardware` by
    the features of which a device must have at least one, empty where any device will do.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    stage: ClassVar[Stage]
    effort: ClassVar[Effort]
    choices: ClassVar[tuple[Choice, ...]]
    hardware: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """A few words for its steps in one plan, such as `9 blocks dropped`.

        `settings` are those of each step.
        """

    @abstractmethod
    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """The settings worth trying, most promising first."""

    @abstractmethod
    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """The reason why it should not be tried for this model and device, None when it should."""


class ModelTechnique(Technique):
    """A technique that changes the module, before export."""

    @abstractmethod
    def apply(self, module: torch.nn.Module, settings: Mapping[str, Setting], context: Context) -> torch.nn.Module:
        """The changed module; the one passed in may be changed or reused.

        Raises:
            TechniqueError: when it cannot be done on this module.
        """


class StructureTechnique(ModelTechnique):
    """A technique that removes parts of a network, by moves that the search compares with others' moves.

    `reduces` names what a pruning path by its moves alone reduces (`depth`, `width`); `parts` says what the names of
    its moves are and what can be done with them (`blocks can be left out`).
    """

    stage: ClassVar[Stage] = Stage.STRUCTURE
    reduces: ClassVar[str]
    parts: ClassVar[str]

    @abstractmethod
    def moves(self, network: Network) -> MoveSpace:
        """The space of its moves in a network."""

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """The settings of its steps on the pruning paths that were found."""
        steps = (step for path in probes.paths for structure in path.structures for step in structure.steps)
        found = dict.fromkeys(step for step in steps if step.technique == self.name)
        return SettingSpace(self.choices, tuple(step.settings for step in found)) if found else SettingSpace()


class ArtifactTechnique(Technique):
    """A technique that changes the exported artifact.

    `formats` are the artifact formats it can change; `probed` lists settings to probe on the device, one
    short measurement each. `value_bytes` is the size of a weight afterwards, which takes four bytes before; where
    there is a setting `block`, a weight takes what the setting `bits` says and its share of the block's scale (see
    `weight_bytes`). `bits` alone may be levels of weights that are stored in a byte.
    `quantization` says what a technique of the stage PRECISION computes in few bits: weights and activations by ranges
    that are in the file (`static`), activations by those of each call (`dynamic`), or nothing but weights (`weights`).
    A technique of the stages PREPARATION and TUNING `serves` files that are quantized in these ways; one of the stage
    PACKING serves all where it names none. `layer_bytes` is what one of the stage PACKING adds for each layer.
    """

    formats: ClassVar[frozenset[str]]
    probed: ClassVar[tuple[Mapping[str, Setting], ...]]
    value_bytes: ClassVar[float] = 1
    quantization: ClassVar[str] = ""
    serves: ClassVar[frozenset[str]] = frozenset()
    layer_bytes: ClassVar[int] = 0

    def weight_bytes(self, settings: Mapping[str, Setting]) -> float:
        """The size in bytes of a weight with these settings, with its share of a block's scale in float32."""
        if "block" not in settings:
            return self.value_bytes
        return int(settings["bits"]) / 8 + 4 / int(settings["block"])

    @abstractmethod
    def covers(self, facts: Facts) -> frozenset[Kind]:
        """Kinds of layers whose weights it stores in fewer bytes in this model."""

    def quantizes(self, artifact: Artifact, settings: Mapping[str, Setting]) -> tuple[str, ...]:
        """Names of the nodes of a float artifact that it quantizes and can leave in float, in their order.

        Empty where it cannot leave single nodes in float; a technique that can has the setting `IN_FLOAT`.
        """
        return ()

    def step_seconds(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> float | None:
        """The seconds that one of its training steps takes on this machine; None where it does not train.

        Raises:
            TechniqueError: when it cannot be done on this artifact.
        """
        return None

    @abstractmethod
    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """A new artifact in the context's folder; the one passed in is left as it is.

        The same artifact, settings and data give the same bytes.

        Raises:
            TechniqueError: when it cannot be done, or left the artifact without any saving where its stage is
                PRECISION or PACKING.
        """


def with_remarks(name: str, remarks: Sequence[tuple[str, bool]]) -> str:
    """A name, followed in brackets by those remarks whose condition is true."""
    sentences = ", ".join(remark for remark, holds in remarks if holds)
    return f"{name} ({sentences})" if sentences else name
