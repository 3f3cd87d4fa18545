"""Block dropping: whole residual blocks or encoder layers go, those first that change the outputs least.

Veit, Wilber and Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", NeurIPS 2016;
for transformers Sajjad et al., "On the Effect of Dropping Layers of Pre-trained Transformer Models", 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from autocompress.core.facts import Facts
from autocompress.core.plan import Effort, Setting, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, SettingSpace
from autocompress.core.technique import Context, ModelTechnique
from autocompress.errors import PlanError, TechniqueError
from autocompress.pruning.blocks import candidate_blocks, drop_blocks, is_ignored, not_needed, with_own_weights
from autocompress.training.batch_norm import reestimate_batch_norm


class BlockDropping(ModelTechnique):
    """Blocks dropped by name, then batch-norm statistics estimated anew."""

    name: ClassVar[str] = "block_dropping"
    summary: ClassVar[str] = "residual blocks or encoder layers that matter least are left out"
    stage: ClassVar[Stage] = Stage.STRUCTURE
    effort: ClassVar[Effort] = Effort.CALIBRATION
    # any names of blocks: which there are, the model decides
    choices: ClassVar[tuple[Choice, ...]] = (Choice("blocks", (), describes="names of the blocks that go"),)

    def space(self, facts: Facts, probes: Probes, profile: Profile) -> SettingSpace:
        """What the measured pruning paths leave out."""
        steps = (step for path in probes.paths for structure in path.structures for step in structure.steps)
        options = dict.fromkeys(step.settings["blocks"] for step in steps if step.technique == self.name)
        return SettingSpace((Choice("blocks", tuple(options), describes="names of the blocks that go"),))

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where no block gives back the shape that it takes."""
        if probes.blocks:
            return None
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
        # only those that shall go are tried
        asked = {name: kind for name, kind in candidate_blocks(module, context.example).items() if name in names}
        drop_blocks(module, names, not_needed(module, context.example, asked))
        # so far the weights are still the original's
        module = with_own_weights(module)
        if context.calibration is not None:
            reestimate_batch_norm(module, context.calibration, context.example)
        return module
