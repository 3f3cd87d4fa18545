"""The verdicts of `autocompress check` as JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from autocompress.run.gate import Check, Grade


def junit(checks: Sequence[Check]) -> str:
    """A JUnit XML file with a suite per profile and a case per budget.

    A warning is a case that passed, with a message.
    """
    root = ElementTree.Element("testsuites", name="autocompress")
    for check in checks:
        failed = sum(one.grade is Grade.FAILED for one in check.graded)
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_plain(f"autocompress.{check.artifact.path.name}.{check.profile}"),
            tests=str(max(1, len(check.graded))),
            failures=str(failed if check.graded else 1),
            errors="0",
        )
        for one in check.graded:
            case = ElementTree.SubElement(
                suite, "testcase", name=_plain(one.finding.asked), classname=_plain(check.profile)
            )
            words = _plain(". ".join(text for text in (one.finding.sentence, one.why, one.rule.message) if text))
            if one.grade is Grade.FAILED:
                ElementTree.SubElement(case, "failure", message=words, type=str(one.finding.standing))
            else:
                ElementTree.SubElement(case, "system-out").text = f"{one.grade}: {words}"
        if not check.graded:
            case = ElementTree.SubElement(suite, "testcase", name="budgets", classname=_plain(check.profile))
            ElementTree.SubElement(case, "failure", message="no budget was set", type="unmeasured")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    """The text without control characters, which XML 1.0 does not allow, escaped or not."""
    return "".join(c if c in "\t\n" or (ord(c) >= 32 and c not in "￾￿") else "?" for c in text)
