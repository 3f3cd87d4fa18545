"""Ways to keep the accuracy of int8 and of 4-bit weights on convolutional networks: accuracy, size, latency, agreement.

    python benchmarks/precision.py [--only mobilenet_v2 --only resnet20_4_bits] [--part files | learned]

- mobilenet_v2, mobilenet_v3, efficientnet: the networks of depthwise_networks.py. Static int8 with one scale per weight
  and per channel, with other ranges, prepared, with layers in float, with learned rounding, and trained.
- mobilenet_v2_7_bits: the first of them with weights of 7 bits per tensor, as CPUs without an int8 dot product need.
- resnet20_4_bits, resnet56_4_bits: weights of 4 bits (stored in int8 tensors) and int8 activations.

Layers in float are chosen on the 3,352 test images that choose; all figures are of the 6,648 others. Files are kept in
runs/precision, rows in benchmarks/results/precision.json, each as soon as it is known, so that a run goes on where it
was cut. Latency is measured last, when nothing trains: blocks of calls that alternate between the float file and the
others. About an hour of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from depthwise_networks import NETWORKS, depthwise_network
from networks import cifar_resnet
from precision_files import FILES, Bench, Finish, images, step
from precision_rows import figures, keep, keep_latencies, keep_refusals, keep_row, stamped

from autocompress.core.plan import Setting, Step
from autocompress.core.sensitivity import IN_FLOAT
from autocompress.runtimes.onnx_file import compact, load_model, save_model
from autocompress.simulation.few_bits import limit_bits
from autocompress.simulation.float_weights import load_float_weights
from autocompress.simulation.graph_module import GraphModule

DEPTHS = {"resnet20_4_bits": 20, "resnet56_4_bits": 56}
# of what int8 loses, layers in float have to win back so much on the images that choose
SHARE_WON_BACK = 0.8
# how weights are quantized, by the words that begin the names of rows
WEIGHTS: dict[str, dict[str, Setting]] = {
    "per tensor": {"per_channel": False},
    "per channel": {"per_channel": True},
    "per tensor, 7 bits": {"per_channel": False, "reduce_range": True},
}
# all but these cases quantize per tensor and per channel
HARDER = {"mobilenet_v2_7_bits": "mobilenet_v2"}


def int8(name: str, **settings: Setting) -> Step:
    return step("int8_static", **WEIGHTS[name], **settings)


def untrained(name: str) -> Iterator[tuple[str, Finish]]:
    """Static int8 and what takes seconds, in the order of effort."""
    plain = int8(name)
    yield "int8", (plain,)
    for ranges in ("percentile", "mse"):
        yield f"{ranges} ranges", (int8(name, calibration=ranges),)
    yield "cross-layer equalization", (step("equalization"), plain)
    yield "outliers smoothed", (step("equalization", method="smooth"), plain)
    yield "bias correction", (plain, step("bias_correction"))


def learned(name: str) -> Iterator[tuple[str, Finish]]:
    """What is learned behind static int8."""
    plain = int8(name)
    for steps in (40, 250):
        yield f"learned rounding, {steps} steps", (plain, step("learned_rounding", steps=steps))
    yield "trained 300 steps", (plain, step("quantization_aware_training", ranges="learned"))
    yield "trained 300 steps, fixed scales", (plain, step("quantization_aware_training", ranges="fixed"))


def depthwise(case: str, bench: Bench) -> None:
    keep_row(bench, case, "float", ())
    names = ("per tensor, 7 bits",) if case in HARDER else ("per tensor", "per channel")
    for name in names:
        for what, finish in untrained(name):
            keep_row(bench, case, f"{name}: {what}", finish)
        mixed(case, bench, name, int8(name))
    depthwise_learned(case, bench)


def depthwise_learned(case: str, bench: Bench) -> None:
    """Rows of what is learned, per tensor: with a scale per channel none of these networks loses half a point."""
    name = "per tensor, 7 bits" if case in HARDER else "per tensor"
    # latency is told as a share of its
    bench.made((int8(name),))
    for what, finish in learned(name):
        keep_row(bench, case, f"{name}: {what}", finish)


def mixed(case: str, bench: Bench, name: str, plain: Step) -> None:
    """A row for each of the nested sets of layers in float; the first that wins enough back is chosen."""
    found = bench.sensitivity(plain)
    keep_refusals(bench, case, found, name)
    choosing = bench.task.validation
    assert choosing is not None
    lost = bench.judged(bench.made((plain,))[0], choosing)["drop_pp"]
    chosen = False
    for one in found.mixed:
        finish = (step("int8_static", **{**plain.settings, IN_FLOAT.name: " ".join(one.layers)}),)
        left = bench.judged(bench.made(finish)[0], choosing)["drop_pp"]
        first = not chosen and lost > 0 and lost - left >= SHARE_WON_BACK * lost
        chosen = chosen or first
        count = f"{len(one.layers)} {'layer' if len(one.layers) == 1 else 'layers'} in float"
        more = {"chosen": first, "choosing_drop_pp": left, "choosing_lost_pp": lost, "divergence": one.divergence}
        keep_row(bench, case, f"{name}: {count}", finish, more)


def few_bits() -> Iterator[tuple[str, Finish]]:
    """Weights of 4 bits, a scale per channel."""
    plain = int8("per channel")
    for steps in (40, 250):
        yield f"4 bits, learned rounding, {steps} steps", (plain, step("learned_rounding", bits=4, steps=steps))
    yield "4 bits, trained 300 steps", (plain, step("quantization_aware_training", bits=4, ranges="learned"))


def nearest(case: str, bench: Bench, plain: Step) -> None:
    """The row of weights that are rounded to the nearest of 16 levels, which no technique does alone."""
    quantized, _ = bench.made((plain,))
    model = load_model(quantized.path)
    graph = GraphModule(model).eval().requires_grad_(False)
    load_float_weights(graph, load_model(bench.start.path))
    limit_bits(graph, 4)
    made = save_model(compact(graph.write_to(model)), bench.folder / "nearest.onnx")
    row = stamped(case, "per channel: 4 bits, to the nearest level")
    keep({**row, "file": made.path.name, **figures(bench, made, tuned=True)})


def four_bits(case: str, bench: Bench) -> None:
    keep_row(bench, case, "float", ())
    keep_row(bench, case, "per channel: int8", (int8("per channel"),))
    keep_refusals(bench, case, None, "per channel")
    # a plan that cannot be done
    keep_row(bench, case, "per channel: 4 bits, learned rounding without int8", (step("learned_rounding", bits=4),))
    nearest(case, bench, int8("per channel"))
    four_bits_learned(case, bench)


def four_bits_learned(case: str, bench: Bench) -> None:
    for what, finish in few_bits():
        keep_row(bench, case, f"per channel: {what}", finish)


CASES = {**dict.fromkeys((*NETWORKS, *HARDER), depthwise), **dict.fromkeys(DEPTHS, four_bits)}
LEARNED = {**dict.fromkeys((*NETWORKS, *HARDER), depthwise_learned), **dict.fromkeys(DEPTHS, four_bits_learned)}


def bench_of(case: str) -> Bench:
    module = cifar_resnet(DEPTHS[case]) if case in DEPTHS else depthwise_network(HARDER.get(case, case))
    return Bench(module, images(), FILES / case)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(CASES), default=[])
    told = "only make and judge files, of these only what is learned, or only time the files that are there"
    parser.add_argument("--part", choices=("files", "learned", "latency"), help=told)
    given = parser.parse_args()
    benches = {case: bench_of(case) for case in given.only or CASES}
    for case, bench in benches.items() if given.part != "latency" else ():
        (LEARNED if given.part == "learned" else CASES)[case](case, bench)
    for case, bench in benches.items() if given.part in (None, "latency") else ():
        keep_latencies(bench, case, [f"{name}: int8" for name in WEIGHTS])


if __name__ == "__main__":
    main()
