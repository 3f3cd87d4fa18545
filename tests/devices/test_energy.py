from __future__ import annotations

from pathlib import Path

import pytest

from autocompress.devices.meter.program import energy_between, energy_counters, read_energy


def zone(folder: Path, place: str, name: str, used: str, limit: str = "1000") -> Path:
    """A power zone as Linux shows it."""
    (folder / place).mkdir(parents=True)
    for file, content in (("name", name), ("energy_uj", used), ("max_energy_range_uj", limit)):
        (folder / place / file).write_text(content + "\n")
    return folder / place


def test_packages_are_read_and_the_zones_inside_them_are_not(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", "100")
    zone(tmp_path, "intel-rapl:0:0", "core", "90")
    zone(tmp_path, "intel-rapl:1", "package-1", "7", "50")
    (tmp_path / "intel-rapl").mkdir()
    counters = energy_counters(str(tmp_path))
    assert read_energy(counters) == [100, 7]
    assert [limit for _, limit in counters] == [1000, 50]


def test_what_may_not_be_read_is_no_counter(tmp_path: Path) -> None:
    # a folder in its place cannot be read by anybody, the superuser included
    secret = zone(tmp_path, "intel-rapl:0", "package-0", "100") / "energy_uj"
    secret.unlink()
    secret.mkdir()
    assert energy_counters(str(tmp_path)) == []
    assert energy_counters(str(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("before", "after", "used"), [([5, 1], [9, 4], 7), ([998, 0], [3, 0], 6), ([1000, 0], [0, 0], 1)]
)
def test_a_counter_that_began_anew_goes_on(before: list[int], after: list[int], used: int) -> None:
    assert energy_between(before, after, [("a", 1000), ("b", 50)]) == used


def test_without_counters_nothing_is_used() -> None:
    assert energy_between([], read_energy([]), []) == 0
