"""Export of modules to ONNX graphs; errors name the layer that cannot be exported."""

from __future__ import annotations

import ast
import contextlib
import gc
import traceback
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from autocompress.core.dynamic_axes import Axis
from autocompress.core.layer_patterns import matches_pattern, parts_of
from autocompress.core.runtime import Example
from autocompress.data.module import FlatModule, call, first_line, inference_mode_of, place_of
from autocompress.data.transformer_encoders import masks_as_given
from autocompress.data.user_line import causes_of, user_line
from autocompress.errors import ExportError, ModelError
from autocompress.runtimes.exporter_tables import exporter_tables_kept
from autocompress.runtimes.external_weights import to_proto
from autocompress.runtimes.onnx_file import rename
from autocompress.system.quiet import quiet

# what weights and layers are called by the wrapper around the user's module, `FlatModule.module`
WRAPPER = "module."
# suffixes for outputs during the export, and for inner values that have an output's name
OUTSIDE, INSIDE = ".outside", ".inside"
# torch's errors for branches and sizes that follow from values
DECIDES_BY_VALUES = ("GuardOnDataDependentSymNode", "DataDependentOutputException")


def export_graph(
    module: nn.Module, example: Example, output_names: tuple[str, ...], folder: Path, axes: Collection[Axis] = ()
) -> onnx.ModelProto:
    """Export the module as an ONNX graph, with a free batch where the module allows one.

    Otherwise the batch is fixed to the example's. `axes` are tried as free ones, and only with a free batch. Weights
    that are too many for one file are written to `folder`, and the graph refers to them.

    Raises:
        ExportError: when it cannot be exported; the layer is named.
    """
    # the exporter would take a batch of one for a constant
    free = example.with_batch(max(2, example.batch))
    if axes:
        model = _export(module, free, output_names, folder, free_batch=True, axes=axes)
        if not _has_free_batch(model, module, free):
            raise ExportError("takes one batch size only, so no other axis is free.", where="model")
        return model
    try:
        model = _export(module, free, output_names, folder, free_batch=True)
    except ExportError:
        if free.batch == example.batch:
            raise
        # the module takes single items only
        return _export(module, example, output_names, folder, free_batch=False)
    if _has_free_batch(model, module, free):
        return model
    return _export(module, example, output_names, folder, free_batch=False)


def _has_free_batch(model: onnx.ModelProto, module: nn.Module, example: Example) -> bool:
    """True when inputs and outputs of the graph follow the batch wherever those of the module do."""
    inputs = [value.type.tensor_type.shape.dim for value in model.graph.input]
    if any(dims[0].HasField("dim_value") for dims in inputs if len(dims)):
        return False
    # a size equal to the example's batch may be a batch that a reshape took for a constant: another batch shows it
    outputs = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output]
    if not any(example.batch in sizes for sizes in outputs):
        return True
    try:
        others = call(module, example.with_batch(example.batch + 1)).values()
    except ModelError:
        return False
    return all(
        size != example.batch or other == size
        for sizes, tensor in zip(outputs, others, strict=True)
        for size, other in zip(sizes, tensor.shape, strict=True)
    )


def _export(
    module: nn.Module,
    example: Example,
    output_names: tuple[str, ...],
    folder: Path,
    *,
    free_batch: bool,
    axes: Collection[Axis] = (),
) -> onnx.ModelProto:
    tensors = example.tensors()
    place = place_of(module)
    flat = FlatModule(module, example)
    flat.training = module.training
    batches = [(name, 0) for name, tensor in tensors.items() if free_batch and tensor.ndim]
    dims = tuple(
        {place: torch.export.Dim.AUTO for found, place in (*batches, *axes) if found == name} or None
        for name in tensors
    )
    entered: list[str] = []
    try:
        with (
            inference_mode_of(module),
            masks_as_given(module),
            quiet("torch.onnx", "onnxscript", "onnx_ir", "torch.export", "torch.fx.experimental.symbolic_shapes"),
            tracking(module, entered),
            _uncollected(),
            exporter_tables_kept(),
        ):
            flat.eval()
            program = torch.onnx.export(
                flat,
                tuple(tensor.to(place) for tensor in tensors.values()),
                dynamo=True,
                dynamic_shapes={"arrays": dims},
                input_names=list(tensors),
                output_names=[f"{name}{OUTSIDE}" for name in output_names],
                external_data=False,
                verbose=False,
                optimize=False,
            )
            if program is not None:
                _optimize(program)
    except Exception as error:
        layer = entered[-1] if entered else _culprit(error)
        kind = type(module.get_submodule(layer)).__name__ if layer else type(module).__name__
        named = f"model, layer {layer!r} ({kind})" if layer else f"model ({kind})"
        raise ExportError(
            f"cannot be exported to ONNX: {_cause(error)}",
            where=", ".join(filter(None, (named, user_line(error)))),
            hint=_advice(error),
        ) from error
    if program is None:
        raise ExportError("cannot be exported to ONNX: torch.onnx gave nothing back.", where="model")
    return _with_output_names(to_proto(program.model, folder), output_names)


