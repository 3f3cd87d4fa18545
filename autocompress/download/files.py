"""Downloads as files: packed from an ONNX file, verified, and unpacked.

Each is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import onnx

from autocompress.core.artifact import Artifact, require_file
from autocompress.download.acz_decoder import DEFAULT_LIMIT, AczError
from autocompress.download.decoder import unpacked_content
from autocompress.download.encoder import packed_content
from autocompress.download.segments import Packed
from autocompress.errors import ArtifactError, UsageError, nearest
from autocompress.runtimes.external_weights import weight_files
from autocompress.runtimes.onnx_file import load_model
from autocompress.runtimes.palette_reading import stored_palettes
from autocompress.system.workspace import write_atomically

SUFFIX = ".acz"
# the decoders that can be copied into an application, by what `--decoder` calls them
DECODERS: Mapping[str, str] = {"python": "acz_decoder.py", "c": "acz_decoder.c"}


def packed_tensors(model: onnx.ModelProto) -> dict[str, Packed]:
    """The tensors of a model that hold whole numbers as digits of words, by name."""
    found: dict[str, Packed] = {}
    for one in stored_palettes(model):
        known = found.get(one.words, Packed(one.digits))
        found[one.words] = Packed(one.digits, {**known.shapes, one.begin: one.palette.shape})
    return found


def download_of(path: Path) -> bytes:
    """The .acz download of an ONNX file; it was decoded once, and what came out is the file.

    Raises:
        ArtifactError: when it is no ONNX file, or has weights in a second file.
    """
    model = load_model(path, with_weights=False)
    if weight_files(model, path):
        raise ArtifactError(
            "has its weights in a second file, and a download holds one.",
            where=str(path),
            hint="Compress both files with zstd instead; in a profile: download: zstd.",
        )
    content = path.read_bytes()
    download = packed_content(content, packed_tensors(model))
    if unpacked_content(download) != content:
        raise ArtifactError("cannot be packed: what is unpacked is another file.", where=str(path), hint="Report it.")
    return download


def download_bytes(artifact: Artifact) -> int:
    """Size of the artifact's .acz download.

    Raises:
        ArtifactError: see `download_of`.
    """
    return len(download_of(artifact.path))


def pack(path: Path, out: Path) -> int:
    """Write the download of an ONNX file; its size in bytes.

    Raises:
        ArtifactError: see `download_of`.
        UsageError: when it cannot be written.
    """
    download = download_of(path)
    write_atomically(out, lambda target: target.write_bytes(download))
    return len(download)


def unpack(path: Path, out: Path, limit: int = DEFAULT_LIMIT) -> int:
    """Write the file that a download holds, byte for byte; its size in bytes.

    Raises:
        ArtifactError: when it is no download, is damaged, or holds more than `limit` bytes.
        UsageError: when the file cannot be written.
    """
    require_file(path)
    try:
        content = unpacked_content(path.read_bytes(), limit)
    except (AczError, OSError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise ArtifactError(
            f"cannot be unpacked: {reason}.", where=str(path), hint="Download it again, or pack it again."
        ) from None
    write_atomically(out, lambda target: target.write_bytes(content))
    return len(content)


def decoder_source(which: str) -> str:
    """The source of a decoder without dependencies, to be copied into an application.

    Raises:
        UsageError: when there is no such decoder.
    """
    if which not in DECODERS:
        raise UsageError(f"there is no decoder {which!r}.", where="--decoder-source", hint=nearest(which, DECODERS))
    return resources.files("autocompress.download").joinpath(DECODERS[which]).read_text(encoding="utf-8")
