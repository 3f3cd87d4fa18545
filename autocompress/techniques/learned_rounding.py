"""Learned rounding: weights are rounded up or down so that blocks compute what they did in float.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020 (eq. 21 to 25); blocks that end
at residual joins after Li et al., "BRECQ", ICLR 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
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
from autocompress.simulation.blocks import Block, blocks_of
from autocompress.simulation.fake_quantization import StoredQuantizer, rounded
from autocompress.simulation.few_bits import limit_bits
from autocompress.simulation.float_weights import load_float_weights
from autocompress.simulation.graph_module import GraphModule
from autocompress.simulation.recorded import Recorded, inputs_that_fit
from autocompress.simulation.tuning import calibration_and_float_file, in_turn, save_tuned

Tensor = torch.Tensor
BATCH = 32
# the rectified sigmoid reaches from GAMMA to ZETA, so that it becomes exactly 0 and 1
GAMMA, ZETA = -0.1, 1.1
# weight of the regularizer, the share of the steps without it, and its exponent from the first step with it to the last
REGULARIZER, FREE, STEEP = 0.01, 0.2, (20.0, 2.0)
RATE, BIAS_RATE = 3e-2, 1e-3


class SoftRounding:
    """Rounds down, plus a share between 0 and 1 that is learned for each weight (Nagel et al., eq. 23)."""

    def __init__(self, weight: StoredQuantizer) -> None:
        scaled = weight.value / weight.steps(weight.value.dim(), 1)
        self._floor = scaled.floor()
        share = (scaled - self._floor).clamp(0.01, 0.99)
        self.logits = (-torch.log((ZETA - GAMMA) / (share - GAMMA) - 1)).requires_grad_(True)

    def shares(self) -> Tensor:
        """The shares by which each weight is rounded up."""
        return (torch.sigmoid(self.logits) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def __call__(self, scaled: Tensor) -> Tensor:
        """The scaled weights, rounded; those that the object was made for."""
        return self._floor + self.shares()

    def cost(self, exponent: float) -> Tensor:
        """The regularizer that draws the shares to 0 and 1 (Nagel et al., eq. 24)."""
        return (1 - (2 * self.shares() - 1).abs().pow(exponent)).sum()

    @torch.no_grad()
    def settle(self, weight: StoredQuantizer) -> None:
        """Round the weight up where the share is at least a half, and down elsewhere."""
        whole = self._floor + (self.shares() >= 0.5)
        weight.value.copy_(whole * weight.steps(weight.value.dim(), 1))
        weight.rounding = rounded


class LearnedRounding(ArtifactTechnique):
    """Learns block by block how the weights of a quantized file are rounded, without labels."""

    name: ClassVar[str] = "learned_rounding"
    summary: ClassVar[str] = "weights rounded up or down as calibration items show, for 8 or 4 bits"
    stage: ClassVar[Stage] = Stage.TUNING
    effort: ClassVar[Effort] = Effort.CALIBRATION
    serves: ClassVar[frozenset[str]] = frozenset({"static"})
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("bits", (8, 4), structural=False, describes="levels of a weight, as bits"),
        Choice("steps", (250, 40, 1000), structural=False, describes="steps for each block"),
        Choice("items", (512, 256, 1024), structural=False, describes="calibration items"),
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ()

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        bits = settings[0].get("bits") if settings else None
        return "learned rounding, 4 bits" if bits == 4 else "learned rounding"

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """Eight bits; four save nothing as long as they are stored in eight."""
        return SettingSpace(self.choices, ({"bits": 8, "steps": 250, "items": 512},))

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
        four, steps = settings["bits"] == 4, int(settings["steps"])
        known = load_float_weights(module, load_model(unquantized.path))
        learnable = {layer.weight for layer in module.layers() if four or layer.weight in known}
        blocks = [block for block in blocks_of(module) if learnable.intersection(block.weights)]
        if not blocks:
            raise TechniqueError(
                "finds no quantized layer whose weights are those of the float file.",
                where=self.name,
                hint="With 8 bits they must not be changed between the float file and its quantization.",
            )
        split, outputs = calibration.first(int(settings["items"])), [block.output for block in blocks]
        inputs = inputs_that_fit(module, split, artifact, outputs)
        if four:
            limit_bits(module, 4)
        floating = Recorded(copy.deepcopy(module), inputs, quantized=False)
        rounding = Recorded(module, inputs, quantized=True)
        for block in in_turn(blocks, context.on_step, steps):
            target = floating.values([block.output])[block.output]
            learn(module, block, rounding.values(block.inputs), target, learnable, steps)
        return save_tuned(module, model, artifact, context, self.name)


def learn(
    module: GraphModule,
    block: Block,
    given: Mapping[str, Tensor],
    target: Tensor,
    learnable: Collection[StoredQuantizer],
    steps: int,
) -> None:
    """Learn a block's rounding and biases so that it computes the target from what is given.

    `given` and `target` have the same number of rows, of which each step draws some.
    """
    softs = {weight: SoftRounding(weight) for weight in block.weights if weight in learnable}
    for weight, soft in softs.items():
        weight.rounding = soft
    biases = [layer.bias.value.requires_grad_(True) for layer in block.layers if layer.bias is not None]
    logits = [soft.logits for soft in softs.values()]
    optimizer = torch.optim.Adam([{"params": logits, "lr": RATE}, {"params": biases, "lr": BIAS_RATE}])
    generator = torch.Generator().manual_seed(0)
    channels = target.shape[1 if block.layers[-1].operator.startswith("Conv") else -1]
    if block.end is not None:
        # the output is compared before it is rounded
        block.end.enabled = False
    for step in range(steps):
        rows = torch.randint(len(target), (min(BATCH, len(target)),), generator=generator)
        found = module.compute({name: value[rows] for name, value in given.items()}, (block.output,))[block.output]
        loss = (found - target[rows]).square().mean() * channels
        through = (step / steps - FREE) / (1 - FREE)
        if through > 0:
            exponent = STEEP[0] + (STEEP[1] - STEEP[0]) * through
            loss = loss + REGULARIZER * sum(soft.cost(exponent) for soft in softs.values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch's
        optimizer.step()
    for bias in biases:
        bias.requires_grad_(False)
    for weight, soft in softs.items():
        soft.settle(weight)
    if block.end is not None:
        block.end.enabled = True
