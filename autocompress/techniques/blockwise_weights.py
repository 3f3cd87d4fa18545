"""Weights of linear layers and embeddings in blocks of four or eight bits; needs no data.

For networks that are bound by reading their weights. Rounding to the nearest: Dettmers and Zettlemoyer, "The case for
4-bit precision: k-bit inference scaling laws", ICML 2023 (small blocks lose least). The operators are onnxruntime's
`MatMulNBits` and `GatherBlockQuantized` (ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import profitable_settings, refuse_what_does_not_pay
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.errors import TechniqueError
from autocompress.runtimes.blockwise_weights import Blocks, quantize_weights
from autocompress.runtimes.onnx_file import compact, load_model, save_if_smaller

TITLE = "weights in blocks"
COVERED = (Kind.LINEAR, Kind.ATTENTION, Kind.EMBEDDING)
# a smaller share of the model's weights is not worth the operators that few other runtimes know
LEAST_SHARE = 0.2


class BlockwiseWeights(ArtifactTechnique):
    """Stores the weights of linear layers and embeddings in blocks of few bits, each with a scale."""

    name: ClassVar[str] = "blockwise_weights"
    summary: ClassVar[str] = "weights of linear layers in blocks of 4 or 8 bits, no data needed"
    stage: ClassVar[Stage] = Stage.PRECISION
    effort: ClassVar[Effort] = Effort.NONE
    quantization: ClassVar[str] = "weights"
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    value_bytes: ClassVar[float] = 0.5
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("bits", (4, 8), describes="bits of a weight"),
        Choice("block", (32, 64, 128), describes="weights that share a scale"),
        Choice("symmetric", (False, True), describes="blocks without a zero point of their own"),
        Choice("accuracy_level", (4, 0), describes="activations inside products: 4 int8, 0 float32"),
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = (
        {"bits": 4, "block": 32, "symmetric": False, "accuracy_level": 4},
        {"bits": 8, "block": 128, "symmetric": True, "accuracy_level": 4},
        {"bits": 4, "block": 128, "symmetric": False, "accuracy_level": 4},
        {"bits": 4, "block": 32, "symmetric": False, "accuracy_level": 0},
    )

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`: unusual settings are added in brackets."""
        given = settings[0] if settings else {}
        remarks = [("symmetric", given.get("symmetric") is True), ("float sums", given.get("accuracy_level") == 0)]
        title = f"{given.get('bits', 4)}-bit weights in blocks of {given.get('block', 32)}"
        return with_remarks(title, remarks)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """Settings that pay, fastest first."""
        return SettingSpace(self.choices, profitable_settings(self.probed, probes.of(self.name), profile))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where few weights are in linear layers and embeddings, or when it is slower than float here."""
        weights = sum(layer.parameters for layer in facts.layers)
        covered = sum(layer.parameters for layer in facts.layers if layer.kind in COVERED)
        if covered < LEAST_SHARE * weights or not covered:
            return Reason(
                "blocks of few bits cover linear layers and embeddings, and this model has its weights elsewhere.",
                "quantizable",
                f"{covered / max(1, weights):.0%} of the weights are in them",
            )
        return refuse_what_does_not_pay(TITLE, self.name, probes, profile)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        return frozenset(COVERED)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        model = load_model(artifact.path)
        blocks = Blocks(int(settings["bits"]), int(settings["block"]), bool(settings["symmetric"]))
        if not quantize_weights(model, blocks, int(settings["accuracy_level"])):
            raise TechniqueError("found no weight in this model that gets smaller by it.", where=self.name)
        return save_if_smaller(compact(model), artifact, context.folder, self.name)
