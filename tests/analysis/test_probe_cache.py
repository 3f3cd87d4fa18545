from pathlib import Path

import pytest

from autocompress.analysis import probe_cache
from autocompress.analysis.probe_cache import VARIABLE, key_of
from autocompress.core.machine import Machine
from autocompress.core.profile import Profile, RuntimeProfile
from autocompress.testing.fakes import MACHINE

VERSIONS = {"onnxruntime": "1.31"}
PROFILE = Profile("here")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "probes"


def test_what_was_written_is_read_again_with_its_date(kept: Path) -> None:
    probe_cache.write("key", {"multiple": 8}, pytest.fail)
    known = probe_cache.read("key")
    assert known is not None
    assert known["multiple"] == 8
    assert len(known["date"]) == 10
    assert probe_cache.read("other") is None
    assert [path.name for path in kept.iterdir()] == ["key.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}"])
def test_a_damaged_file_counts_as_not_there(kept: Path, content: str) -> None:
    probe_cache.write("key", {"multiple": 8}, pytest.fail)
    (kept / "key.json").write_text(content)
    assert probe_cache.read("key") is None


def test_the_key_holds_everything_that_times_depend_on() -> None:
    other_machine = Machine("x86_64", "Another CPU", 2, 4000, ())
    keys = {
        key_of(MACHINE, VERSIONS, PROFILE, ["conv"]),
        key_of(other_machine, VERSIONS, PROFILE, ["conv"]),
        key_of(MACHINE, {"onnxruntime": "1.32"}, PROFILE, ["conv"]),
        key_of(MACHINE, VERSIONS, Profile("here", runtime=RuntimeProfile(threads=2)), ["conv"]),
        key_of(MACHINE, VERSIONS, Profile("here", runtime=RuntimeProfile(options={"a": "1"})), ["conv"]),
        key_of(MACHINE, VERSIONS, PROFILE, ["linear"]),
    }
    assert len(keys) == 6
    # its name is nothing that times depend on
    assert key_of(MACHINE, VERSIONS, Profile("there"), ["conv"]) in keys


def test_off_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    probe_cache.write("key", {"multiple": 8}, pytest.fail)
    assert probe_cache.folder() is None
    assert probe_cache.read("key") is None


def test_without_a_variable_it_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert probe_cache.folder() == tmp_path / "autocompress" / "probes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert probe_cache.folder() == Path.home() / ".cache" / "autocompress" / "probes"


def test_a_folder_that_cannot_be_written_is_told_of_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    said: list[str] = []
    probe_cache.write("key", {"multiple": 8}, said.append)
    assert len(said) == 1
    assert said[0].startswith("probes are not kept: ")
