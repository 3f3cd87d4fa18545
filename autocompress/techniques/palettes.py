"""Palettes: the weights of each layer take few values, kept in a table, and indices into it in as few bits.

Han, Mao and Dally, "Deep Compression", ICLR 2016 (clusters that share a value); errors are passed on as in Frantar et
al., "GPTQ", ICLR 2023. The runtime unpacks the weights when it loads the file, so that a call takes the time that it
took before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts, Family, Kind
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.profitable_settings import time_matters
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.errors import TechniqueError
from autocompress.packing.clustering import Clusters, clustered
from autocompress.packing.layer_weights import layer_weights
from autocompress.packing.rounded_weights import as_whole_numbers
from autocompress.packing.second_moments import second_moments
from autocompress.runtimes.onnx_file import compact, load_model, save_if_smaller
from autocompress.runtimes.palette_storage import Palette, store
from autocompress.runtimes.radix import digits_for
from autocompress.simulation.tuning import in_turn

COVERED = (Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT, Kind.EMBEDDING)
FLOAT_BITS = 32
# what fewer values make smaller: a file takes as much memory once it is loaded as it did before
SMALL = ("size_mb", "download_mb")
# what a run tries, from the most values to the fewest
ENTRIES = (16, 8, 6, 4)
# the share of float's latency that a file which is unpacked when it is loaded takes at most
UNPACKED = 1.1
# weights are not all of a file, so that the share of the baseline that they may take is known to about this factor
CERTAIN = 1.1


class Palettes(ArtifactTechnique):
    """Stores the weights of each layer as indices into a table of few values."""

    name: ClassVar[str] = "palettes"
    summary: ClassVar[str] = "the weights of each layer in few values, packed, at the speed of the file before"
    stage: ClassVar[Stage] = Stage.PACKING
    effort: ClassVar[Effort] = Effort.CALIBRATION
    formats: ClassVar[frozenset[str]] = frozenset({"onnx"})
    serves: ClassVar[frozenset[str]] = frozenset({"static", "dynamic"})
    value_bytes: ClassVar[float] = 0.5
    # a call of the function that unpacks, a shape, a table of values
    layer_bytes: ClassVar[int] = 80
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("entries", (16, 8, 6, 4, 12, 9, 5, 3, 2, 32, 64, 128, 256), describes="values of a layer's weights"),
        Choice("groups", (1, 4, 16, 64), describes="ranges of a weight's first axis with values of their own"),
        Choice("samples", (256, 64, 1024), structural=False, describes="calibration items"),
    )
    probed: ClassVar[tuple[Mapping[str, Setting], ...]] = ({"entries": 16, "groups": 1},)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        given = settings[0] if settings else {}
        groups = int(given.get("groups", 1))
        return with_remarks(f"{given.get('entries', 16)} values a layer", [(f"in {groups} groups", groups > 1)])

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """From many entries to few, without those that cannot be small enough; groups in transformers."""
        limit = next((b.limit for b in profile.budgets if b.metric in SMALL and b.relative), None)
        most = 1.0 if limit is None else CERTAIN * limit
        fitting = [count for count in ENTRIES if digits_for(count).bits / FLOAT_BITS <= most] or ENTRIES[-1:]
        groups = 16 if facts.family is Family.TRANSFORMER else 1
        return SettingSpace(
            self.choices, tuple({"entries": count, "groups": groups, "samples": 256} for count in fitting)
        )

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where nobody asks for a small file, and where the runtime unpacks weights at each call."""
        if not any(layer.kind in COVERED for layer in facts.layers):
            return Reason("palettes cover no layer of this model.", "quantizable", "no layer with weights")
        if not (profile.limits(*SMALL) or profile.objective.shrinks == "size"):
            return Reason(
                "fewer values make the file smaller, not faster, and nothing asks for a smaller file.",
                "size",
                ", ".join(budget.metric for budget in profile.budgets) or "no budget",
            )
        failure, measured = probes.failure_of(self.name), probes.of(self.name)
        if failure:
            return Reason(f"palettes fail on this model: {failure}", "probe", failure)
        if measured and time_matters(profile) and (measured[0].low or 0.0) > UNPACKED:
            best = measured[0]
            return Reason(
                "this runtime unpacks the weights at each call instead of once.",
                "probe",
                f"{best.ratio:.2f}x the latency before ({best.low:.2f} to {best.high:.2f})",
            )
        return None

    def weight_bytes(self, settings: Mapping[str, Setting]) -> float:
        """See `ArtifactTechnique.weight_bytes`."""
        return digits_for(int(settings["entries"])).bits / 8

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        return frozenset(COVERED)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        if context.calibration is None:
            raise TechniqueError("needs calibration data, and there are none.", where=self.name)
        model = load_model(artifact.path)
        split = context.calibration.first(int(settings["samples"]))
        moments = second_moments(artifact, layer_weights(model.graph), split)
        layers, whole = as_whole_numbers(model, layer_weights(model.graph))
        clusters = Clusters(int(settings["entries"]), int(settings["groups"]))
        palettes: dict[str, Palette] = {}
        for layer in in_turn(layers, context.on_step):
            made = clustered(layer, whole[layer.tensor], moments.get(layer.tensor), clusters)
            if made.stored_bytes + self.layer_bytes < layer.size:
                palettes[layer.tensor] = made
        if not palettes:
            raise TechniqueError("found no weight in this model that gets smaller by it.", where=self.name)
        return save_if_smaller(compact(store(model, palettes)), artifact, context.folder, self.name)
