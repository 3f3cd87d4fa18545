"""The toy runtime for the measuring program."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime


class Backend:
    version = "1"

    def __init__(self, threads: int, options: dict[str, str]) -> None:
        self._settings = onnxruntime.SessionOptions()
        self._settings.intra_op_num_threads = threads

    def load(self, artifact: str) -> Callable[[dict[str, Any]], list[Any]]:
        content = Path(artifact).read_bytes()[4:]
        session = onnxruntime.InferenceSession(content, self._settings, providers=["CPUExecutionProvider"])
        return partial(session.run, None)
