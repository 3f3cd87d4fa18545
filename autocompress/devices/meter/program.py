"""The measuring program: loads artifacts in a process of its own and times their calls.

It reads one JSON command per line and answers each with one JSON line. Started with the number of the parent process
and the file of a backend, which loads artifacts of one runtime: a class `Backend(threads, options)` with `version` and
`load(artifact)`, which returns a function that runs it (see `backends/`).

Commands: `open` (artifact, inputs, threads, options), `load` (artifact, inputs, padding), `block` (calls, discard),
`under_load` (streams, seconds), and end of input, which ends the program. Between commands it blocks on its input and
uses no CPU, so that another artifact's process can be timed meanwhile.
"""

import ctypes
import gc
import importlib.util
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
# the control kernel: how many numbers it sorts, how many others it adds up (4 MB), and how many times
CONTROL_SIZE = 4096
CONTROL_SUM = 1 << 19
CONTROL_CALLS = 5
# calls after reloading that do not count: the first ones still allocate memory
FIRST_CALLS = 3
# least calls of each stream under load
LEAST_STREAMED = 2
# where Linux shows the energy counters of the processor's packages, for Intel and AMD alike
POWER = "/sys/class/powercap"


def die_with_parent() -> None:
    """Make this process end when its parent process does, however that ends.

    On Linux by a signal of the kernel; elsewhere the end of input has this effect.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # the parent may have ended before the call above; in a container it may well be process 1
        if len(sys.argv) > 1 and os.getppid() != int(sys.argv[1]):
            sys.exit(1)


def peak_rss_mb() -> float:
    """Peak resident memory of this process in MB (1,000,000 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _reset_peak() -> None:
    # from here on the kernel's high-water mark counts from the present value (Linux 4.0 and later)
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return


def _hwm_mb() -> float:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass  # no /proc on this system; the peak of the whole life is the nearest figure
    return peak_rss_mb()


def energy_counters(folder: str = POWER) -> list[tuple[str, int]]:
    """Readable energy counter files of the processor packages, each with its largest value, in uJ.

    They count the energy that a package has used and begin again at 0 after that value. Running Average Power Limit
    counters: Linux, Documentation/power/powercap/powercap.rst.
    """
    found = []
    for zone in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, zone, "name"), encoding="ascii") as file:
                # the cores and the memory controller of a package have zones of their own inside it
                if not file.read().startswith("package"):
                    continue
            with open(os.path.join(folder, zone, "max_energy_range_uj"), encoding="ascii") as file:
                limit = int(file.read())
            counter = os.path.join(folder, zone, "energy_uj")
            with open(counter, encoding="ascii") as file:
                int(file.read())
        except (OSError, ValueError):
            # mostly because this user may not read them: then energy cannot be measured
            continue
        found.append((counter, limit))
    return found


def read_energy(counters: list[tuple[str, int]]) -> list[int]:
    """The present values of the counters, in uJ."""
    shown = []
    for path, _ in counters:
        with open(path, encoding="ascii") as file:
            shown.append(int(file.read()))
    return shown


def energy_between(before: list[int], after: list[int], counters: list[tuple[str, int]]) -> int:
    """The energy used between two readings, in uJ; counters may begin again at 0 once in between."""
    return sum((late - early) % (limit + 1) for early, late, (_, limit) in zip(before, after, counters, strict=True))