def _optimize(program: torch.onnx.ONNXProgram) -> None:
    """Optimize the graph as the exporter would, after folding constants and removing unused nodes.

    One of the exporter's rules looks at all nodes for every node, and took up to a fifth of a large network's export.
    """
    # imported here: it takes half a second, which programs that only load files, such as the gate, need not wait for
    from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass, RemoveUnusedNodesPass
    from onnxscript.optimizer import fold_constants

    InlinePass()(program.model)
    fold_constants(program.model)
    RemoveUnusedNodesPass()(program.model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(program.model)
    program.optimize()


def _with_output_names(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Rename the graph's outputs to these names, and inner values that have one of them.

    The exporter names outputs even when an inner value has the same name: `mean`, `add`.
    """
    graph = model.graph
    renamed = {name: f"{name}{INSIDE}" for name in names}
    renamed |= {value.name: name for value, name in zip(graph.output, names, strict=True)}
    rename(graph, renamed)
    for named in (*graph.value_info, *graph.output):
        named.name = renamed.get(named.name, named.name)
    return model


def nodes_of(model: onnx.ModelProto, module: nn.Module, layers: Sequence[str]) -> list[int]:
    """Indices of the nodes that compute these layers, from the exporter's metadata.

    See `matches_pattern` for the layers' names.

    Raises:
        ExportError: when a layer with weights has no node of its own.
    """
    scopes = [scope_of(node) for node in model.graph.node]
    here = {scope for scope in scopes if scope}
    for name, part in module.named_modules():
        has_weights = any(weight.dim() > 1 for weight in part.parameters(recurse=False))
        # a module around the layer may compute with its weights itself
        found = any(one in here and matches_pattern(one, layers) for one in parts_of(name))
        if has_weights and matches_pattern(name, layers) and not found:
            raise ExportError(
                "cannot be told apart in the exported graph, so it cannot be kept in float.",
                where=f"model, layer {name!r} ({type(part).__name__})",
                hint="Name the part around it.",
            )
    return [place for place, scope in enumerate(scopes) if matches_pattern(scope, layers)]


def scope_of(node: onnx.NodeProto) -> str:
    """The name of the innermost layer that a node came from."""
    noted = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "")
    try:
        # the last entry is the node's own name
        names = ast.literal_eval(noted)[:-1] if noted else []
    except (SyntaxError, ValueError):
        names = []
    return _layer_name(str(names[-1])) if names else ""


def _layer_name(path: str) -> str:
    """The exporter's name of a layer, without the name of the wrapper around the user's module."""
    return path.removeprefix("L['self']").strip(".").removeprefix("module").strip(".")


@contextlib.contextmanager
def tracking(module: nn.Module, entered: list[str]) -> Iterator[None]:
    """Track the names of the layers being executed; after an error the last one is where tracing stopped."""
    handles = []
    for name, part in module.named_modules():
        if name:

            def enter(_module: nn.Module, _inputs: object, name: str = name) -> None:
                entered.append(name)

            def leave(_module: nn.Module, _inputs: object, _outputs: object, name: str = name) -> None:
                if entered and entered[-1] == name:
                    entered.pop()

            handles += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Switch garbage collection off in the block.

    Among millions of new objects that are in use it takes up to a sixth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _advice(error: BaseException) -> str:
    causes = list(causes_of(error))
    frames = [frame for cause in causes for frame, _ in traceback.walk_tb(cause.__traceback__)]
    if any(isinstance(value, nn.utils.rnn.PackedSequence) for frame in frames for value in frame.f_locals.values()):
        return (
            "Packed sequences have no ONNX form: run the recurrent layer on the padded batch, and take each item's "
            "last step by its length."
        )
    if any(type(cause).__name__ in DECIDES_BY_VALUES for cause in causes):
        return "forward() decides by the values of a tensor, which a graph cannot: use torch.where, or a fixed choice."
    return "Replace what this layer does by operations that torch.onnx can export."


def _cause(error: BaseException) -> str:
    deepest = list(causes_of(error))[-1]
    return f"{type(deepest).__name__}: {first_line(deepest)}"


def _culprit(error: BaseException) -> str:
    """The layer of the operator that could not be translated, from the module stack in its node.

    The exporter's exceptions name the node but do not hold it; the frame that raised does.
    """
    for cause in causes_of(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            node = frame.f_locals.get("node")
            stack = node.meta.get("nn_module_stack") if isinstance(node, torch.fx.Node) else None
            if stack:
                return _layer_name(str(list(stack.values())[-1][0]))
    return ""
