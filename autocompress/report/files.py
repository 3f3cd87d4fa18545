"""The files of a run, each written whole or not at all."""

from __future__ import annotations

from autocompress.report.frame import trials_frame
from autocompress.report.html import html_report
from autocompress.run.result import Result
from autocompress.system.workspace import Workspace, write_json, write_text


def write_files(result: Result) -> None:
    """result.json, certificate.json (when the holdout was looked at), trials.csv and report.html.

    plan.yaml and the model stand there already: the conclusion writes them.
    """
    workspace = Workspace(result.folder)
    write_text(workspace.path("trials.csv"), trials_frame(result.history, result.names).to_csv(index=False))
    certificate = workspace.path("certificate.json")
    if result.certificate is not None:
        write_json(certificate, dict(result.certificate))
    else:
        # one of an earlier answer in this folder would vouch for another file
        certificate.unlink(missing_ok=True)
    write_text(workspace.path("report.html"), html_report(result))
    write_json(workspace.path("result.json"), result.to_json())
