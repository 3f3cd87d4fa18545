"""ONNX Runtime for the measuring program, which loads this file by its path."""

from collections.abc import Callable
from functools import partial
from typing import Any

import onnxruntime

Feed = dict[str, Any]


class Backend:
    """Sessions of one runtime with given threads and options; `version` is the runtime's."""

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
        """What calls the artifact: arrays by input name in, a list of output arrays out.

        Whoever lets go of it frees the artifact.
        """
        session = onnxruntime.InferenceSession(artifact, self._settings, providers=["CPUExecutionProvider"])
        return partial(session.run, None)
