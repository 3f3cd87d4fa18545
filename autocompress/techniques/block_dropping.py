"""Block dropping: leaves out residual blocks or encoder layers, least influence on outputs first.

Veit, Wilber and Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", NeurIPS 2016;
for transformers Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models", 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import nn

from autocompress.core.facts import Facts
from autocompress.core.moves import MoveSpace, Network
from autocompress.core.plan import Effort, Setting
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason
from autocompress.core.technique import Context, StructureTechnique
from autocompress.data.copies import with_own_weights
from autocompress.errors import PlanError, TechniqueError
from autocompress.pruning.block_moves import BlockMoves
from autocompress.pruning.blocks import candidate_blocks, drop_blocks, is_ignored, not_needed
from autocompress.training.batch_norm import reestimate_batch_norm


class BlockDropping(StructureTechnique):
    """Drops blocks by name, then re-estimates batch-norm statistics."""

    name: ClassVar[str] = "block_dropping"
    summary: ClassVar[str] = "residual blocks or encoder layers that matter least are left out"
    effort: ClassVar[Effort] = Effort.CALIBRATION
    reduces: ClassVar[str] = "depth"
    parts: ClassVar[str] = "blocks can be left out"
    # any block names: they depend on the model
    choices: ClassVar[tuple[Choice, ...]] = (Choice("blocks", (), describes="names of the blocks that go"),)

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`."""
        count = sum(len(str(one.get("blocks", "")).split()) for one in settings)
        return f"{count} block{'s' if count != 1 else ''} dropped"

    def moves(self, network: Network) -> MoveSpace:
        """See `StructureTechnique.moves`: one for each block."""
        return BlockMoves(self.name, network)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where no block gives back the shape it takes, or the network needs each of them."""
        parts = probes.parts_of(self.name)
        if parts.names:
            return None
        if parts.left_alone:
            count = len(parts.left_alone)
            return Reason(
                "the blocks that repeat and give back the shape they take hand on more than that: the network does not "
                "run without any of them.",
                "blocks",
                f"{count} block{'s' if count > 1 else ''}, none can be left out",
            )
        return Reason(
            "there is no block that could go: none repeats and gives back the shape it takes.", "blocks", "0 blocks"
        )

    def apply(self, module: nn.Module, settings: Mapping[str, Setting], context: Context) -> nn.Module:
        """See `ModelTechnique.apply`."""
        unknown = set(settings) - {"blocks"}
        names = str(settings.get("blocks", "")).split()
        if unknown or not names:
            raise PlanError(
                f"has no setting {sorted(unknown)[0]!r}." if unknown else "names no blocks.",
                where=self.name,
                hint="Its setting is `blocks`: names with spaces between them.",
            )
        for name in names:
            if is_ignored(module, name, context.ignore):
                raise TechniqueError(f"{name!r} is declared to be ignored, or holds what is.", where=self.name)
        # only the blocks to drop are tried
        asked = {name: kind for name, kind in candidate_blocks(module, context.example).items() if name in names}
        drop_blocks(module, names, not_needed(module, context.example, asked))
        # up to here the weights are shared with the original
        module = with_own_weights(module)
        if context.calibration is not None:
            reestimate_batch_norm(module, context.calibration, context.example)
        return module
