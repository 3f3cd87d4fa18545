"""Fixtures of all tests, and what keeps tests apart from each other."""

from __future__ import annotations

import os

import pytest

# suites are not test files by name; their assertions should explain themselves all the same
pytest.register_assert_rewrite("autocompress.testing", "pruned_at_random")

from autocompress.testing.fixtures import brief_profile, exports  # noqa: E402 - after they were registered

__all__ = ["brief_profile", "exports"]

# probes of another test, or of this machine's user, are not this test's
os.environ["AUTOCOMPRESS_CACHE"] = "off"
# looks of another test are not this test's, and none is one of this user's
os.environ["AUTOCOMPRESS_STATE"] = "off"
