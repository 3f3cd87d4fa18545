"""Describes this machine: started by its file path, it prints one JSON object.

It uses the standard library only.
"""

import json
import os
import platform
from pathlib import Path
from typing import Any

# names as /proc/cpuinfo and sysctl spell them, and what they mean for planning
INT8_DOT_PRODUCT = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "feat_dotprod")
BF16 = ("avx512_bf16", "amx_bf16", "bf16", "feat_bf16")
FP16 = ("avx512_fp16", "fphp", "feat_fp16")
INSTRUCTION_SETS = ("sse4_2", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
                    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve", "bf16", "fphp")  # fmt: skip


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _cpuinfo() -> tuple[str, set[str]]:
    model, flags = "", set()
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("model name", "Hardware") and not model:
            model = value
        if key in ("flags", "Features"):
            flags |= set(value.lower().split())
    return model, flags


def _arm_core(cpuinfo: str) -> str:
    # arm64 kernels give part numbers instead of names: Arm's MIDR_EL1 table
    parts = {"0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76",
             "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE", "0xd46": "Cortex-A510", "0xd47": "Cortex-A710",
             "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd49": "Neoverse-N2"}  # fmt: skip
    found = [line.split(":")[1].strip() for line in cpuinfo.splitlines() if line.startswith("CPU part")]
    names = sorted({parts.get(part, part) for part in found})
    return " + ".join(names)


def _sysctl(name: str) -> str:
    import subprocess

    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _memory_mb() -> int:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1_000_000)
    except (ValueError, OSError, AttributeError):
        return 0


def describe() -> dict[str, Any]:
    """Architecture, CPU model, board, cores, memory (MB) and features of this machine."""
    model, flags = _cpuinfo()
    model = model or _arm_core(_read("/proc/cpuinfo")) or platform.processor()
    if platform.system() == "Darwin":
        model = _sysctl("machdep.cpu.brand_string")
        known = {"feat_dotprod": "FEAT_DotProd", "feat_bf16": "FEAT_BF16", "feat_fp16": "FEAT_FP16"}
        flags |= {flag for flag, key in known.items() if _sysctl(f"hw.optional.arm.{key}") == "1"}
    features = [name for name in INSTRUCTION_SETS if name in flags]
    for name, spellings in (("int8_dot_product", INT8_DOT_PRODUCT), ("bf16", BF16), ("fp16", FP16)):
        if flags & set(spellings):
            features.append(name)
    return {
        "arch": platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64"),
        "cpu_model": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_mb": _memory_mb(),
        "features": sorted(set(features)),
        "board": _read("/proc/device-tree/model") or _read("/sys/devices/soc0/machine"),
        "system": platform.system(),
    }


if __name__ == "__main__":
    print(json.dumps(describe()))
