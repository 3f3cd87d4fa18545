"""What techniques share that tune the numbers of a quantized file by its simulation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import onnx

from autocompress.core.artifact import Artifact
from autocompress.core.source import Split
from autocompress.core.technique import Context
from autocompress.errors import TechniqueError
from autocompress.runtimes.onnx_file import compact, save_model
from autocompress.simulation.graph_module import GraphModule

Part = TypeVar("Part")


def calibration_and_float_file(context: Context, name: str) -> tuple[Split, Artifact]:
    """The calibration items and the file before quantization, which a technique of this name needs.

    Raises:
        TechniqueError: when one of them is missing.
    """
    if context.calibration is None:
        raise TechniqueError("needs calibration data, and there are none.", where=name)
    if context.unquantized is None:
        raise TechniqueError("needs the float file from which this one was quantized.", where=name)
    return context.calibration, context.unquantized


def in_turn(
    parts: Sequence[Part], on_step: Callable[[int, int, float], None], steps_of_each: int = 1
) -> Iterator[Part]:
    """The parts one after the other, each told to `on_step` (see `Context`) when it is done."""
    began = time.monotonic()
    for done, part in enumerate(parts, start=1):
        yield part
        left = (time.monotonic() - began) / done * (len(parts) - done)
        on_step(done * steps_of_each, len(parts) * steps_of_each, left)


def save_tuned(module: GraphModule, model: onnx.ModelProto, before: Artifact, context: Context, name: str) -> Artifact:
    """Write the simulation's numbers into a copy of the model, a file in the context's folder."""
    return save_model(compact(module.write_to(model)), context.folder / f"{name}-{before.hash[:8]}.onnx")