class Meter:
    """Loads artifacts, one at a time, and times them."""

    def __init__(self, backend: Any) -> None:
        import numpy

        self.numpy, self.backend = numpy, backend
        self.loader: Any = None
        self.call: Any = None
        self.feed: dict[str, Any] = {}
        self.empty_mb = 0.0
        self.padding = b""
        self.counters = energy_counters()
        # work for one core, inside its cache and beyond, always the same: what slows it slows the artifact as well
        random = numpy.random.default_rng(0)
        self.control = random.random(CONTROL_SIZE)
        self.numbers = random.random(CONTROL_SUM)

    def open(self, artifact: str, inputs: str, threads: int, options: dict[str, str]) -> dict[str, Any]:
        """Load the artifact; `inputs` is an .npz file with one batch, keys `input NAME`."""
        self.read(inputs)
        gc.collect()
        _reset_peak()
        self.empty_mb = _hwm_mb()
        self.loader = self.backend(threads, options)
        start = time.monotonic()
        outputs = self.begin(artifact)
        finite = all(self.numpy.isfinite(o).all() for o in outputs if o.dtype.kind == "f")
        seconds = time.monotonic() - start
        return {"finite": bool(finite), "version": self.loader.version, "seconds": seconds}

    def read(self, inputs: str) -> None:
        """Read the input arrays for the artifact from a file."""
        with self.numpy.load(inputs, allow_pickle=False) as file:
            self.feed = {name.removeprefix("input "): file[name] for name in file.files}

    def begin(self, artifact: str) -> list[Any]:
        """Load the artifact and return the outputs of its first call."""
        self.call = self.loader.load(artifact)
        outputs: list[Any] = self.call(self.feed)
        return outputs

    def load(self, artifact: str, inputs: str, padding: int) -> dict[str, Any]:
        """Load another artifact and its inputs, after allocating `padding` bytes so that it lies elsewhere."""
        start = time.monotonic()
        self.call = None
        gc.collect()
        self.padding = bytes(padding)
        self.read(inputs)
        self.begin(artifact)
        for _ in range(FIRST_CALLS):
            self.call(self.feed)
        return {"seconds": time.monotonic() - start}

    def block(self, calls: int, discard: int) -> dict[str, Any]:
        """Times of `calls` calls in ms, after `discard` calls that do not count."""
        call, feed, clock = self.call, self.feed, time.perf_counter_ns
        before = self.control_ms()
        for _ in range(discard):
            call(feed)
        times = []
        gc.disable()
        used = read_energy(self.counters)
        for _ in range(calls):
            start = clock()
            call(feed)
            times.append((clock() - start) / 1e6)
        energy = energy_between(used, read_energy(self.counters), self.counters)
        gc.enable()
        return {
            "ms": times,
            "memory_mb": max(_hwm_mb() - self.empty_mb, 0.0),
            "control_ms": max(before, self.control_ms()),
            "energy_mj": energy / 1000 / calls if self.counters else None,
        }

    def under_load(self, streams: int, seconds: float) -> dict[str, Any]:
        """Calls per second of `streams` threads that call at the same time, each with its own inputs.

        Each goes on for `seconds` and for two calls at least, and counts at its own rate, so that calls that end after
        the others' do not count as slow.
        """
        before = self.control_ms()
        ready = threading.Barrier(streams)
        rates: list[float] = []
        failures: list[BaseException] = []

        def stream() -> None:
            call, clock = self.call, time.perf_counter
            try:
                feed = {name: array.copy() for name, array in self.feed.items()}
                call(feed)
                ready.wait()
                start = now = clock()
                calls = 0
                while calls < LEAST_STREAMED or now - start < seconds:
                    call(feed)
                    calls += 1
                    now = clock()
                rates.append(calls / (now - start))
            except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
                failures.append(error)
                ready.abort()

        threads = [threading.Thread(target=stream) for _ in range(streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            # the others only found the barrier broken
            raise failures[0]
        return {"calls_per_s": sum(rates), "control_ms": max(before, self.control_ms())}

    def control_ms(self) -> float:
        """The control kernel's time: the median time of sorting and adding up the same numbers, in ms.

        Of 300 blocks of ResNet-20 beside a neighbour, nine in ten of the slowed ones were slow in both, two in ten of
        the others; products of matrices showed three in ten.
        """
        times = []
        for _ in range(CONTROL_CALLS):
            start = time.perf_counter_ns()
            self.numpy.sort(self.control)
            self.numbers.sum()
            times.append((time.perf_counter_ns() - start) / 1e6)
        return sorted(times)[len(times) // 2]


def backend_in(path: str) -> Any:
    """The class `Backend` defined in a file."""
    spec = importlib.util.spec_from_file_location("backend", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Backend


def main() -> None:
    """Answer commands until the input ends."""
    # Ctrl-C reaches all processes of a terminal: only the parent reacts, or it would take this end for a failure
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    die_with_parent()
    meter = Meter(backend_in(sys.argv[2]))
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "open": meter.open,
        "load": meter.load,
        "block": meter.block,
        "under_load": meter.under_load,
    }
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # whatever a library prints goes to the error stream and not among the answers
    os.dup2(2, 1)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = commands[command.pop("do")](**command)
        except Exception as error:  # noqa: BLE001 - the parent must be told of every failure, with its message
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
