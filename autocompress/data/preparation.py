"""Modules as they come: unwrapped, with their parametrizations baked in, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook, SpectralNormStateDictHook
from torch.nn.utils.weight_norm import WeightNorm
from torch.optim.swa_utils import AveragedModel

from autocompress.data.copies import with_shared_weights
from autocompress.data.detectors import before_suppression
from autocompress.data.module import first_line
from autocompress.data.transposed_linear import as_linear, transposed_linears
from autocompress.errors import ModelError

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
# packages whose layers hold quantized weights, or stand-ins for them; and names of their parts
QUANTIZED_PACKAGES = (
    "torch.ao.nn.quantized", "torch.ao.nn.qat", "torch.ao.nn.intrinsic.quantized", "torch.ao.nn.intrinsic.qat",
    "torch.ao.quantization.fake_quantize", "torch.ao.quantization.observer", "torchao", "bitsandbytes", "auto_gptq",
    "gptqmodel", "awq", "optimum.quanto", "quanto", "brevitas",
)  # fmt: skip
# integers and floats of one byte: no float model keeps its weights in them
QUANTIZED_TYPES = (torch.int8, torch.uint8, torch.float8_e4m3fn, torch.float8_e5m2)


def prepared(model: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The module to compress, and a sentence for each thing in which it is not the given one.

    Detectors of torchvision end before non-maximum suppression.
    Compiled modules, DataParallel, DistributedDataParallel and AveragedModel are unwrapped. Where parts are compiled,
    or weights are computed from others (weight norm, spectral norm, pruning masks, any other parametrization), a copy
    with plain weights is taken, which computes the same in evaluation mode; all other weights are shared.

    Raises:
        ModelError: when it is no nn.Module, a TorchScript module, already quantized, has no weights yet, or is a
            detector of two stages.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"is a {type(model).__name__}, not a torch.nn.Module.", where="model")
    module, kinds = _unwrapped(model)
    _require_plain(module)
    said = [f"the model is taken out of {' and '.join(kinds)}: layers are named as inside it"] if kinds else []
    detector, module = module, before_suppression(module)
    if module is not detector:
        said.append(
            f"the {type(detector).__name__} detector is compressed up to its boxes and logits: non-maximum suppression "
            "comes after the file"
        )
    compiled = [name for name, part in module.named_modules(remove_duplicate=False) if _is_compiled(part)]
    computed = {name: found for name, part in module.named_modules() if (found := list(_computed(part)))}
    transposed = transposed_linears(module)
    if not compiled and not computed and not transposed:
        return module, tuple(said)
    try:
        # parts that share their weights with others also share the copies of them
        module = with_shared_weights(module).eval()
        for name in reversed(compiled):
            _replace_compiled(module, name)
        for part in module.modules():
            _bake(part)
        as_linear(module, transposed)
    except Exception as error:
        raise ModelError(
            f"cannot be copied with plain weights ({type(error).__name__}: {first_line(error)}).",
            where="model",
            hint="Remove compiled parts and parametrizations before the call.",
        ) from error
    if compiled:
        said.append(f"layers compiled by torch.compile ({_listed(compiled)}) are compressed as they were before")
    if computed:
        ways = list(dict.fromkeys(way for found in computed.values() for way in found))
        said.append(
            f"weights computed by {', '.join(ways)} ({_listed(list(computed))}) are baked into plain weights of a "
            "copy, which computes the same"
        )
    if transposed:
        said.append(f"layers with transposed weights, Conv1D ({_listed(transposed)}), are compressed as nn.Linear")
    return module, tuple(said)


def _listed(names: list[str], most: int = 3) -> str:
    names = [name.replace("._orig_mod", "") or "the model" for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _inside_compiled(part: nn.Module) -> nn.Module | None:
    """The module that `torch.compile` wrapped, None for others; the wrapper's type is slow to load."""
    inner = getattr(part, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else None


def _is_compiled(part: nn.Module) -> bool:
    # the second is what `module.compile()` leaves; copies do not have it
    return _inside_compiled(part) is not None or part._compiled_call_impl is not None


def _unwrapped(module: nn.Module) -> tuple[nn.Module, list[str]]:
    kinds: list[str] = []
    while True:
        inner = module.module if isinstance(module, WRAPPERS) else _inside_compiled(module)
        if not isinstance(inner, nn.Module):
            return module, kinds
        kinds.append("torch.compile" if not isinstance(module, WRAPPERS) else type(module).__name__)
        module = inner


def _replace_compiled(module: nn.Module, name: str) -> None:
    if not name:
        return
    above, _, last = name.rpartition(".")
    parts = module.get_submodule(above)._modules
    part = parts[last]
    inner = None if part is None else _inside_compiled(part)
    if inner is not None:
        parts[last] = inner


def _parametrizations(part: nn.Module) -> dict[str, nn.Module]:
    chains: Any = part.parametrizations if parametrize.is_parametrized(part) else {}
    return dict(chains.items())


def _computed(part: nn.Module) -> Iterator[str]:
    """What computes weights of this part from others, in a few words each."""
    for chain in _parametrizations(part).values():
        yield from (type(one).__name__.strip("_") for one in chain.children() if not isinstance(one, nn.ParameterList))
    for hook in part._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm | prune.BasePruningMethod):
            yield "pruning masks" if isinstance(hook, prune.BasePruningMethod) else type(hook).__name__


