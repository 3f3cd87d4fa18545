"""What torch's exporter works out of all its operators, kept from one export to the next."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exporter_tables_kept() -> Iterator[None]:
    """Keep the exporter's tables of operators, in the block: more than half of a small network's export.

    The signatures of its own operators are parsed from source code; which operators of torch it translates, and which
    of them consist of others, is looked up among thousands. Both are looked up anew once a library has added operators.
    """
    # imported here: programs that only load files need not wait for it
    import onnxscript
    from torch._export import utils
    from torch.onnx._internal.exporter import _registration

    # looked up by their names, which are no part of what these libraries promise: without them nothing is kept
    found = [
        (onnxscript.TracedOnnxFunction, "function_ir", _kept_property),
        (_registration.ONNXRegistry, "from_torchlib", _kept_classmethod),
        (utils, "_materialize_cpp_cia_ops", _kept_function),
    ]
    operators = tuple(torch._C._dispatch_get_all_op_names())
    with contextlib.ExitStack() as stack:
        for owner, name, kept in found:
            before = vars(owner).get(name)
            if before is not None:
                setattr(owner, name, kept(before, operators))
                stack.callback(setattr, owner, name, before)
        yield


# of each the last one, since operators are added and never taken away
@functools.lru_cache(1)
def _kept_property(signature: property, _: tuple[str, ...]) -> property:
    assert signature.fget is not None
    return property(functools.cache(signature.fget))


@functools.lru_cache(1)
def _kept_classmethod(table: Any, _: tuple[str, ...]) -> Any:
    kept: Any = functools.cache(table.__func__)
    return classmethod(kept)


@functools.lru_cache(1)
def _kept_function(function: Any, _: tuple[str, ...]) -> Any:
    return functools.cache(function)
