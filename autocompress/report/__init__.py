"""Reports: what a run prints, and the files it writes."""

from __future__ import annotations

from autocompress.report.files import write_files
from autocompress.report.frame import trials_frame

__all__ = ["trials_frame", "write_files"]
