"""Linear layers that keep weights transposed, as GPT-2's do (`transformers.pytorch_utils.Conv1D`)."""

from __future__ import annotations

from torch import nn

# module and name of the class; transformers need not be installed
CONV1D = ("transformers.pytorch_utils", "Conv1D")


def transposed_linears(module: nn.Module) -> list[str]:
    """Names of the linear layers that keep their weight transposed."""
    return [
        name for name, part in module.named_modules() if name and (type(part).__module__, type(part).__name__) == CONV1D
    ]


def as_linear(module: nn.Module, names: list[str]) -> None:
    """Replace these layers by `nn.Linear`, which computes the same; everything else here knows that one."""
    for name in names:
        above, _, last = name.rpartition(".")
        found = module.get_submodule(name)
        weight, bias = found.weight, found.bias
        assert isinstance(weight, nn.Parameter)
        assert isinstance(bias, nn.Parameter)
        inputs, outputs = weight.shape
        linear = nn.Linear(inputs, outputs, device="meta")
        linear.weight = nn.Parameter(weight.detach().t().contiguous(), weight.requires_grad)
        linear.bias = bias
        linear.training = found.training
        linear._forward_hooks, linear._forward_pre_hooks = found._forward_hooks, found._forward_pre_hooks
        setattr(module.get_submodule(above), last, linear)
