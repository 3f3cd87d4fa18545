"""Values inside an ONNX graph, observed while it runs on some items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from autocompress.core.artifact import Artifact
from autocompress.core.source import Array
from autocompress.runtimes.onnx_file import load_model
from autocompress.system.scratch import scratch


def observed(
    artifact: Artifact, names: Sequence[str], feeds: Iterable[Mapping[str, Array]]
) -> Iterator[Mapping[str, Array]]:
    """The values of these names for one feed after the other; stored tensors are left out."""
    graph = load_model(artifact.path, with_weights=False).graph
    made = {name for node in graph.node for name in node.output}
    inside = [name for name in dict.fromkeys(names) if name in made]
    session = _session(artifact, inside)
    for feed in feeds:
        found = zip(inside, session.run(inside, dict(feed)), strict=True) if inside else ()
        given = {name: feed[name] for name in names if name in feed}
        # sequences of tensors are no arrays
        yield given | {name: value for name, value in found if isinstance(value, np.ndarray)}


def _session(artifact: Artifact, names: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session that gives these values too."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with scratch("observing") as folder:
        copied = artifact.copy_to(folder / artifact.entry)
        model = load_model(copied.path, with_weights=False)
        given = {value.name for value in (*model.graph.input, *model.graph.output)}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
        copied.path.write_bytes(model.SerializeToString())
        return onnxruntime.InferenceSession(str(copied.path), settings, providers=["CPUExecutionProvider"])
