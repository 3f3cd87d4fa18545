"""Palettes whose values and indices are trained with the float file as teacher.

Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3 (gradients of shared values); weights move between values
as in quantization-aware training, by the straight-through estimator (Jacob et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import onnx

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import CUTS, Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.packing.palette_making import palettes_by, require_some
from autocompress.packing.palette_settings import (
    ALLOCATION,
    ENTRIES,
    GROUPS,
    KINDS,
    LAYER_BYTES,
    MEASURED,
    refusal,
    weight_bytes,
)
from autocompress.runtimes.onnx_file import compact, load_model, save_if_smaller
from autocompress.runtimes.palette_storage import store
from autocompress.simulation.palette_rounding import palettes_in, use_palette
from autocompress.training.file_recovery import (
    TRAINING_CHOICES,
    files_of,
    labelled_task,
    require_what_was_trained,
    schedule_of,
    seconds_of_step,
    teacher_of,
)
from autocompress.training.file_training import FileModule, Learned, student_of, train_file
from autocompress.training.recovery import watch_of
from autocompress.training.schedule import steps_taken

# the scales of weights stay, since their values are learned; those of activations do too
LEARNED = Learned(ranges=False)
SAMPLES = 256


class PaletteTraining(ArtifactTechnique):
    """Stores weights as indices into tables of few values, and trains both."""

    name: ClassVar[str] = "palette_training"
    summary: ClassVar[str] = "the weights of each layer in few values, trained with the float file as teacher"
    stage: ClassVar[Stage] = Stage.PACKING
    effort: ClassVar[Effort] = Effort.TRAINING
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    serves: ClassVar[frozenset[str]] = frozenset({"static", "dynamic"})
    value_bytes: ClassVar[float] = 0.25
    layer_bytes: ClassVar[int] = LAYER_BYTES
    choices: ClassVar[tuple[Choice, ...]] = (
        ENTRIES,
        GROUPS,
        ALLOCATION,
        Choice("steps", (300, 1000, 30, 3000), structural=False, describes="training steps"),
        *TRAINING_CHOICES,
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        given = settings[0] if settings else {}
        taken = f"{given.get('entries', 4)} values a layer, trained {steps_taken(given, self.name)} steps"
        return with_remarks(taken, [("cut to the time", CUTS in given)])

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """As many values as were seen to be small enough; SGD for convolutions, else AdamW."""
        images = facts.shares.get(Kind.CONVOLUTION, 0) > facts.shares.get(Kind.LINEAR, 0)
        rest: dict[str, Setting] = {
            "entries": probes.packed.get(ENTRIES.name, 4),
            "groups": probes.packed.get(GROUPS.name, 1),
            "allocation": MEASURED,
            "batch": 64 if images else 32,
            "learning_rate": 0.0005 if images else 0.0001,
            "optimizer": "sgd" if images else "adamw",
            "seed": 0,
        }
        return SettingSpace(self.choices, tuple({"steps": steps, **rest} for steps in (300, 1000)))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused until fewer values were seen to be small and fast enough and to lose accuracy."""
        refused = refusal(self.name, facts, probes, profile)
        if refused is not None or probes.packed:
            return refused
        sentence = "it is only tried where packed weights keep size and time, and lose accuracy."
        return Reason(sentence, "size", "not seen so far")

    def step_seconds(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> float | None:
        """See `ArtifactTechnique.step_seconds`."""
        return seconds_of_step(artifact, settings, context, LEARNED)

    def weight_bytes(self, settings: Mapping[str, Setting]) -> float:
        """See `ArtifactTechnique.weight_bytes`."""
        return weight_bytes(settings)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        return frozenset(KINDS)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        task, teacher = labelled_task(context, self.name), teacher_of(context, self.name)
        schedule = schedule_of(settings, self.name)
        model, student = load_model(artifact.path), student_of(artifact, context.example, LEARNED)
        self._begin(model, student, artifact, settings, context)
        files = files_of(artifact, teacher, schedule, settings, context)
        trained = train_file(student, teacher, task, context.example, schedule, files, watch_of(context, settings))
        palettes = palettes_in(trained.graph)
        made = compact(store(trained.graph.write_to(model), palettes))
        saved = save_if_smaller(made, artifact, context.folder, self.name)
        require_what_was_trained(trained, saved, context, self.name)
        files.checkpoint.unlink(missing_ok=True)
        return saved

    def _begin(
        self,
        model: onnx.ModelProto,
        student: FileModule,
        artifact: Artifact,
        settings: Mapping[str, Setting],
        context: Context,
    ) -> None:
        """Give the student the palettes that calibration items ask for."""
        palettes = palettes_by(model, artifact, settings, SAMPLES, context, self.name)
        weights = student.graph.stored_weights()
        known = {name: palette for name, palette in palettes.items() if name in weights}
        require_some(known, self.name)
        for name, palette in known.items():
            use_palette(weights[name], palette)
