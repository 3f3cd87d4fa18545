"""Fixtures of all tests, and what keeps tests apart from each other."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest

# workers share the cores: with one thread each they train small networks ten times as fast as with all threads, which
# wait for one another; set before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # the locks that keep measurements apart lie in the temporary folder: the tests of one worker need not wait for
    # those of another, since no figure of theirs is reported
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="autocompress-tests-")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)

# suites are not test files by name; their assertions should explain themselves all the same
pytest.register_assert_rewrite("autocompress.testing", "pruned_at_random")

from autocompress.testing.fixtures import brief_profile, exports  # noqa: E402 - after they were registered

__all__ = ["brief_profile", "exports"]

# probes of another test, or of this machine's user, are not this test's
os.environ["AUTOCOMPRESS_CACHE"] = "off"
# looks of another test are not this test's, and none is one of this user's
os.environ["AUTOCOMPRESS_STATE"] = "off"
