"""The runtimes that ship."""

from __future__ import annotations

from autocompress.core.runtime import Runtime
from autocompress.runtimes.onnxruntime import OnnxRuntime

RUNTIMES: tuple[type[Runtime], ...] = (OnnxRuntime,)

__all__ = ["RUNTIMES", "OnnxRuntime"]