def _bake(part: nn.Module) -> None:
    """Replace computed weights by plain ones, without touching tensors or classes of the original."""
    chains = _parametrizations(part)
    if chains:
        with torch.no_grad():
            values = {name: getattr(part, name).detach().clone() for name in chains}
        # torch.nn.utils.parametrize.remove_parametrizations takes the property from the class, which the original has
        # too, and overwrites the tensor in place, which is the original's
        del part._modules["parametrizations"]
        part.__class__ = type(part).__bases__[0]
        for name, value in values.items():
            if any(True for _ in chains[name].parameters()):
                # assigned, since recurrent layers keep a list of their weights too
                setattr(part, name, nn.Parameter(value, _learns(chains[name])))
            else:
                part.register_buffer(name, value)
    for key, hook in list(part._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm | prune.BasePruningMethod):
            name = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name
            learns = _learns(part)
            with torch.no_grad():
                hook(part, None)
                value = getattr(part, name).detach().clone()
            del part._forward_pre_hooks[key]
            delattr(part, name)
            for suffix in ("_g", "_v", "_orig", "_mask", "_u"):
                part._parameters.pop(f"{name}{suffix}", None)
                part._buffers.pop(f"{name}{suffix}", None)
            setattr(part, name, nn.Parameter(value, learns))
    for hooks in (part._state_dict_hooks, part._load_state_dict_pre_hooks):
        for key, known in list(hooks.items()):
            if isinstance(getattr(known, "hook", known), SpectralNormStateDictHook | SpectralNormLoadStateDictPreHook):
                del hooks[key]


def _learns(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _require_plain(module: nn.Module) -> None:
    """Raise ModelError for TorchScript, and for weights that are quantized or missing."""
    for name, part in module.named_modules():
        where = f"model, layer {name!r} ({type(part).__name__})" if name else "model"
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                "is a TorchScript module, whose layers cannot be changed or exported.",
                where=where,
                hint="Give the nn.Module that it was made from.",
            )
        kind = _quantized_as(part)
        if kind:
            raise ModelError(f"is already quantized ({kind}).", where=where, hint="Give the float model.")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ModelError(
                f"has no weights yet: {name!r} gets its shape in the first call.",
                where="model",
                hint="Call the model once with a batch, and load its trained weights.",
            )
        if tensor.layout is not torch.strided:
            raise ModelError(
                f"keeps {name!r} as a sparse tensor ({str(tensor.layout).removeprefix('torch.')}), which no ONNX graph "
                "computes with.",
                where="model",
                hint="Keep its to_dense(), and multiply with torch.matmul.",
            )
        if tensor.is_meta:
            raise ModelError(
                f"has no weights: {name!r} is on the meta device.",
                where="model",
                hint="Build the model on the CPU and load its trained weights.",
            )


def _quantized_as(part: nn.Module) -> str:
    """How this part itself is quantized, or prepared for it; empty where it is not."""
    package = type(part).__module__
    if any(package == one or package.startswith(f"{one}.") for one in QUANTIZED_PACKAGES):
        return f"{type(part).__name__} of {package.partition('.')[0]}"
    if isinstance(part, torch.fx.GraphModule):
        for node in part.graph.nodes:
            if str(node.target).startswith(("quantized.", "quantized_decomposed.")):
                return f"operator {node.target}"
    held = {**part._parameters, **part._buffers}
    scaled = any("scale" in name or "zero_point" in name for name in held)
    for name, tensor in held.items():
        if tensor is None or nn.parameter.is_lazy(tensor):
            continue
        package = type(tensor.data).__module__
        if package.startswith(QUANTIZED_PACKAGES) or tensor.is_quantized:
            return f"{name!r} is a {type(tensor.data).__name__} of {tensor.dtype}"
        # tables and masks of bytes are often buffers of float models
        weighs = tensor.ndim > 1 and (name in part._parameters or scaled)
        if weighs and tensor.dtype in QUANTIZED_TYPES:
            return f"{name!r} is {str(tensor.dtype).removeprefix('torch.')}"
    return ""
