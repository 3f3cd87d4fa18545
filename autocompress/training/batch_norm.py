"""Re-estimation of batch-norm statistics after a network was changed."""

from __future__ import annotations

import torch
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.data.augmentation_bank import AugmentationBank
from autocompress.data.module import place_of, returned
from autocompress.system.locks import working

REESTIMATION_BATCHES = 8


def has_batch_norm(module: nn.Module) -> bool:
    """True when the module has a batch-norm layer."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def reestimate_batch_norm(module: nn.Module, part: Split, example: Example, batch: int = 128) -> None:
    """Re-estimate the module's batch-norm statistics over at most 8 batches.

    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3: precise batch norm.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # a momentum of None averages all batches equally
        norm.momentum = None
    place = place_of(module)
    views = AugmentationBank(part.first(batch * REESTIMATION_BATCHES), example, batch=batch, seed=0)
    # only the norms train: dropout would change the statistics at random
    module.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for step in range(views.per_epoch):
            with working():
                inputs = {name: tensor.to(place) for name, tensor in views.at(step).inputs.items()}
                returned(module, inputs, example)
    module.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
