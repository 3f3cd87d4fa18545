"""A runtime in one file, with a file of the meter beside it: ONNX graphs behind a word of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import torch

from autocompress.core.artifact import Artifact, require_file
from autocompress.core.runtime import Contents, Example, Runtime, Session
from autocompress.core.source import Array
from autocompress.errors import ArtifactError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import describe
from autocompress.system.scratch import scratch
from autocompress.system.workspace import write_atomically

WORD = b"TOY!"


class ToySession(Session):
    def __init__(self, content: bytes) -> None:
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
        return tuple(np.asarray(output) for output in self._session.run(None, dict(inputs)))


class ToyRuntime(Runtime):
    name: ClassVar[str] = "toy_runtime"
    format: ClassVar[str] = "toy"
    suffix: ClassVar[str] = ".toy"
    meter_backend: ClassVar[Path] = Path(__file__).with_name("toy_backend.py")

    def export(
        self,
        module: torch.nn.Module,
        example: Example,
        destination: Path,
        keep_float: Sequence[str] = (),
        *,
        named: bool = False,
    ) -> Artifact:
        with scratch("toy") as folder:
            made = OnnxRuntime().export(module, example, folder / "model.onnx", keep_float)
            content = WORD + made.path.read_bytes()
        write_atomically(destination, lambda target: target.write_bytes(content))
        return self.read(destination)

    def without_names(self, artifact: Artifact, destination: Path) -> Artifact:
        return artifact.copy_to(destination)

    def read(self, path: Path) -> Artifact:
        require_file(path)
        if not path.read_bytes().startswith(WORD):
            raise ArtifactError("is no toy.", where=str(path))
        return replace(describe(onnx.load_from_string(self._content(path)), path), format=self.format)

    def _content(self, path: Path) -> bytes:
        return path.read_bytes().removeprefix(WORD)

    def load(self, artifact: Artifact, threads: int, options: Mapping[str, str]) -> Session:
        return ToySession(self._content(artifact.path))

    def contents(self, artifact: Artifact) -> Contents:
        weights = onnx.load_from_string(self._content(artifact.path)).graph.initializer
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in weights]
        return Contents(sum(a.size for a in arrays), sum(int(np.count_nonzero(a)) for a in arrays), {})

    def largest_tensors(self, artifact: Artifact) -> Sequence[tuple[str, int]]:
        return ()

    def slowest_operators(
        self, artifact: Artifact, inputs: Mapping[str, Array], threads: int, options: Mapping[str, str]
    ) -> Sequence[tuple[str, str, float]]:
        return ()

    @property
    def versions(self) -> Mapping[str, str]:
        return {self.name: "1"}
