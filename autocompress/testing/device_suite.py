"""Contract suite for devices: inherit `DeviceSuite` in a class named `Test...` and set `device`.

Nothing here compares times that lie close together: machines are noisy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from onnx import helper

from autocompress.core.artifact import Artifact
from autocompress.core.budget import Budget
from autocompress.core.device import Device, require_described
from autocompress.core.machine import Fingerprint
from autocompress.core.measurement import Measurement
from autocompress.core.profile import DeviceProfile, Profile, Protocol
from autocompress.core.runtime import Example, align
from autocompress.devices import device_of
from autocompress.errors import DataError, DeviceError, FreeDimensionError, RuntimeFailureError
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.onnx_file import save_model
from autocompress.testing.networks import Exported, Exports, labelled, onnx_model, token_model


def heavy_artifact(path: Path, width: int = 1024, layers: int = 6) -> Artifact:
    """An artifact with `layers` times `width` squared multiply-accumulates, and four bytes for each."""
    generator = np.random.default_rng(0)
    names = ["input", *(f"hidden{i}" for i in range(layers - 1)), "output"]
    nodes = [
        helper.make_node("MatMul", [names[i], f"weight{i}"], [names[i + 1]], name=f"layer{i}") for i in range(layers)
    ]
    scale = width**-0.5
    weights = {
        f"weight{i}": (generator.standard_normal((width, width)) * scale).astype(np.float32) for i in range(layers)
    }
    shape = ("batch", width)
    return save_model(onnx_model(nodes, {"input": shape}, {"output": shape}, weights), path)


def failing_artifact(path: Path) -> Artifact:
    """An artifact that gives NaN for any input."""
    nodes = [
        helper.make_node("Sub", ["input", "input"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["output"]),
    ]
    shape = ("batch", 4)
    return save_model(onnx_model(nodes, {"input": shape}, {"output": shape}, {}), path)


class DeviceSuite:
    """Tests of the contract of `Device`."""

    device: ClassVar[type[Device]]
    connection: ClassVar[str]

    @classmethod
    def connected(cls) -> Device:
        return cls.device.connect(cls.connection, OnnxRuntime())

    @pytest.fixture
    def mlp(self, exports: Exports) -> Exported:
        return exports(OnnxRuntime(), "mlp")

    @pytest.fixture
    def transformer(self, exports: Exports) -> Exported:
        return exports(OnnxRuntime(), "transformer")

    @pytest.fixture(scope="class")
    @classmethod
    def heavy(cls, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
        return heavy_artifact(tmp_path_factory.mktemp("heavy") / "heavy.onnx")

    @pytest.fixture(scope="class")
    @classmethod
    def compared(cls, exports: Exports, heavy: Artifact) -> list[Measurement]:
        """Measurements of a heavy artifact and a tiny one, taken together."""
        profile = Profile("brief", protocol=Protocol(max_seconds=1.0))
        return cls.connected().measure([heavy, exports(OnnxRuntime(), "mlp").artifact], profile)

    # the connection

    def test_a_profile_reaches_it_by_its_connection(self) -> None:
        profile = Profile("there", DeviceProfile(connection=self.connection))
        device = device_of(profile, OnnxRuntime())
        assert type(device) is self.device
        assert self.connection.partition("://")[0] == self.device.scheme
        assert device.machine().fingerprint == self.connected().machine().fingerprint

    # the machine

    def test_the_machine_tells_what_it_is(self) -> None:
        machine = self.connected().machine()
        assert machine.arch
        assert machine.cores >= 1
        assert machine.memory_mb > 100
        assert machine.system

    def test_the_machine_stays_the_same(self) -> None:
        assert self.connected().machine().fingerprint == self.connected().machine().fingerprint

    def test_the_machine_that_the_profile_describes_is_accepted(self) -> None:
        device = self.connected()
        machine = device.machine()
        marks = Fingerprint(arch=machine.arch, cpu_model=machine.cpu_model.upper(), cores=machine.cores)
        profile = Profile("here", DeviceProfile(fingerprint=marks))
        assert require_described(device, profile) == machine

    def test_a_profile_without_fingerprint_accepts_any_machine(self) -> None:
        device = self.connected()
        assert require_described(device, Profile("any")) == device.machine()

    def test_another_machine_than_the_described_one_is_refused(self) -> None:
        device = self.connected()
        marks = Fingerprint(arch="riscv64", features=("warp_drive",), cores=device.machine().cores)
        with pytest.raises(DeviceError, match="describes another machine") as caught:
            require_described(device, Profile("elsewhere", DeviceProfile(fingerprint=marks)))
        assert caught.value.exit_code == 4
        assert caught.value.where == "profile elsewhere"
        assert "riscv64" in caught.value.message
        assert "warp_drive" in caught.value.message
        assert "cores" not in caught.value.message

    # measuring

    def test_latency_comes_in_blocks_of_calls(self, compared: list[Measurement]) -> None:
        for measurement in compared:
            reading = measurement.readings["latency_ms"]
            assert reading.unit == "ms"
            assert reading.samples.ndim == 2
            assert reading.samples.dtype == np.float64
            assert reading.samples.shape[1] >= 2
            assert (reading.samples > 0).all()
            assert np.isfinite(reading.samples).all()

    def test_artifacts_measured_together_get_as_many_blocks_each(self, compared: list[Measurement]) -> None:
        heavy, tiny = (measurement.readings["latency_ms"].samples for measurement in compared)
        assert len(heavy) == len(tiny)
        assert len(heavy) >= 2

    def test_a_thousand_times_the_work_takes_longer(self, compared: list[Measurement]) -> None:
        heavy, tiny = (measurement.readings["latency_ms"].statistic("p50") for measurement in compared)
        assert heavy > 3 * tiny

    def test_more_weights_take_more_memory(self, compared: list[Measurement]) -> None:
        heavy, tiny = (measurement.readings["memory_mb"] for measurement in compared)
        assert heavy.unit == tiny.unit == "MB"
        # no budget asks for it, so one process does
        assert heavy.samples.shape == tiny.samples.shape == (1,)
        assert tiny.value > 0
        # the weights alone are 25 MB
        assert heavy.value > tiny.value + 15

    def test_throughput_is_what_the_streams_reach_together(self, heavy: Artifact, mlp: Exported) -> None:
        limited = Profile("busy", protocol=Protocol(max_seconds=1.0, streams=2, batch=3))
        limited = replace(limited, budgets=(Budget("throughput_per_s", 1.0),))
        found = self.connected().measure([heavy, mlp.artifact], limited)
        slow, quick = (measurement.readings["throughput_per_s"] for measurement in found)
        for reading, measurement in zip((slow, quick), found, strict=True):
            latency = measurement.readings["latency_ms"]
            assert reading.unit == "items/s"
            assert reading.samples.shape == (len(latency.samples), 1)
            assert reading.loads is not None
            assert latency.loads is not None
            assert reading.loads.tolist() == latency.loads.tolist()
        assert quick.statistic("p50") > 3 * slow.statistic("p50")
        # two callers are not a hundred times as fast or slow as one
        one = 3 * 1000 / found[0].readings["latency_ms"].statistic("p50")
        assert one / 100 < slow.statistic("p50") < 100 * one

    def test_throughput_is_measured_only_where_it_is_limited_or_asked_for(
        self, mlp: Exported, brief_profile: Profile
    ) -> None:
        (plain,) = self.connected().measure([mlp.artifact], brief_profile)
        assert "throughput_per_s" not in plain.readings
        (asked,) = self.connected().measure([mlp.artifact], brief_profile, also=("throughput_per_s",))
        assert (asked.readings["throughput_per_s"].samples > 0).all()

    @pytest.mark.parametrize(("confidence", "processes"), [(0.95, 5), (0.99, 7)])
    def test_memory_with_a_budget_is_taken_in_as_many_processes_as_an_interval_takes(
        self, mlp: Exported, brief_profile: Profile, confidence: float, processes: int
    ) -> None:
        limited = replace(brief_profile, budgets=(Budget("memory_mb", 1.0),), confidence=confidence)
        (measurement,) = self.connected().measure([mlp.artifact], limited)
        peaks = measurement.readings["memory_mb"].samples
        assert peaks.shape == (processes,)
        assert (peaks > 0).all()
        # each process did the same
        assert peaks.max() < 2 * peaks.min()

    def test_memory_is_repeated_where_it_is_asked_for(self, mlp: Exported, brief_profile: Profile) -> None:
        (measurement,) = self.connected().measure([mlp.artifact], brief_profile, also=("memory_mb",))
        assert measurement.readings["memory_mb"].samples.shape == (5,)

    def test_conditions_say_what_was_measured_and_how(self, mlp: Exported) -> None:
        device = self.connected()
        profile = Profile("brief", protocol=Protocol(batch=3, max_seconds=0.3))
        profile = replace(profile, runtime=replace(profile.runtime, threads=2))
        (measurement,) = device.measure([mlp.artifact], profile)
        conditions = measurement.conditions
        assert conditions is not None
        assert conditions.artifact_hash == mlp.artifact.hash
        assert (conditions.runtime, conditions.threads, conditions.batch) == ("onnxruntime", 2, 3)
        assert conditions.machine == str(device.machine())
        assert conditions.versions["onnxruntime"] == OnnxRuntime().versions["onnxruntime"]

    def test_a_small_file_is_loaded_anew_for_every_block(self, mlp: Exported, brief_profile: Profile) -> None:
        (measurement,) = self.connected().measure([mlp.artifact], brief_profile)
        conditions = measurement.conditions
        assert conditions is not None
        reading = measurement.readings["latency_ms"]
        assert conditions.loads == len(reading.samples) + conditions.dropped_blocks > 1
        assert reading.loads is not None
        assert (np.diff(reading.loads) > 0).all()

    def test_artifacts_measured_together_share_the_numbers_of_their_loads(self, compared: list[Measurement]) -> None:
        heavy, tiny = (measurement.readings["latency_ms"].loads for measurement in compared)
        assert heavy is not None
        assert tiny is not None
        assert heavy.tolist() == tiny.tolist()

    def test_each_artifact_has_its_own_conditions(self, compared: list[Measurement], heavy: Artifact) -> None:
        hashes = [measurement.conditions.artifact_hash for measurement in compared if measurement.conditions]
        assert hashes[0] == heavy.hash
        assert len(set(hashes)) == 2

    def test_a_precise_reading_ends_before_the_time_is_up(self, mlp: Exported) -> None:
        patient = Profile("patient", protocol=Protocol(precision=0.9, max_seconds=120.0))
        (measurement,) = self.connected().measure([mlp.artifact], patient)
        assert len(measurement.readings["latency_ms"].samples) < 100

    def test_an_unreachable_precision_ends_when_the_time_is_up(self, mlp: Exported) -> None:
        profile = Profile("strict", protocol=Protocol(precision=1e-9, max_seconds=1000.0))
        (measurement,) = self.connected().measure([mlp.artifact], profile, max_seconds=0.3)
        assert 1 <= len(measurement.readings["latency_ms"].samples) < 100

    def test_integer_inputs_are_made_up_where_no_example_is(
        self, transformer: Exported, brief_profile: Profile
    ) -> None:
        (measurement,) = self.connected().measure([transformer.artifact], brief_profile)
        assert measurement.readings["latency_ms"].samples.size > 0

    def test_a_length_that_nothing_gives_is_not_measured(self, tmp_path: Path, brief_profile: Profile) -> None:
        artifact = save_model(token_model(), tmp_path / "tokens.onnx")
        with pytest.raises(FreeDimensionError, match="free dimension \\(sequence\\)"):
            self.connected().measure([artifact], brief_profile)

    def test_the_example_is_what_is_fed(self, transformer: Exported, brief_profile: Profile) -> None:
        inputs, _ = labelled("transformer", 2)
        assert isinstance(inputs, dict)
        out_of_vocabulary = Example({**inputs, "input_ids": inputs["input_ids"] + 1000})
        with pytest.raises(RuntimeFailureError, match="fails in the runtime"):
            self.connected().measure([transformer.artifact], brief_profile, out_of_vocabulary)

    def test_an_example_of_another_shape_is_refused(self, mlp: Exported, brief_profile: Profile) -> None:
        with pytest.raises(DataError, match="shape"):
            self.connected().measure([mlp.artifact], brief_profile, Example((np.zeros((2, 9), dtype=np.float32),)))

    def test_any_name_of_an_input_will_do(self, tmp_path: Path, brief_profile: Profile) -> None:
        shape = ("batch", 4)
        names = ["scores/in:0", "arr_0", "größe"]
        node = helper.make_node("Sum", names, ["output"])
        model = onnx_model([node], dict.fromkeys(names, shape), {"output": shape}, {})
        (measurement,) = self.connected().measure([save_model(model, tmp_path / "odd.onnx")], brief_profile)
        assert measurement.readings["latency_ms"].samples.size > 0

    def test_an_input_named_file_will_do(self, tmp_path: Path, brief_profile: Profile) -> None:
        shape = ("batch", 4)
        model = onnx_model([helper.make_node("Neg", ["file"], ["output"])], {"file": shape}, {"output": shape}, {})
        (measurement,) = self.connected().measure([save_model(model, tmp_path / "odd.onnx")], brief_profile)
        assert measurement.readings["latency_ms"].samples.size > 0

    # answers

    def test_what_is_loaded_answers_as_the_runtime_does(self, transformer: Exported, brief_profile: Profile) -> None:
        feed = align(labelled("transformer", 5, seed=1)[0], transformer.artifact.inputs)
        found = self.connected().load(transformer.artifact, brief_profile).run(feed)
        wanted = OnnxRuntime().load(transformer.artifact, 1, {}).run(feed)
        assert len(found) == len(wanted) == 1
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)

    def test_a_session_refuses_inputs_that_do_not_fit_and_goes_on(self, mlp: Exported, brief_profile: Profile) -> None:
        session = self.connected().load(mlp.artifact, brief_profile)
        with pytest.raises(RuntimeFailureError):
            session.run({"input": np.zeros((2, 9), dtype=np.float32)})
        (found,) = session.run(align(mlp.example.inputs, mlp.artifact.inputs))
        assert np.isfinite(found).all()

    def test_a_broken_artifact_is_refused_when_it_is_loaded(
        self, mlp: Exported, tmp_path: Path, brief_profile: Profile
    ) -> None:
        (tmp_path / mlp.artifact.entry).write_bytes(b"not a model" * 50)
        with pytest.raises(RuntimeFailureError):
            self.connected().load(replace(mlp.artifact, root=tmp_path), brief_profile)

    def test_the_slowest_operators_come_with_their_shares_of_the_time(
        self, heavy: Artifact, brief_profile: Profile
    ) -> None:
        inputs = {"input": np.zeros((1, 1024), dtype=np.float32)}
        found = self.connected().slowest_operators(heavy, brief_profile, inputs)
        shares = [share for _, _, share in found]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0)
        assert all(name and kind and share >= 0 for name, kind, share in found)
        # six products of matrices and nothing else
        assert "MatMul" in found[0][1]

    def test_the_operators_of_what_does_not_run_are_a_runtime_failure(
        self, mlp: Exported, tmp_path: Path, brief_profile: Profile
    ) -> None:
        (tmp_path / mlp.artifact.entry).write_bytes(b"not a model" * 50)
        with pytest.raises(RuntimeFailureError):
            self.connected().slowest_operators(replace(mlp.artifact, root=tmp_path), brief_profile, mlp.example.arrays)

    # failures

    def test_a_broken_artifact_is_a_runtime_failure(
        self, mlp: Exported, tmp_path: Path, brief_profile: Profile
    ) -> None:
        (tmp_path / mlp.artifact.entry).write_bytes(b"not a model" * 50)
        broken = replace(mlp.artifact, root=tmp_path)
        with pytest.raises(RuntimeFailureError, match="fails in the runtime") as caught:
            self.connected().measure([broken], brief_profile)
        assert caught.value.exit_code == 4
        assert caught.value.where == str(broken.path)

    def test_a_broken_artifact_beside_a_whole_one_is_named(
        self, mlp: Exported, tmp_path: Path, brief_profile: Profile
    ) -> None:
        (tmp_path / mlp.artifact.entry).write_bytes(b"not a model" * 50)
        broken = replace(mlp.artifact, root=tmp_path)
        with pytest.raises(RuntimeFailureError) as caught:
            self.connected().measure([mlp.artifact, broken], brief_profile)
        assert caught.value.where == str(broken.path)

    def test_outputs_that_are_not_numbers_are_a_runtime_failure(self, tmp_path: Path, brief_profile: Profile) -> None:
        artifact = failing_artifact(tmp_path / "nan.onnx")
        with pytest.raises(RuntimeFailureError, match="not finite") as caught:
            self.connected().measure([artifact], brief_profile)
        assert caught.value.exit_code == 4
        assert caught.value.where == str(artifact.path)

    def test_a_batch_that_the_artifact_does_not_take_is_refused(self, tmp_path: Path, brief_profile: Profile) -> None:
        node = helper.make_node("Neg", ["input"], ["output"])
        model = onnx_model([node], {"input": (4, 3)}, {"output": (4, 3)}, {})
        artifact = save_model(model, tmp_path / "fixed.onnx")
        with pytest.raises(RuntimeFailureError, match="takes batches of 4 only, the profile measures at 1"):
            self.connected().measure([artifact], brief_profile)
        fitting = replace(brief_profile, protocol=replace(brief_profile.protocol, batch=4))
        (measurement,) = self.connected().measure([artifact], fitting)
        assert measurement.readings["latency_ms"].samples.size > 0
