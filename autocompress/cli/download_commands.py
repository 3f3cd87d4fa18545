"""`autocompress pack` and `unpack`: an ONNX file as an entropy-coded download, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autocompress.core.artifact import BYTES_PER_MB
from autocompress.errors import UsageError


def pack(
    artifact: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="An ONNX file.")],
    out: Annotated[Path | None, typer.Option("--out", help="Default: FILE.onnx.acz.", metavar="FILE")] = None,
) -> None:
    """Pack an ONNX file for download: entropy-coded, smaller than with zstd; see docs/download.md."""
    from autocompress.download import files

    target = out or artifact.with_name(artifact.name + files.SUFFIX)
    _require_another(artifact, target)
    size = files.pack(artifact, target)
    share = size / artifact.stat().st_size
    typer.echo(f"{target}: {size / BYTES_PER_MB:.3f} MB, {share:.3f} of {artifact}")


def unpack(
    download: Annotated[Path | None, typer.Argument(metavar="FILE.acz", help="A download.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Default: FILE without .acz.", metavar="FILE")] = None,
    decoder_source: Annotated[
        str | None,
        typer.Option(
            "--decoder-source", help="Print a decoder to copy into an app instead: python, c.", metavar="NAME"
        ),
    ] = None,
) -> None:
    """Rebuild the file that a download holds, byte for byte; or print the source of a decoder."""
    from autocompress.download import files

    if decoder_source is not None:
        typer.echo(files.decoder_source(decoder_source), nl=False)
        return
    if download is None:
        raise UsageError("nothing to unpack.", where="unpack", hint="Give the path of an .acz file.")
    if out is None and download.suffix != files.SUFFIX:
        raise UsageError(f"does not end in {files.SUFFIX}.", where=str(download), hint="Name the new file with --out.")
    target = out or download.with_suffix("")
    _require_another(download, target)
    size = files.unpack(download, target)
    typer.echo(f"{target}: {size / BYTES_PER_MB:.3f} MB")


def _require_another(source: Path, target: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError("would be written over itself.", where=str(source), hint="Give another file with --out.")
