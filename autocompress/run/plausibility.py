"""What looks wrong in the model as it is, though it can be measured; no error."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autocompress.core.measurement import Measurement

# answers below which a share of right ones says nothing
LEAST_ITEMS = 30
NAMED = 3


def doubts_about_answers(baseline: Measurement) -> list[str]:
    """Sentences on a baseline that classifies no better than one that always gives the same answer.

    None for other scores, and for fewer than 30 items.
    """
    answers, labels = (baseline.readings.get(name) for name in ("answer", "label"))
    if answers is None or labels is None or len(labels.samples) < LEAST_ITEMS:
        return []
    given, right = answers.samples, labels.samples
    kinds, counts = np.unique(right, return_counts=True)
    if len(kinds) == 1:
        # every classifier may answer one class where there is only one
        return [f"All {len(right):,} validation items have the label {kinds[0]:g}, so hardly any loss would show."]
    accuracy, most = float((given == right).mean()), counts.max() / len(right)
    advice = "Check that inputs are normalised as in training and classes are numbered alike."
    if len(np.unique(given)) == 1:
        return [f"The model answers class {given[0]:g} for all {len(right):,} validation items. {advice}"]
    if accuracy <= most:
        return [
            f"The model is right for {accuracy:.1%} of the validation items, no more than who always answers class "
            f"{kinds[counts.argmax()]:g} ({most:.1%}). {advice}"
        ]
    return []


def doubts_about_weights(module: nn.Module) -> list[str]:
    """A sentence on batch-norm layers whose statistics are those of a new layer."""
    new = [
        name
        for name, part in module.named_modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None and _is_new(part)
    ]
    if not new:
        return []
    named = ", ".join(new[:NAMED]) + (f" and {len(new) - NAMED} more" if len(new) > NAMED else "")
    return [f"Batch norm has never seen data in {named}: load the trained weights, running statistics included."]


def _is_new(layer: _BatchNorm) -> bool:
    mean, variance = layer.running_mean, layer.running_var
    return mean is not None and variance is not None and not bool(mean.any()) and bool((variance == 1).all())
