"""What is on the shelf, and that each of it inherits the suite of its contract."""

from __future__ import annotations

from pkgutil import iter_modules

# the suites that are looked for are found once their modules are there
import test_accuracy_technique_contract
import test_artifact_technique_contract
import test_packing_technique_contract
import test_recovery_technique_contract
import test_structure_technique_contract

from autocompress import techniques
from autocompress.core.plan import ACCURACY_STAGES, Stage
from autocompress.core.technique import ArtifactTechnique, ModelTechnique, StructureTechnique, Technique
from autocompress.techniques import TECHNIQUES
from autocompress.testing.accuracy_technique_suite import AccuracyTechniqueSuite
from autocompress.testing.artifact_technique_suite import ArtifactTechniqueSuite
from autocompress.testing.packing_technique_suite import PackingTechniqueSuite
from autocompress.testing.recovery_technique_suite import RecoveryTechniqueSuite
from autocompress.testing.structure_technique_suite import StructureTechniqueSuite

MODULES = (
    test_accuracy_technique_contract,
    test_artifact_technique_contract,
    test_packing_technique_contract,
    test_recovery_technique_contract,
    test_structure_technique_contract,
)


def suite_for(technique: type[Technique]) -> type:
    """The suite of the contract that a technique is under."""
    if issubclass(technique, StructureTechnique):
        return StructureTechniqueSuite
    if issubclass(technique, ModelTechnique) and technique.stage is Stage.RECOVERY:
        return RecoveryTechniqueSuite
    assert issubclass(technique, ArtifactTechnique), f"no suite is for techniques like {technique.name}"
    if technique.stage is Stage.PACKING:
        return PackingTechniqueSuite
    return AccuracyTechniqueSuite if technique.stage in ACCURACY_STAGES else ArtifactTechniqueSuite


def suites_of(base: type) -> dict[type[Technique], type]:
    """The classes of tests in this folder that inherit a suite, by the technique that they test."""
    here = {module.__name__ for module in MODULES}
    return {suite.technique: suite for suite in base.__subclasses__() if suite.__module__ in here}


def test_every_technique_inherits_its_suite() -> None:
    for technique in TECHNIQUES:
        suite = suites_of(suite_for(technique)).get(technique)
        assert suite is not None, f"nothing tests {technique.name} against its contract"
        assert suite.__name__.startswith("Test")
    bases = (
        StructureTechniqueSuite,
        RecoveryTechniqueSuite,
        ArtifactTechniqueSuite,
        AccuracyTechniqueSuite,
        PackingTechniqueSuite,
    )
    assert {technique for base in bases for technique in suites_of(base)} == set(TECHNIQUES)


def test_every_technique_in_the_package_is_on_the_shelf() -> None:
    found = {one for one in vars(techniques).values() if isinstance(one, type) and issubclass(one, Technique)}
    assert {one for one in found if one.__module__.startswith(f"{techniques.__name__}.")} == set(TECHNIQUES)
    modules = {module.name for module in iter_modules(techniques.__path__)}
    assert {technique.__module__.rpartition(".")[2] for technique in TECHNIQUES} == modules


def test_names_are_distinct() -> None:
    assert len({technique.name for technique in TECHNIQUES}) == len(TECHNIQUES)
