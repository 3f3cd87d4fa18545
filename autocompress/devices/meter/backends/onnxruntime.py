"""The ONNX Runtime backend of the measuring program, which loads this file by its path."""

from collections.abc import Callable
from functools import partial
from typing import Any

import onnxruntime

Feed = dict[str, Any]


class Backend:
    """Loads artifacts in ONNX Runtime with given threads and options; `version` is the runtime's."""

    version: str = onnxruntime.__version__

    def __init__(self, threads: int, options: dict[str, str]) -> None:
        self._settings = onnxruntime.SessionOptions()
        self._settings.intra_op_num_threads = threads
        self._settings.inter_op_num_threads = 1
        self._settings.log_severity_level = 3
        # threads that spin after a call would take time from the other artifact's process
        self._settings.add_session_config_entry("session.force_spinning_stop", "1")
        for key, value in options.items():
            self._settings.add_session_config_entry(key, value)

    def load(self, artifact: str) -> Callable[[Feed], list[Any]]:
        """Load an artifact and return a function that runs it: arrays by input name in, a list of arrays out.

        The artifact is freed when the function is deleted.
        """
        session = onnxruntime.InferenceSession(artifact, self._settings, providers=["CPUExecutionProvider"])
        return partial(session.run, None)
