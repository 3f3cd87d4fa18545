"""Writes the report files of a run, each whole or not at all."""

from __future__ import annotations

from autocompress.report.frame import trials_frame
from autocompress.report.html import html_report
from autocompress.run.result import Result
from autocompress.system.workspace import Workspace, write_json, write_text


def write_files(result: Result) -> None:
    """Write result.json, trials.csv, report.html and, when the holdout was looked at, certificate.json.

    plan.yaml and the model are there already: `autocompress.run.answer` writes them.
    """
    workspace = Workspace(result.folder)
    write_text(workspace.path("trials.csv"), trials_frame(result.history, result.names).to_csv(index=False))
    certificate = workspace.path("certificate.json")
    if result.certificate is not None:
        write_json(certificate, dict(result.certificate))
    else:
        # a certificate of an earlier answer in this folder would certify another file
        certificate.unlink(missing_ok=True)
    write_text(workspace.path("report.html"), html_report(result))
    write_json(workspace.path("result.json"), result.to_json())
