"""Quantization-aware training of the quantized file itself; see `autocompress.training.file_training`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import CUTS, Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.sensitivity import refuse_before_loss
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.tuning import save_tuned
from autocompress.training.file_recovery import (
    TRAINING_CHOICES,
    files_of,
    labelled_task,
    require_what_was_trained,
    schedule_of,
    seconds_of_step,
    teacher_of,
)
from autocompress.training.file_training import Learned, student_of, train_file
from autocompress.training.recovery import watch_of
from autocompress.training.schedule import steps_taken

FIXED, LEARNED = "fixed", "learned"


class QuantizationAwareTraining(ArtifactTechnique):
    """Trains the weights, biases and ranges of a quantized file, with the float file as teacher."""

    name: ClassVar[str] = "quantization_aware_training"
    summary: ClassVar[str] = "the quantized file's own numbers trained with the float file as teacher"
    stage: ClassVar[Stage] = Stage.TUNING
    effort: ClassVar[Effort] = Effort.TRAINING
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    serves: ClassVar[frozenset[str]] = frozenset({"static", "dynamic"})
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("steps", (300, 1000, 30, 3000), structural=False, describes="training steps"),
        Choice("ranges", (FIXED, LEARNED), structural=False, describes="whether scales are trained too"),
        Choice("bits", (8, 4), structural=False, describes="levels of the weights, as bits"),
        *TRAINING_CHOICES,
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        given = settings[0] if settings else {}
        remarks = [
            ("cut to the time", CUTS in given),
            (f"{given.get('bits')}-bit weights", given.get("bits") == 4),
            ("ranges learned too", given.get("ranges") == LEARNED),
        ]
        return with_remarks(f"trained {steps_taken(given, self.name)} steps as quantized", remarks)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """A short training, then a longer one; SGD for convolutions, else AdamW with fixed ranges.

        For convolutions both kinds of ranges: the search takes the better one of the short trainings for the longer.
        """
        images = facts.shares.get(Kind.CONVOLUTION, 0) > facts.shares.get(Kind.LINEAR, 0)
        same: dict[str, Setting] = {"bits": 8, "seed": 0}
        if images:
            same |= {"batch": 64, "learning_rate": 0.001, "optimizer": "sgd"}
        else:
            same |= {"batch": 32, "learning_rate": 0.0001, "optimizer": "adamw"}
        ranges = (FIXED, LEARNED) if images else (FIXED,)
        tried = product((300, 1000), ranges)
        return SettingSpace(self.choices, tuple({"steps": steps, "ranges": one, **same} for steps, one in tried))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused until int8 was seen to lose accuracy, by itself or after a rung of training."""
        if probes.loses_accuracy:
            return None
        losses = probes.training.losses if probes.training else ()
        if losses:
            sentence = "int8 costs less than half of the accuracy that is missing: training in float wins more."
            return Reason(sentence, "recovery", str(losses[-1]))
        return refuse_before_loss(probes.sensitivity)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`: it stores nothing in fewer bytes."""
        return frozenset()

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        task, teacher = labelled_task(context, self.name), teacher_of(context, self.name)
        schedule = schedule_of(settings, self.name)
        learned = Learned(settings["ranges"] == LEARNED, int(settings["bits"]))
        student = student_of(artifact, context.example, learned)
        files = files_of(artifact, teacher, schedule, settings, context)
        trained = train_file(student, teacher, task, context.example, schedule, files, watch_of(context, settings))
        made = save_tuned(trained.graph, load_model(artifact.path), artifact, context, self.name)
        require_what_was_trained(trained, made, context, self.name)
        files.checkpoint.unlink(missing_ok=True)
        return made

    def step_seconds(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> float | None:
        """See `ArtifactTechnique.step_seconds`."""
        learned = Learned(settings["ranges"] == LEARNED, int(settings["bits"]))
        return seconds_of_step(artifact, settings, context, learned)
