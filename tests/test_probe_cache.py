from pathlib import Path

import pytest

from autocompress import probe_cache
from autocompress.probe_cache import VARIABLE, Known
from autocompress.probes import ChainProbe, Probe

KNOWN = Known(
    (Probe("int8_static", {"per_channel": True}, 0.4, 0.38, 0.42, 0.27), Probe("other", {}, None, failure="no.")),
    ChainProbe(2, 1000, 500, 32, 0.5, 4000, 0.01),
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "probes"


def test_what_was_written_is_read_again(kept: Path) -> None:
    probe_cache.write("key", KNOWN, pytest.fail)
    assert probe_cache.read("key") == KNOWN
    assert probe_cache.read("other") is None
    assert [path.name for path in kept.iterdir()] == ["key.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"date": "2026-01-01"}', '{"probes": [{}]}'])
def test_a_damaged_file_counts_as_not_there(kept: Path, content: str) -> None:
    probe_cache.write("key", KNOWN, pytest.fail)
    (kept / "key.json").write_text(content)
    assert probe_cache.read("key") is None


def test_off_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    probe_cache.write("key", KNOWN, pytest.fail)
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
    probe_cache.write("key", KNOWN, said.append)
    assert len(said) == 1
    assert said[0].startswith("probes are not kept: ")
