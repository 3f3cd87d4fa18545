"""What a run shows and leaves behind."""

from __future__ import annotations

from autocompress.report.files import write_files

__all__ = ["write_files"]
