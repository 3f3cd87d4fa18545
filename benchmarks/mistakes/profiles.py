"""Mistakes in profiles and budgets."""

from __future__ import annotations

from mistakes.kinds import PROFILE, Mistake


def _file(what: str, text: str, *says: str) -> Mistake:
    return Mistake(what, says, files={"mine.yaml": text})


def _flag(what: str, flag: str, value: str, *says: str) -> Mistake:
    return Mistake(what, (f"{flag}: ", *says), more=(flag, value))


PROFILES = (
    _file("a tab", "name: mine\nbudgets:\n\tsize_mb: 0.5x\n", "mine.yaml, line 3", "Indent with spaces"),
    _file("an unknown key", f"{PROFILE}thread: 2\n", "no key 'thread'", "Known: name"),
    _file("a list of budgets", "name: mine\nbudgets:\n  - size_mb: 0.5x\n", "budgets: should be keys with values"),
    _file("an empty file", "", "mine.yaml: is not a profile", "name:"),
    _file("a budget beside the budgets", "name: mine\nsize_mb: 0.5x\n", "no key 'size_mb'", "below budgets:"),
    _file("no name", "budgets: {size_mb: 0.5x}\n", "mine.yaml: name: is missing", "Add name:"),
    _file("threads in words", f"{PROFILE}runtime: {{threads: all}}\n", "runtime.threads: should be a whole number"),
    _file("no threads", f"{PROFILE}runtime: {{threads: 0}}\n", "runtime.threads", "greater than or equal to 1"),
    _file("an unknown runtime", f"{PROFILE}runtime: {{name: tflite}}\n", "no runtime named 'tflite'", "onnxruntime"),
    _file("an unknown connection", f"{PROFILE}device: {{connection: usb}}\n", "by 'usb'", "Known: local"),
    _file("confidence in percent", f"{PROFILE}confidence: 95\n", "confidence: should be less than 1, not 95"),
    _file("a statistic by another name", f"{PROFILE.replace('{max', '{statistic: median, max')}", "'p50'", "'median'"),
    _file("a key that stands twice", f"{PROFILE}budgets: {{size_mb: 1}}\n", "the key 'budgets' stands twice"),
    _file("no budget", "name: mine\n", "sets no budget", "--latency-ms 0.5x"),
    _file(
        "a budget with its unit", "name: mine\nbudgets: {size_mb: 5 MB}\n", "'5 MB' is not a limit", "a number of MB"
    ),
    _file("a budget without a limit", "name: mine\nbudgets: {latency_ms: }\n", "None is not a limit", "a number of ms"),
    _file("one text in place of a list", f"{PROFILE}keep_float: fc\n", "keep_float: should be a list"),
    _file("a pattern of no layer", f"{PROFILE}keep_float: [head*]\n", "no layer named 'head*'", "inspect"),
    _file("a number in place of a shape", f"{PROFILE}inputs: {{x: 8}}\n", "inputs.x: is no shape", "[1, 128]"),
    Mistake(
        "a profile that is not there", ("my.yaml: there is no such profile", "local"), options={"--profile": "my.yaml"}
    ),
)
BUDGETS = (
    _flag("percent in place of a share", "--size-mb", "50%", "'50%' is not a limit", "0.5x"),
    _flag("a number with its unit", "--size-mb", "5MB", "'5MB' is not a limit", "a number of MB"),
    _flag("a comma", "--size-mb", "0,5x", "'0,5x' is not a limit"),
    _flag("a negative time", "--latency-ms", "-1", "at least 0, not -1"),
    _flag("not a number", "--latency-ms", "nan", "at least 0, not nan"),
    _flag("a size of 0", "--size-mb", "0", "can never be met"),
    _flag("a drop of 200 points", "--max-accuracy-drop-pp", "200", "at most 100, not 200"),
    _flag("a drop as a share", "--max-accuracy-drop-pp", "0.99x", "cannot be a share", "give it in pp"),
    _flag("an accuracy between 0 and 1", "--min-accuracy", "0.92", "given in percent", "Write 92"),
)
