"""Fixtures that the contract suites ask for; import them in a conftest.py."""

from __future__ import annotations

import pytest

from autocompress.core.profile import Profile, Protocol
from autocompress.core.runtime import Example, Runtime
from autocompress.testing.networks import Exported, Exports, labelled, small_model


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Small models by runtime, name and what stays in float, each exported once a session."""
    made: dict[tuple[str, str, tuple[str, ...]], Exported] = {}

    def export(runtime: Runtime, name: str, keep_float: tuple[str, ...] = ()) -> Exported:
        key = (runtime.name, name, keep_float)
        if key not in made:
            module, example = small_model(name), Example(labelled(name, 4)[0])
            folder = tmp_path_factory.mktemp(f"{runtime.name}-{name}")
            artifact = runtime.export(module, example, folder / f"{name}{runtime.suffix}", keep_float)
            made[key] = Exported(module, example, artifact)
        return made[key]

    return export


@pytest.fixture
def brief_profile() -> Profile:
    """A profile of this machine with one thread and measurements of at most half a second."""
    return Profile("brief", protocol=Protocol(max_seconds=0.5, precision=0.05))
