"""The sensitivity of a run's model to a quantization, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

from autocompress.analysis.precision_variants import Subject
from autocompress.analysis.sensitivity import measure_sensitivity
from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.plan import Setting
from autocompress.core.probes import Probes
from autocompress.core.search_space import check_settings
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.technique import ArtifactTechnique
from autocompress.errors import PlanError, UsageError
from autocompress.evaluation.run import Run


def settings_for(
    run: Run, technique: str, facts: Facts, changed: Mapping[str, Setting] | None = None
) -> dict[str, Setting]:
    """The technique's most promising settings for the run's model, with some of them changed.

    Raises:
        PlanError: when there is no such technique or setting, or the technique does not act on files.
    """
    found = run.tools.technique(technique)
    if not isinstance(found, ArtifactTechnique):
        raise PlanError("does not act on files, so its effect on single layers is not told.", where=technique)
    settings = {**next(found.space(facts, Probes(), run.profile).grid(), {}), **(changed or {})}
    check_settings(technique, found.choices, settings)
    return settings


def sensitivity_of(
    run: Run,
    technique: str,
    settings: Mapping[str, Setting],
    seconds: float | None = None,
    stage: str = "sensitivity",
    artifact: Artifact | None = None,
) -> Sensitivity:
    """Measure what quantizing each layer costs, on the run's calibration items.

    The float `artifact` is the unchanged model's where none is given. `stage` is the one that progress is told of.
    Ranges are kept in the run's folder, where every later trial of the same file finds them.

    Raises:
        UsageError: when there are no data.
        TechniqueError: when the technique cannot leave layers in float, or cannot quantize the model.
    """
    split = run.task.calibration if run.task else None
    if split is None:
        raise UsageError(
            "sensitivity compares outputs on items of the data, and there are none.",
            where="data",
            hint="Give --data: the training or validation items suffice, labels are not used.",
        )
    found = run.tools.technique(technique)
    assert isinstance(found, ArtifactTechnique)
    artifact = artifact or run.builder.start
    subject = Subject(found, settings, artifact, run.example, split, run.workspace.checkpoints)
    return measure_sensitivity(subject, run.tools, run.profile, seconds, lambda sentence: run.tell(stage, sentence))
