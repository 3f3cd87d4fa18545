"""Channel pruning: removes the least important channels of convolutions and neurons of linear layers.

Which channels can only be cut together: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. The
criteria for their importance are described, with their sources, in `autocompress.pruning.importance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

from torch import nn

from autocompress.core.facts import Facts, Kind
from autocompress.core.moves import MoveSpace, Network
from autocompress.core.plan import Effort, Setting
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import Choice, Reason, check_settings
from autocompress.core.technique import Context, StructureTechnique
from autocompress.errors import PlanError
from autocompress.pruning.channel_groups import cut
from autocompress.pruning.channel_moves import ChannelMoves
from autocompress.pruning.importance import IMPORTANCES
from autocompress.pruning.selection import SCOPES, Selection
from autocompress.training.batch_norm import reestimate_batch_norm

SCOPE = Choice("scope", SCOPES, describes="whether each group loses the ratio, or all together")
# structural, since under a global scope the importance decides how many channels each group loses
IMPORTANCE = Choice("importance", IMPORTANCES, describes="how channels are ranked")
MULTIPLE = Choice("multiple", (8, 1, 4, 16, 32), describes="what is kept of a group is a multiple of this")


class ChannelPruning(StructureTechnique):
    """Narrows groups of coupled channels, then re-estimates batch-norm statistics."""

    name: ClassVar[str] = "channel_pruning"
    summary: ClassVar[str] = "channels and neurons that matter least are taken out"
    effort: ClassVar[Effort] = Effort.CALIBRATION
    reduces: ClassVar[str] = "width"
    parts: ClassVar[str] = "groups of channels can be cut"
    # options cannot be listed: groups depend on the model, and any share between 0 and 1 is a ratio
    choices: ClassVar[tuple[Choice, ...]] = (
        Choice("groups", (), describes="names of the groups that are cut; none for all that can be"),
        Choice("ratio", (), describes="share of the channels that goes"),
        SCOPE,
        IMPORTANCE,
        MULTIPLE,
    )

    def describe(self, settings: Sequence[Mapping[str, Setting]]) -> str:
        """See `Technique.describe`: what is cut, and the share of its channels that is kept."""
        return ", ".join(f"{_place_of(str(one['groups']))} at {_kept(float(one['ratio']))}" for one in settings)

    def moves(self, network: Network) -> MoveSpace:
        """See `StructureTechnique.moves`: kinds of groups, level by level."""
        return ChannelMoves(self.name, network)

    def refuses(self, facts: Facts, probes: Probes, profile: Profile) -> Reason | None:
        """Refused where no channels can be cut, with a reason for each layer."""
        parts = probes.parts_of(self.name)
        if parts.left_alone and not parts.names:
            name, reason = next(iter(parts.left_alone.items()))
            return Reason(
                f"no channels can be cut: {name}: {reason}", "channels", f"{len(parts.left_alone)} left alone"
            )
        layers = [layer for layer in facts.layers if layer.kind in (Kind.CONVOLUTION, Kind.LINEAR)]
        if len(layers) > 1:
            return None
        return Reason(
            "there are no channels between two convolutions or linear layers that could go.",
            "channels",
            f"{len(layers)} convolutions and linear layers",
        )

    def apply(self, module: nn.Module, settings: Mapping[str, Setting], context: Context) -> nn.Module:
        """See `ModelTechnique.apply`."""
        selection = selection_of(settings)
        smaller = cut(module, context.example, selection, context.calibration, context.task, context.ignore)
        if context.calibration is not None:
            reestimate_batch_norm(smaller, context.calibration, context.example)
        return smaller


def _place_of(groups: str) -> str:
    """The module that contains all of these groups, else the number of groups."""
    names = groups.split()
    paths = [name.split(".") for name in names]
    shared = ".".join(parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1)
    if not shared:
        return f"{len(names)} widths" if names else "all widths"
    # children of a Sequential have numbers for names
    return shared if any(letter.isalpha() for letter in shared) else f"layer {shared}"


def _kept(ratio: float) -> str:
    """The share that is kept, as a simple fraction where it is one."""
    kept = Fraction(1 - ratio).limit_denominator(16)
    return str(kept) if abs(float(kept) - (1 - ratio)) < 1e-6 else f"{1 - ratio:.0%}"


def selection_of(settings: Mapping[str, Setting]) -> Selection:
    """The selection of channels that a step with these settings cuts.

    Raises:
        PlanError: when a setting is missing, unknown or invalid.
    """
    name = ChannelPruning.name
    free = {key: settings[key] for key in ("groups", "ratio") if key in settings}
    listed = {key: value for key, value in settings.items() if key not in free}
    check_settings(name, (SCOPE, IMPORTANCE, MULTIPLE), listed)
    missing = [key for key in ("groups", "ratio") if key not in free]
    if missing:
        raise PlanError(f"lacks the setting {missing[0]!r}.", where=name)
    ratio, groups = free["ratio"], free["groups"]
    if isinstance(ratio, bool) or not isinstance(ratio, float | int) or not 0 < ratio < 1:
        raise PlanError(f"ratio cannot be {ratio!r}.", where=name, hint="It is a share between 0 and 1.")
    if not isinstance(groups, str):
        raise PlanError(
            f"groups cannot be {groups!r}.", where=name, hint="Names with spaces between them, or nothing for all."
        )
    return Selection(
        float(ratio),
        tuple(groups.split()),
        str(settings["scope"]),
        str(settings["importance"]),
        int(settings["multiple"]),
    )
