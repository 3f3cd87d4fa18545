"""Bias correction: the mean error of each output channel is taken out of the bias, layer after layer.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with the
means from calibration items (appendix D, "empirical bias correction").
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.sensitivity import refuse_before_loss
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.errors import TechniqueError
from autocompress.runtimes.onnx_file import load_model
from autocompress.simulation.float_weights import load_float_weights
from autocompress.simulation.graph_module import GraphModule
from autocompress.simulation.recorded import Recorded, inputs_that_fit
from autocompress.simulation.tuning import calibration_and_float_file, in_turn, save_tuned

Tensor = torch.Tensor


class BiasCorrection(ArtifactTechnique):
    """Takes the mean error that quantization makes in each channel out of the biases of a quantized file."""

    name: ClassVar[str] = "bias_correction"
    summary: ClassVar[str] = "the mean error of each channel taken out of the biases"
    stage: ClassVar[Stage] = Stage.TUNING
    effort: ClassVar[Effort] = Effort.CALIBRATION
    serves: ClassVar[frozenset[str]] = frozenset({"static"})
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("items", (256, 64, 1024), structural=False, describes="calibration items"),
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        return "bias correction"

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """256 items."""
        return SettingSpace(self.choices, ({"items": 256},))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused until int8 was seen to lose accuracy."""
        return refuse_before_loss(probes.sensitivity)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`: the file keeps its size."""
        return frozenset()

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        calibration, unquantized = calibration_and_float_file(context, self.name)
        model = load_model(artifact.path)
        module = GraphModule(model).eval().requires_grad_(False)
        biased = [(layer, layer.bias) for layer in module.layers() if layer.bias is not None]
        if not biased:
            raise TechniqueError("finds no quantized layer with a bias of its own in this file.", where=self.name)
        original = copy.deepcopy(module)
        load_float_weights(original, load_model(unquantized.path))
        split, outputs = calibration.first(int(settings["items"])), [layer.output for layer, _ in biased]
        inputs = inputs_that_fit(module, split, artifact, outputs)
        floating = Recorded(original, inputs, quantized=False)
        quantized = Recorded(module, inputs, quantized=True)
        for layer, bias in in_turn(biased, context.on_step):
            axis = 1 if layer.operator.startswith("Conv") else -1
            wanted = _mean(floating.each(layer.input, layer.output), axis)
            with torch.no_grad():
                bias.value.add_(wanted - _mean(quantized.each(layer.input, layer.output), axis))
        return save_tuned(module, model, artifact, context, self.name)


def _mean(parts: Iterable[Tensor], axis: int) -> Tensor:
    """The mean of each channel over batches."""
    total, count = torch.zeros(()), 0
    for part in parts:
        rows = part.movedim(axis, -1).flatten(0, -2)
        total, count = total + rows.sum(0, dtype=torch.float64), count + len(rows)
    return (total / count).float()
