"""Palettes: the weights of each layer take few values, kept in a table, as packed indices into it.

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
from autocompress.core.search_space import Choice, Reason, SettingSpace, check_settings
from autocompress.core.technique import ArtifactTechnique, Context, with_remarks
from autocompress.packing.palette_making import palettes_by, require_some
from autocompress.packing.palette_settings import (
    ALLOCATION,
    ENTRIES,
    EVEN,
    GROUPS,
    KINDS,
    LAYER_BYTES,
    MEASURED,
    SMALL,
    refusal,
    weight_bytes,
)
from autocompress.runtimes.onnx_file import compact, load_model, save_if_smaller
from autocompress.runtimes.palette_storage import store
from autocompress.runtimes.radix import digits_for

FLOAT_BITS = 32
# what a run tries, from the most values to the fewest
TRIED = (16, 8, 6, 4)
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
    layer_bytes: ClassVar[int] = LAYER_BYTES
    choices: ClassVar[tuple[Choice, ...]] = (
        ENTRIES,
        GROUPS,
        ALLOCATION,
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
        fitting = [count for count in TRIED if digits_for(count).bits / FLOAT_BITS <= most] or TRIED[-1:]
        groups = 16 if facts.family is Family.TRANSFORMER else 1
        same: dict[str, Setting] = {"groups": groups, "samples": 256}
        # the same number in all layers takes seconds, so that it comes first
        tried = tuple({"entries": count, "allocation": how, **same} for count in fitting for how in (EVEN, MEASURED))
        return SettingSpace(self.choices, tried)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where nobody asks for a small file, and where the runtime unpacks weights at each call."""
        return refusal(self.name, facts, probes, profile)

    def weight_bytes(self, settings: Mapping[str, Setting]) -> float:
        """See `ArtifactTechnique.weight_bytes`."""
        return weight_bytes(settings)

    def covers(self, facts: Facts) -> frozenset[Kind]:
        """See `ArtifactTechnique.covers`."""
        return frozenset(KINDS)

    def apply(self, artifact: Artifact, settings: Mapping[str, Setting], context: Context) -> Artifact:
        """See `ArtifactTechnique.apply`."""
        check_settings(self.name, self.choices, settings)
        model = load_model(artifact.path)
        palettes = palettes_by(model, artifact, settings, int(settings["samples"]), context, self.name)
        require_some(palettes, self.name)
        return save_if_smaller(compact(store(model, palettes)), artifact, context.folder, self.name)
