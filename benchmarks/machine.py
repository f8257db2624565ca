"""Describe the machine and the versions that a measurement was made with."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Settings
from multibox.benchmark import machine


def facts(settings: Settings) -> dict[str, Any]:
    """Returns device, CPU, threads, commit, versions and date, for the JSON and the line above the tables."""
    on_gpu = settings.device != "cpu"
    return {
        **machine.facts(torch.cuda.get_device_name() if on_gpu else "cpu"),
        "cuda": torch.version.cuda if on_gpu else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": settings.threads,
    }


def multiplies_bf16() -> bool:
    """Returns whether this CPU has instructions for bf16; without them bf16 is slower than fp32."""
    flags = _cpuinfo().get("flags", "").split()
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16"))


def _cpuinfo() -> dict[str, str]:
    """Returns what Linux says about the first core; empty on other systems."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if file.exists() else []
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
