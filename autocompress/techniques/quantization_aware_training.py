"""Quantization-aware training of the quantized file itself; see `autocompress.training.file_training`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import CUTS, MICRO_BATCHES, Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.runtime import feeds
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.sensitivity import refuse_before_loss
from autocompress.core.source import whole
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.data.output_recognition import kinds_of
from autocompress.errors import TechniqueError
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.tuning import save_tuned
from autocompress.training.agreement import agreement, layer_gaps, require_agreement
from autocompress.training.cost import VIEWS
from autocompress.training.file_training import FileModule, Learned, file_example, step_seconds, student_of, train_file
from autocompress.training.recovery import Files, watch_of
from autocompress.training.schedule import Schedule, changes_in, steps_taken
from autocompress.training.teacher_cache import answers_file

FIXED, LEARNED = "fixed", "learned"
# items on which the file is compared with what was trained
COMPARED = 1024


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
        Choice("batch", (64, 32, 16, 128), structural=False, describes="items in a batch"),
        Choice(
            "learning_rate",
            (0.001, 0.0005, 0.002, 0.005, 0.01, 0.0001),
            structural=False,
            describes="the highest rate of the schedule",
        ),
        Choice("optimizer", ("sgd", "adamw"), structural=False, describes="SGD with Nesterov momentum 0.9, or AdamW"),
        Choice("ranges", (FIXED, LEARNED), structural=False, describes="whether scales are trained too"),
        Choice("bits", (8, 4), structural=False, describes="levels of the weights, as bits"),
        Choice("seed", (0, 1, 2), structural=False, describes="of order and augmentation"),
        Choice(CUTS, (), structural=False, describes="where the time turned out too short", optional=True),
        Choice(MICRO_BATCHES, (), structural=False, describes="where memory turned out too small", optional=True),
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
        task, unquantized = context.task, context.unquantized
        if task is None or task.train is None:
            raise TechniqueError("needs training data, and there are none.", where=self.name)
        if unquantized is None:
            raise TechniqueError("needs the float file that the quantized one was made from.", where=self.name)
        # a network that was pruned learns from the unchanged model, which answers better
        teacher, schedule = context.original or unquantized, _schedule(settings)
        learned = Learned(settings["ranges"] == LEARNED, int(settings["bits"]))
        student = student_of(artifact, context.example, learned)
        files = _files(artifact, teacher, task, schedule, settings, context)
        trained = train_file(student, teacher, task, context.example, schedule, files, watch_of(context, settings))
        made = save_tuned(trained.graph, load_model(artifact.path), artifact, context, self.name)
        self._compare(trained, made, task, context)
        files.checkpoint.unlink(missing_ok=True)
        return made

    def step_seconds(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> float | None:
        """See `ArtifactTechnique.step_seconds`."""
        teacher = context.original or context.unquantized
        if context.task is None or teacher is None:
            return None
        learned = Learned(settings["ranges"] == LEARNED, int(settings["bits"]))
        return step_seconds(artifact, teacher, context.task, context.example, int(settings["batch"]), learned)

    def _compare(self, trained: FileModule, made: Artifact, task: Task, context: Context) -> None:
        """Raise TechniqueError, and take the file away, where it does not compute what was trained."""
        example = file_example(context.example, trained)
        kinds = kinds_of(example, trained, task)
        split = (task.validation or whole("train", task.train)).first(COMPARED)
        found = agreement(trained.graph, made, split, task, kinds)
        if not found.holds:
            feed, _ = next(feeds(split.first(32), made, 32))
            gaps = layer_gaps(trained.graph, made, feed, context.unquantized)
            made.path.unlink()
            require_agreement(found, gaps, self.name)


def _files(
    artifact: Artifact,
    teacher: Artifact,
    task: Task,
    schedule: Schedule,
    settings: Mapping[str, Setting],
    context: Context,
) -> Files:
    """The checkpoint and the teacher's answers, in the folder that outlives the finish's own."""
    answers = answers_file(teacher.hash, task, schedule)
    key = repr((artifact.hash, answers, sorted(settings.items())))
    folder: Path = context.shared or context.folder
    checkpoint = folder / f"training-{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
    return Files(checkpoint, context.shared and context.shared / answers)


def _schedule(settings: Mapping[str, Setting]) -> Schedule:
    cuts, parts = changes_in(settings, QuantizationAwareTraining.name)
    return Schedule(
        int(settings["steps"]),
        int(settings["batch"]),
        int(settings["seed"]),
        float(settings["learning_rate"]),
        str(settings["optimizer"]),
        VIEWS,
        weight_decay=0.0,
        cuts=cuts,
        micro_batches=parts,
    )
