import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.core.machine import Fingerprint, Machine

PI_5 = Machine(
    arch="aarch64",
    cpu_model="Cortex-A76",
    cores=4,
    memory_mb=8_450,
    features=("fp16", "int8_dot_product", "neon"),
    board="Raspberry Pi 5 Model B Rev 1.0",
    system="Linux",
)
FITTING = Fingerprint(
    arch="aarch64",
    cpu_model="cortex-a76",
    board="raspberry pi 5",
    cores=4,
    min_memory_mb=8_000,
    features=("fp16", "neon"),
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
MACHINES = st.builds(
    Machine,
    arch=st.sampled_from(["x86_64", "aarch64", "armv7l"]),
    cpu_model=WORDS,
    cores=st.integers(1, 256),
    memory_mb=st.integers(1, 10**7),
    features=st.lists(WORDS, max_size=4).map(tuple),
    board=WORDS,
    system=WORDS,
)


def test_a_machine_that_has_every_fact_fits() -> None:
    assert FITTING.mismatches(PI_5) == []


def test_an_open_fingerprint_fits_any_machine() -> None:
    assert Fingerprint().mismatches(PI_5) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(PI_5, arch="armv7l"), "architecture aarch64, here armv7l"),
        (replace(PI_5, cpu_model="Cortex-A72"), "CPU 'cortex-a76', here 'Cortex-A72'"),
        (
            replace(PI_5, board="Raspberry Pi 4 Model B"),
            "board 'raspberry pi 5', here 'Raspberry Pi 4 Model B'",
        ),
        (replace(PI_5, board=""), "board 'raspberry pi 5', here 'none reported'"),
        (replace(PI_5, cores=6), "4 cores, here 6"),
        (replace(PI_5, memory_mb=7_999), "at least 8000 MB of memory, here 7999"),
        (replace(PI_5, features=("neon",)), "features fp16, absent here"),
        (replace(PI_5, features=()), "features fp16, neon, absent here"),
    ],
)
def test_each_fact_that_differs_is_said_in_one_clause(other: Machine, said: str) -> None:
    assert FITTING.mismatches(other) == [said]


def test_every_fact_that_differs_is_said() -> None:
    other = Machine("x86_64", "AMD EPYC", 2, 4_000, ("avx2",))
    assert len(FITTING.mismatches(other)) == 6


def test_more_memory_and_features_fit_but_more_cores_do_not() -> None:
    assert FITTING.mismatches(replace(PI_5, memory_mb=8_000)) == []
    assert FITTING.mismatches(replace(PI_5, memory_mb=16_000)) == []
    assert FITTING.mismatches(replace(PI_5, features=(*PI_5.features, "i8mm"))) == []
    assert FITTING.mismatches(replace(PI_5, cores=8)) != []


def test_the_fingerprint_leaves_out_the_memory() -> None:
    assert replace(PI_5, memory_mb=8_449).fingerprint == PI_5.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(PI_5, arch="armv7l"),
        replace(PI_5, cpu_model="Cortex-A72"),
        replace(PI_5, cores=3),
        replace(PI_5, features=("neon",)),
        replace(PI_5, board="Raspberry Pi 500"),
        replace(PI_5, system="Android"),
    ],
)
def test_the_fingerprint_changes_with_every_other_fact(other: Machine) -> None:
    assert other.fingerprint != PI_5.fingerprint


def test_a_machine_names_its_board_before_its_cpu() -> None:
    assert str(PI_5) == "Raspberry Pi 5 Model B Rev 1.0, aarch64, 4 cores, 8.4 GB"
    assert str(replace(PI_5, board="")).startswith("Cortex-A76, ")
    assert str(replace(PI_5, board="", cpu_model="")).startswith("aarch64, ")


@settings(deadline=None)
@given(MACHINES)
def test_a_machine_survives_json_with_its_fingerprint(machine: Machine) -> None:
    read = Machine.from_json(json.loads(json.dumps(asdict(machine))))
    assert read == machine
    assert read.fingerprint == machine.fingerprint
    assert len(machine.fingerprint) == 16


@settings(deadline=None)
@given(MACHINES, MACHINES)
def test_a_machine_fits_its_own_facts_and_no_machine_that_differs_in_one(one: Machine, other: Machine) -> None:
    own = Fingerprint(arch=one.arch, cores=one.cores, features=one.features)
    assert own.mismatches(one) == []
    same = other.arch == one.arch and other.cores == one.cores and set(one.features) <= set(other.features)
    assert (own.mismatches(other) == []) is same
